"""Which width for which layer: the least total loss for every number of bytes, by exact dynamic programming.

Layers are added one by one; of all ways to choose so far only those are kept that no other way beats in bytes, time
and loss at once (Nemhauser and Ullmann, "Discrete dynamic programming and capital allocation", 1969). What is left at
the end is the whole front, so that a budget can be chosen after the fact.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantward.core.errors import UsageError

LIMIT = 20_000
"""Ways that are kept after each layer. Networks need a few thousand; where one needs more, the front says
`exact=False`. With measured times far more ways are unbeaten, each costs a search, and `TIMED` are kept."""

TIMED = 3_000


@dataclass(frozen=True)
class Option:
    """What one width of one layer costs (bytes, and milliseconds where they were measured) and what it loses."""

    bytes: int
    loss: float
    milliseconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Front:
    """All choices that no other one beats, cheapest first: bytes rise, and where time plays no part the loss falls.

    With `exact` false some ways were left out on the way; each point still is a real choice with its true costs.
    """

    bytes: npt.NDArray[np.int64]
    milliseconds: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64]
    exact: bool
    steps: tuple[tuple[npt.NDArray[np.int32], npt.NDArray[np.int16]], ...]

    def __len__(self) -> int:
        return len(self.bytes)

    def picks(self, point: int) -> tuple[int, ...]:
        """The option of each layer at one point."""
        found = []
        for parents, chosen in reversed(self.steps):
            found.append(int(chosen[point]))
            point = int(parents[point])
        return tuple(reversed(found))

    def best(self, budget: float, milliseconds: float | None = None) -> int | None:
        """The point of least loss within the budget of bytes (and milliseconds); None where nothing fits."""
        fits = self.bytes <= budget
        if milliseconds is not None:
            fits &= self.milliseconds <= milliseconds
        if not fits.any():
            return None
        return int(np.where(fits, self.loss, np.inf).argmin())

    def spread(self, count: int) -> list[int]:
        """At most `count` points, evenly spaced in bytes, the cheapest and the best one among them."""
        if len(self) <= count:
            return list(range(len(self)))
        goals = np.linspace(self.bytes[0], self.bytes[-1], count)
        found = [point for goal in goals[:-1] if (point := self.best(goal)) is not None]
        return sorted({*found, int(self.loss.argmin())})


def front(layers: Sequence[Sequence[Option]], limit: int | None = None) -> Front:
    """The front of sum(bytes), sum(milliseconds), sum(loss) over one option a layer.

    >>> both = front([[Option(8, 0.0), Option(4, 0.1)], [Option(80, 0.0), Option(40, 0.2)]])
    >>> [(int(b), both.picks(i)) for i, b in enumerate(both.bytes)]
    [(44, (1, 1)), (48, (0, 1)), (84, (1, 0)), (88, (0, 0))]

    Raises UsageError for a layer without options, or a loss or time that is negative or not finite.
    """
    for number, options in enumerate(layers):
        if not options:
            raise UsageError(f"Expected options for every layer; layer {number} has none. Offer a width.")
        if not all(0 <= value < np.inf for o in options for value in (o.bytes, o.loss, o.milliseconds)):
            raise UsageError(
                f"Expected losses and costs of at least 0; layer {number} has {options}. Measure the layer anew."
            )
    size, time, loss = np.zeros(1, np.int64), np.zeros(1), np.zeros(1)
    steps: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int16]]] = []
    exact = True
    if limit is None:
        limit = TIMED if any(o.milliseconds for options in layers for o in options) else LIMIT
    for options in layers:
        costs = [np.array([getattr(o, name) for o in options]) for name in ("bytes", "milliseconds", "loss")]
        size, time, loss = (
            (kept[:, None] + cost[None]).reshape(-1) for kept, cost in zip((size, time, loss), costs, strict=True)
        )
        keep = _undominated(size, time, loss)
        if len(keep) > limit:
            exact = False
            keep = keep[np.unique(np.linspace(0, len(keep) - 1, limit).round().astype(np.int64))]
        size, time, loss = size[keep], time[keep], loss[keep]
        steps.append(((keep // len(options)).astype(np.int32), (keep % len(options)).astype(np.int16)))
    return Front(size, time, loss, exact, tuple(steps))


def _undominated(
    size: npt.NDArray[np.int64], time: npt.NDArray[np.float64], loss: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Indices of the points that none beats in all three, by rising bytes; of equal points the first."""
    order = np.lexsort((loss, time, size))
    if np.ptp(time) == 0:
        fallen = np.minimum.accumulate(loss[order])
        return np.asarray(order[np.concatenate([[True], loss[order][1:] < fallen[:-1]])], np.int64)
    stairs_time: list[float] = []  # among the points so far: times rise, losses fall
    stairs_loss: list[float] = []
    kept = []
    for index in order:
        t, l = float(time[index]), float(loss[index])  # noqa: E741
        place = bisect_right(stairs_time, t)
        if place and stairs_loss[place - 1] <= l:
            continue
        first = bisect_left(stairs_time, t)
        last = first
        while last < len(stairs_loss) and stairs_loss[last] >= l:
            last += 1
        stairs_time[first:last] = [t]
        stairs_loss[first:last] = [l]
        kept.append(int(index))
    return np.asarray(kept, np.int64)
