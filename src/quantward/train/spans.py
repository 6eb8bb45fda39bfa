"""Where the time of a training goes: named spans of code, which cost nothing while nobody watches.

A span counts what it spends itself, without the spans inside it, so that all of them sum to the whole. Who watches is
set for a block of code and not handed down: stages, losses and recipes need not know of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import nn

from quantward.train.layers import LayerTimes, look_into

LOOKED = range(1, 4)
"""Steps that are looked into layer by layer. They, and the first one, which warms up, are in no span."""


@dataclass(eq=False)
class Watch:
    """What has been seen so far: seconds of each span, timed steps and their images, and times by layer."""

    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    images: int = 0
    layers: LayerTimes = field(default_factory=LayerTimes)
    seen: int = 0
    inside: list[float] = field(default_factory=list)
    whole: int = 0

    @property
    def timing(self) -> bool:
        """Whether spans count now: not before the steps that are looked into are over, nor inside a whole one."""
        return self.seen >= LOOKED.stop and not self.whole

    @contextmanager
    def span(self, name: str, whole: bool) -> Iterator[None]:
        """Add what the block spends to `name`; a `whole` one keeps the spans inside it for itself."""
        if not self.timing:
            with torch.autograd.profiler.record_function(f"span::{name}"):
                yield
            return
        self.inside.append(0.0)
        self.whole += whole
        started = _now()
        try:
            yield
        finally:
            spent = _now() - started
            self.whole -= whole
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self.inside.pop()
            if self.inside:
                self.inside[-1] += spent

    @contextmanager
    def step(self, net: nn.Module, images: int) -> Iterator[None]:
        """One training step: timed, or, early on, looked into."""
        if self.seen in LOOKED:
            with look_into(net, self.layers):
                yield
        else:
            with self.span("other", whole=False):
                yield
            if self.timing:
                self.steps, self.images = self.steps + 1, self.images + images
        self.seen += 1


_watching: ContextVar[Watch | None] = ContextVar("watching", default=None)


def span(name: str, *, whole: bool = False) -> AbstractContextManager[None]:
    """The block belongs to `name`, where somebody watches.

    >>> with watching() as watch, span("data"):
    ...     pass
    >>> watch.seconds  # nothing is timed before the steps that are looked into
    {}
    """
    watch = _watching.get()
    return nullcontext() if watch is None else watch.span(name, whole)


def step(net: nn.Module, images: int) -> AbstractContextManager[None]:
    """The block is one training step of `net` on `images` images."""
    watch = _watching.get()
    return nullcontext() if watch is None else watch.step(net, images)


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch every training inside the block."""
    watch = Watch()
    token = _watching.set(watch)
    try:
        yield watch
    finally:
        _watching.reset(token)


def _now() -> float:
    """Seconds, once the GPU has done what it was given: it works behind the program's back."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
