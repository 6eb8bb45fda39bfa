"""Trainings in a process of their own that is killed, by the system and without a word, at a step or in a write."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train_world import bars

from quantward.core.values import Dataset, Fold

PRELOADED = ["torch", "timm", "lightning_fabric", "quantward.train.run", "quantward.quantize.recipes.qat"]
COMMON = "batch=16,lr=0.003,precision=32"


def world(classes: int) -> tuple[Dataset, Fold, Any]:
    """Bars of two or three classes: 32 to train on, 16 to stop by."""
    pixels, labels = bars(48, classes)
    order = np.random.default_rng(1).permutation(48)
    ids = tuple(f"image {i}" for i in range(48))
    dataset = Dataset("bars", tuple("abc"[:classes]), ids, labels, "f1", lambda i: pixels[i])
    none = np.zeros(0, np.int64)
    return dataset, Fold(0, 1, 0, "f1", order[:32], order[32:], none, none, none), pixels


def trained(stage: str, folder: Path, classes: int = 3) -> None:
    """One ordinary training."""
    from quantward.train import STAGES, train_model

    dataset, fold, pixels = world(classes)
    train_model(dataset, fold, pixels, arch="test_resnet", weights="none", seed=1, folder=folder,
                stage=STAGES.make(f"{stage},{COMMON}"))  # fmt: skip


def trained_together(stage: str, folder: Path) -> None:
    """The same training by two processes."""
    from quantward.train import on_devices

    with on_devices(2):
        trained(stage, folder)


def quantized(lesson: str, folder: Path) -> None:
    """Quantization-aware training of the network in `folder`/../float for a lesson; its Plan in `folder`/plan."""
    from quantward.core.registry import Registry
    from quantward.graph.capture import capture
    from quantward.graph.files import save_plan
    from quantward.train import load_model
    from quantward.workbench import Lessons, calibration

    dataset, fold, pixels = world(3)
    model = load_model(folder.parent / "float")
    fit = Lessons(pixels, np.asarray(dataset.labels), fold, model.classes, model.preprocess, asked=lesson)
    own = Fold(0, 1, 0, "f1", fold.train, fold.tune, fold.train, fold.tune, fold.tune)
    recipe = Registry("recipe", "quantward.quantize.recipes").make(
        "qat:method=pact,weights=4,activations=4,epochs=1,batch=16,augment=light,distill=0.3"
    )
    save_plan(recipe.plan(capture(model), calibration(pixels, own, model.preprocess, fit=fit, folder=folder / "state")),
              folder / "plan")  # fmt: skip


def begin(work: Any, given: tuple[Any, ...], die_at_step: int, die_in_write: int) -> None:
    """What the process does: every step is saved, and step or write number `die_...` (from 1; 0: none) is its last."""
    torch.set_num_threads(1)
    import safetensors.torch

    from quantward.train import loop

    plain_step, plain_init, plain_save = loop._Run._step, loop._Run.__init__, safetensors.torch.save_file
    steps = writes = 0

    def step(self: Any, batch: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == die_at_step:
            os.kill(os.getpid(), signal.SIGKILL)
        plain_step(self, batch)

    def init(self: Any, *given: Any) -> None:
        plain_init(self, *given)
        self.save_every = 0.0

    def save(tensors: Any, path: Any, *given: Any, **named: Any) -> None:
        nonlocal writes
        writes += 1
        plain_save(tensors, path, *given, **named)
        if writes == die_in_write:
            os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    loop._Run._step, loop._Run.__init__ = step, init  # type: ignore[method-assign]
    safetensors.torch.save_file = save
    work(*given)


def process(work: Any, *given: Any, die_at_step: int = 0, die_in_write: int = 0) -> int | None:
    """Run it and say how it ended: 0, or minus the number of the signal."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    child = context.Process(target=begin, args=(work, given, die_at_step, die_in_write))
    child.start()
    child.join(80)
    return child.exitcode
