"""Deployed file -> Session, one file a runtime; the directory is the registry."""
