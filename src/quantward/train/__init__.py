"""From a Dataset and a Fold to a trained float classifier. The only room that knows timm.

Names are fetched when they are first used, so that listing the stages or showing help never waits for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quantward.core.registry import Registry

if TYPE_CHECKING:
    from quantward.train.backbones import build, preprocess_of
    from quantward.train.batches import Batch, Batches, Images
    from quantward.train.course import Course
    from quantward.train.crew import on_devices
    from quantward.train.files import load_model, save_model
    from quantward.train.judge import evaluate
    from quantward.train.loop import History, Stopped, fit
    from quantward.train.losses import classify, criterion, cross_entropy
    from quantward.train.profile import profiled
    from quantward.train.run import train_model

STAGES = Registry("stage", "quantward.train.stages")
"""Every way to train, by name; `STAGES.make("fit:epochs=5")` gives one."""

_HOMES = {
    "Batch": "batches",
    "Batches": "batches",
    "Images": "batches",
    "Course": "course",
    "History": "loop",
    "Stopped": "loop",
    "build": "backbones",
    "classify": "losses",
    "criterion": "losses",
    "cross_entropy": "losses",
    "evaluate": "judge",
    "fit": "loop",
    "load_model": "files",
    "on_devices": "crew",
    "preprocess_of": "backbones",
    "profiled": "profile",
    "save_model": "files",
    "train_model": "run",
}

__all__ = [
    "STAGES",
    "Batch",
    "Batches",
    "Course",
    "History",
    "Images",
    "Stopped",
    "build",
    "classify",
    "criterion",
    "cross_entropy",
    "evaluate",
    "fit",
    "load_model",
    "on_devices",
    "preprocess_of",
    "profiled",
    "save_model",
    "train_model",
]


def __getattr__(name: str) -> Any:
    """Fetch a public name from the file it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
