"""Three phases with falling rates: the new head, then the top blocks, then all, so that nothing learned is torn up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from quantward.core.progress import Track, silent
from quantward.train import checkpoint
from quantward.train.batches import Images
from quantward.train.course import Course, require
from quantward.train.head import blocks
from quantward.train.loop import History
from quantward.train.presets import with_presets
from quantward.train.supervision import Supervision
from quantward.train.teach import teach
from quantward.train.trunk import asked_once


@with_presets
@dataclass(frozen=True)
class Staged(Supervision, Course):
    """The options of a Course and of Supervision, and how the phases follow each other.

    The head trains for `head_epochs` at `lr`, with the share `top` of the blocks (those next to it) for `top_epochs` at
    `fall` times that, and everything for `epochs` at `fall` times that again; schedule and patience begin anew in each.
    Normalisations of frozen blocks keep their statistics. A phase starts from the best epoch before it, and the best
    of all phases is kept. 0 epochs leave a phase out. With `augment=none` the frozen network is asked once for every
    image while the head trains, else about every view.
    """

    taught_as: ClassVar[str] = "fit"
    """The stage whose loss this is: as a lesson, for another loop, nothing else is left of it."""

    head_epochs: int = 3
    top_epochs: int = 5
    top: float = 0.3
    fall: float = 0.3

    def __post_init__(self) -> None:
        Course.__post_init__(self)
        Supervision.__post_init__(self)
        require(self, ("head_epochs", 0, math.inf), ("top_epochs", 0, math.inf), ("top", 0, 1), ("fall", 1e-6, 1))

    def run(
        self,
        net: nn.Module,
        images: Images,
        *,
        seed: int = 0,
        folder: Path | None = None,
        arguments: Mapping[str, Any] | None = None,
        track: Track = silent,
    ) -> History:
        """Train `net` in place on `images.train`, stop by `images.tune`.

        Each phase is a run of its own below `folder`: after a kill those that are done are read back.
        """
        told: list[tuple[str, History]] = []
        best: tuple[float, Mapping[str, Any], int] | None = None
        for number, (name, course, frozen) in enumerate(self._phases(net)):
            for key, parameter in net.named_parameters():
                parameter.requires_grad_(key not in frozen)
            alone = name == "head" and self.augment == "none"
            history = teach(
                net,
                images,
                course,
                self,
                self.lesson(images),
                seed=seed + number,
                folder=None if folder is None else checkpoint.part(folder, f"{number}-{name}"),
                arguments={**(arguments or {}), "phase": name},
                known=asked_once(net, images) if alone else None,
                track=track,
            )
            score = self._score(history)
            if best is None or score <= best[0]:
                state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
                best = score, state, sum(len(earlier.rows) for _, earlier in told) + history.best_epoch
            else:
                net.load_state_dict(best[1])
            told.append((name, history))
        net.requires_grad_(True)
        assert best is not None
        return _joined(told, best[2])

    def _phases(self, net: nn.Module) -> Iterator[tuple[str, Course, set[str]]]:
        """Name, course, and the parameters that stand still, of each phase."""
        below = blocks(net)
        still = len(below) - math.ceil(self.top * len(below))
        rows = (("head", self.head_epochs, len(below)), ("top", self.top_epochs, still), ("all", self.epochs, 0))
        own = {item.name: getattr(self, item.name) for item in fields(Course)}
        for fallen, (name, epochs, count) in enumerate(rows):
            if epochs:
                course = Course(**{**own, "epochs": epochs, "lr": self.lr * self.fall**fallen})
                yield name, course, {key for block in below[:count] for key in block}

    def _score(self, history: History) -> float:
        """What the kept epoch was chosen by, the less the better; without tuning images every phase is the best yet."""
        row = history.rows[history.best_epoch - 1]
        if "tune_loss" not in row:
            return -math.inf
        return row["tune_loss"] if self.monitor == "loss" else -row["tune_accuracy"]


def _joined(told: list[tuple[str, History]], best_epoch: int) -> History:
    """The phases as one history: epochs counted through, each row with the number of its phase."""
    rows: list[Mapping[str, float]] = []
    for number, (_, history) in enumerate(told, 1):
        before = len(rows)
        rows += [{**row, "epoch": before + place, "phase": number} for place, row in enumerate(history.rows, 1)]
    last = told[-1][1]
    return History(
        tuple(rows),
        best_epoch,
        "; ".join(f"{name}: {history.ended}" for name, history in told),
        sum(history.seconds for _, history in told),
        last.precision,
        last.arguments,
    )
