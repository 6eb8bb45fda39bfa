"""A profile of a training: how fast it was, and what it spent its time on, by part of a step and by kind of layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from quantward.core import machine
from quantward.core.store import write_json
from quantward.train.spans import LOOKED, Watch, watching

FILE = "profile.json"
PARTS = ("data", "augment", "forward", "loss", "teacher", "saliency", "backward", "together", "optimizer",
         "validation", "checkpoint", "other")  # fmt: skip
"""In the order of the tables; a part that took no time is left out."""
MOST = 12
"""Kinds of layers that the terminal shows; the file has all."""


@dataclass(frozen=True)
class Part:
    """Seconds of one part of the training in all, and its share of them."""

    part: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Layer:
    """Milliseconds that one kind of layer takes in a step, its share of the network's, and how many of it there are."""

    layer: str
    calls: float
    forward_ms: float
    backward_ms: float
    share: float


@dataclass(frozen=True)
class Profile:
    """What a Watch saw. `images_per_second` is that of training steps: data to optimizer, without validation."""

    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    images_per_second: float | None = None
    parts: tuple[Part, ...] = ()
    layers: tuple[Layer, ...] = ()
    looked_into: int = 0
    device: str = "cpu"
    threads: int = 1
    format: int = field(default=1)

    def lines(self) -> list[str]:
        """Both tables for a terminal."""
        if not self.looked_into:
            return [f"Nothing to profile: fewer than {LOOKED.start + 1} steps were trained. Choose another --out."]
        lines = []
        if self.images_per_second is None:
            lines.append(f"Fewer than {LOOKED.stop + 1} steps: only their layers were looked into.")
        else:
            lines.append(f"{self.images_per_second:.1f} images a second in training ({self.steps} steps, "
                         f"{self.device}, {self.threads} thread{'s' * (self.threads != 1)})")  # fmt: skip
            lines.append(f"{'part':28}{'seconds':>10}{'share':>8}")
            lines += [f"{row.part:28}{row.seconds:10.2f}{row.share:8.1%}" for row in self.parts]
        lines.append(f"{'layers, ms a step':28}{'calls':>10}{'forward':>10}{'backward':>10}{'share':>8}")
        for row in self.layers[:MOST]:
            lines.append(f"{row.layer[:27]:28}{row.calls:10.0f}{row.forward_ms:10.1f}{row.backward_ms:10.1f}"
                         f"{row.share:8.1%}")  # fmt: skip
        if len(self.layers) > MOST:
            rest = self.layers[MOST:]
            lines.append(f"{f'{len(rest)} more kinds':28}{'':10}{sum(r.forward_ms for r in rest):10.1f}"
                         f"{sum(r.backward_ms for r in rest):10.1f}{sum(r.share for r in rest):8.1%}")  # fmt: skip
        return lines


@dataclass(eq=False)
class Profiling:
    """What `profiled` gives: `profile` once its block is over."""

    profile: Profile = field(default_factory=Profile)


@contextmanager
def profiled(folder: Path | None = None) -> Iterator[Profiling]:
    """Profile every training inside the block, by whichever verb; write `profile.json` into `folder` afterwards.

    Three steps are looked into by layer, all later ones are timed by part. A block that is left by an error or by
    Ctrl-C has its profile too.
    """
    found = Profiling()
    with watching() as watch:
        try:
            yield found
        finally:
            found.profile = summed(watch)
            if folder is not None and found.profile.looked_into:
                write_json(folder / FILE, {**vars(found.profile), "machine": machine.describe()})


def summed(watch: Watch) -> Profile:
    """The tables of what was seen, largest layers first."""
    whole, looked = sum(watch.seconds.values()), watch.layers
    trained = whole - watch.seconds.get("validation", 0.0) - watch.seconds.get("checkpoint", 0.0)
    names = [*PARTS, *(name for name in watch.seconds if name not in PARTS)]
    parts = tuple(Part(name, watch.seconds[name], watch.seconds[name] / whole) for name in names
                  if watch.seconds.get(name))  # fmt: skip
    spent = {
        name: (looked.forward.get(name, 0.0), looked.backward.get(name, 0.0))
        for name in {**looked.forward, **looked.backward}
    }
    network = sum(map(sum, spent.values()))
    layers = tuple(
        Layer(name, looked.calls.get(name, 0) / looked.steps, 1e3 * ahead / looked.steps, 1e3 * back / looked.steps,
              (ahead + back) / network)
        for name, (ahead, back) in sorted(spent.items(), key=lambda item: -sum(item[1]))
        if ahead + back
    )  # fmt: skip
    return Profile(
        steps=watch.steps,
        images=watch.images,
        seconds=whole,
        images_per_second=watch.images / trained if watch.images else None,
        parts=parts,
        layers=layers,
        looked_into=looked.steps,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else machine.cpu()[0],
        threads=torch.get_num_threads(),
    )
