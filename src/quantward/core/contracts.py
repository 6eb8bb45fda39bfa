"""What a recipe, a target and a runtime promise. Anything that keeps the promise may join, from any package."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from quantward.core.progress import Track, silent
from quantward.core.values import Plan, Variant

Batch = npt.NDArray[np.float32]
T = TypeVar("T")


class Trained(Protocol):
    """How a training went: a row of figures an epoch, which epoch's weights were kept, and why it ended."""

    @property
    def rows(self) -> tuple[Mapping[str, float], ...]: ...

    @property
    def best_epoch(self) -> int: ...

    @property
    def ended(self) -> str: ...


class Fit(Protocol):
    """Trains a torch module in place on the images for weights, keeps the epoch that is best on those for stopping.

    `loss(net, batch)` gives the terms of the loss by name, for a batch with `inputs` and `labels`. `groups` are
    parameter groups as torch knows them, where `share` scales the rate. With a `folder` a killed training goes on from
    there; `arguments` name whatever else its result depends on. `images` is how many there are for weights.

    `lesson()` is a new loss of this form, for labels and whatever else the person wants to be learned; None where that
    is plain cross-entropy. It first calls the net with the batch's own inputs, says how often it does so in a step
    where that is not once (`passes`), and is a torch module where it remembers something. `taught` is its record: how
    it is spelled (`lesson`) and what it depends on; empty where there is none.
    """

    @property
    def images(self) -> int: ...

    @property
    def taught(self) -> Mapping[str, Any]: ...

    def lesson(self) -> Callable[[Any, Any], Mapping[str, Any]] | None: ...

    def __call__(
        self,
        net: Any,
        loss: Callable[[Any, Any], Mapping[str, Any]],
        *,
        groups: Sequence[Mapping[str, Any]],
        epochs: int,
        batch: int,
        lr: float,
        patience: int,
        augment: str,
        folder: Path | None,
        arguments: Mapping[str, Any],
    ) -> Trained: ...


@dataclass(frozen=True)
class Context:
    """What floor 4 lends to a recipe. `images(n)` yields preprocessed batches (b, 3, size, size), n images in all
    (every calibration image where n is None); `fit` trains a network in place, for recipes that need training, with
    `folder` to go on from after a kill."""

    images: Callable[[int | None], Iterator[Batch]]
    fit: Fit | None = None
    seed: int = 0
    folder: Path | None = None
    progress: Track = field(default=silent)
    remembered: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made once for all recipes that share this Context: histograms serve every calibrator."""
        if key not in self.remembered:
            self.remembered[key] = make()
        found: T = self.remembered[key]
        return found


@runtime_checkable
class Recipe(Protocol):
    """Plan in, Plan out. A frozen dataclass whose fields are its options."""

    needs: Literal["nothing", "images", "training"]

    def plan(self, parent: Plan, context: Context) -> Plan: ...


@runtime_checkable
class Target(Protocol):
    """Writes a Plan as a file. Raises Unsupported, with the reason, for what it cannot express."""

    format: str

    def write(self, plan: Plan, folder: Path) -> Variant: ...


class Session(Protocol):
    """An opened Variant: (n, 3, size, size) float32 -> logits (n, classes) float32."""

    def __call__(self, batch: Batch) -> Batch: ...


@dataclass(frozen=True)
class Executed:
    """What a runtime really runs after its optimiser: how many layers (convolutions, matrix products) in which
    arithmetic (`int8`, `float32`, ...), and how often each operator stands in the optimised graph."""

    layers: Mapping[str, int]
    operators: Mapping[str, int]


@runtime_checkable
class Runtime(Protocol):
    """Runs files of some formats. `missing()` says in one sentence what is not installed, or None; `executed` looks
    into the optimised graph, None where the runtime does not tell."""

    formats: tuple[str, ...]

    def missing(self) -> str | None: ...

    def open(self, variant: Variant, threads: int) -> Session: ...

    def executed(self, variant: Variant) -> Executed | None: ...
