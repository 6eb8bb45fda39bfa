"""What a study asks for: the values of a study file, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from quantward.core.registry import Registry
from quantward.workbench import RECIPES, RUNTIMES, TARGETS


@dataclass(frozen=True)
class Images:
    """One data set: `path` below the data's root, or `toy` made-up images of so many `classes`. `external` is a second
    set, to be asked about and never trained on: a path, or `toy`."""

    name: str
    path: str = ""
    split: str = "auto"
    external: str = ""
    toy: int = 0
    classes: int = 4


@dataclass(frozen=True)
class Net:
    """A network to train: `weights` is `none`, `timm`, or a file or folder below the data's root; `size` in pixels."""

    name: str
    arch: str
    weights: str = "timm"
    size: int | None = None
    stage: str = "fit"
    """Only teachers have a stage of their own."""


@dataclass(frozen=True)
class Timing:
    """How files are timed: the batch sizes, and for how many seconds each file at each of them."""

    batches: tuple[int, ...] = (1, 32)
    seconds: float = 5.0


@dataclass(frozen=True)
class Looks:
    """How a network's look is compared with that of FP32: the method, and on how many images."""

    method: str = "gradcam"
    images: int = 64


@dataclass(frozen=True)
class Paper:
    """Whom the study follows: the file or address, and how it is cited."""

    file: str = ""
    citation: str = ""


@dataclass(frozen=True)
class Published:
    """One figure of the paper: the mission's row it belongs to, which rows it is about, the figure, where it stands."""

    row: str
    where: Mapping[str, str]
    metric: str
    value: float
    cite: str = ""


@dataclass(frozen=True)
class Study:
    """A study file at one scale. Spellings still have their `{names}`; `document` is all of it as plain data."""

    name: str
    path: Path
    scale: str
    title: str
    paper: Paper
    data: tuple[Images, ...]
    folds: int
    shares: Mapping[str, float]
    seed: int
    backbones: tuple[Net, ...]
    stages: tuple[str, ...]
    teachers: tuple[Net, ...]
    recipes: tuple[str, ...]
    lessons: tuple[str, ...]
    vary: Mapping[str, tuple[Any, ...]]
    targets: tuple[str, ...]
    runtimes: tuple[str, ...]
    skip: tuple[Mapping[str, tuple[str, ...]], ...]
    threads: int
    gates: str | Mapping[str, Any]
    replicates: int
    bench: Timing | None
    drift: Looks | None
    sensitivity: str
    published: tuple[Published, ...]
    tables: tuple[str, ...]
    figures: tuple[str, ...]
    cut: tuple[str, ...]
    document: Mapping[str, Any] = field(repr=False, default_factory=dict)

    def pairs(self) -> list[tuple[str, str]]:
        """Targets and runtimes that work together: the runtime reads what the target writes."""
        return [(target, runtime) for target in self.targets for runtime in self.runtimes if fits(target, runtime)]


def fits(target: str, runtime: str) -> bool:
    """Whether a runtime reads what a target writes."""
    return made(TARGETS, target).format in made(RUNTIMES, runtime).formats


def recipe_needs(text: str) -> str:
    """What a recipe needs: nothing, images, or training."""
    return str(made(RECIPES, text).needs)


@lru_cache(maxsize=4096)
def made(registry: Registry, text: str) -> Any:
    """An entry from its spelling, made once a process: a study spells the same ones thousands of times."""
    return registry.make(text)
