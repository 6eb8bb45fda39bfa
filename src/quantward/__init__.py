"""Quantward: find the lowest precision a medical image classifier tolerates, prove it, ship the proof."""

__version__ = "0.1.0"
