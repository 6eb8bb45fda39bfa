"""How long a step may take before any like it has been done: rules of thumb for two cores, wrong by a factor of three.

They only have to weigh steps against each other: as soon as a step of a kind is done, its real time corrects the rest
(`forecast`). They decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantward.study.wants import Net, made
from quantward.workbench import RECIPES

START = 2.0
"""Seconds that any step takes, however little there is to do."""

LEARN, LOOK = 0.08, 0.02
"""Seconds a training step and an answer take for one image of 224 x 224 pixels, for a network like MobileNetV2."""


def pixels(net: Net) -> float:
    """How many times as many pixels an image has as one of 224 x 224."""
    return ((net.size or 224) / 224) ** 2


def train(net: Net, stage: str, counts: Mapping[str, int]) -> float:
    """Every epoch over the images for weights, and once over those for stopping."""
    images = counts["train"] + 0.3 * counts["tune"]
    return START + epochs_of(stage) * images * LEARN * pixels(net) * (3.0 if stage.startswith("saliency") else 1.0)


def plan(net: Net, recipe: str, lesson: str, counts: Mapping[str, int]) -> float:
    """Nothing, one pass over the images for ranges, or a training."""
    how = made(RECIPES, recipe)
    if how.needs == "nothing":
        return START
    samples = getattr(how, "samples", None) or counts["calibrate"]
    looked = START + 3 * samples * LOOK * pixels(net) * (10.0 if getattr(how, "rounding", "") == "adaptive" else 1.0)
    if how.needs == "images":
        return looked
    slower = 2.0 * (3.0 if lesson.startswith("saliency") else 1.0)
    return looked + float(how.epochs) * counts["train"] * LEARN * pixels(net) * slower * (2 if how.via else 1)


def file(net: Net) -> float:
    """Writing one file."""
    return START


def said(net: Net, images: int) -> float:
    """One pass over the images, through the file and through its simulation."""
    return START + 2 * images * LOOK * pixels(net)


def score(replicates: int) -> float:
    """Resampling."""
    return START + replicates / 1000


def bench(files: int, batches: int, seconds: float) -> float:
    """Every file at every batch size, and its cold starts."""
    return START + files * (batches * seconds + 5.0)


def drift(net: Net, images: int) -> float:
    """Two maps an image."""
    return START + 8 * images * LOOK * pixels(net)


def sensitivity(net: Net) -> float:
    """Some fifty layers, each over 64 images."""
    return START + 50 * 64 * LOOK * pixels(net)


def epochs_of(stage: str) -> int:
    """How many epochs a stage may last.

    >>> epochs_of("staged:head_epochs=1,top_epochs=2,epochs=3")
    6
    """
    from quantward.train import STAGES

    course = made(STAGES, stage)
    return sum(int(getattr(course, name, 0)) for name in ("epochs", "head_epochs", "top_epochs"))
