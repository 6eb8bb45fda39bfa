"""How long opened files take, measured in turns: a machine that slows down must slow down all of them alike.

At each batch size every file is first called until its times have come to rest; then rounds follow, each of which
gives every file one turn, in an order drawn anew. A turn is a few calls in a row, clocked where the file is open. So
drift and neighbours fall on all alike, and the medians of one round are pairs: ratios between files get an interval
from resampling rounds (`evaluate.speedups`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from quantward.core.errors import QuantwardError, UsageError
from quantward.core.progress import Track, silent
from quantward.core.values import Latency

TURN = 0.05
"""Seconds of a turn: long against switching to another file and against a step of the energy counter."""

MOST_CALLS = 20
"""Calls of a turn at most, so that many rounds fit in the time of a small network."""

LEAST_ROUNDS = 5
"""Rounds made even when the time is over: fewer have no interval."""

SETTLED = 0.05
"""How much the median of three turns may differ from that of the three before, when warming up ends."""

WARMUP = 12
"""Turns of warming up at most."""

LONG = 0.5
"""Seconds of a call from which cold caches do not matter, so that none is made for them alone."""


class Timed(Protocol):
    """Something that clocks its own calls: seconds of each of `calls` calls on `batch` images, after `touch` that are
    not counted. `peak_bytes` is the most memory it ever held, None where nobody knows."""

    def time(self, batch: int, calls: int, touch: int = 1) -> Sequence[float]: ...

    def peak_bytes(self) -> int | None: ...


@dataclass(frozen=True)
class Timing:
    """Latencies by batch size; `failure` is why it ended early, empty where it did not."""

    latency: tuple[Latency, ...] = ()
    failure: str = ""

    @property
    def throughput(self) -> float | None:
        """Images a second at the largest batch: batch / p50."""
        if not self.latency or self.latency[-1].p50 <= 0:
            return None
        return 1000 * self.latency[-1].batch / self.latency[-1].p50


@dataclass
class _Lane:
    """One file at one batch size, as it is being timed."""

    timed: Timed
    calls: int = 1
    touch: int = 1
    settled: bool = False
    rounds: list[list[float]] = field(default_factory=list)
    joules: float = 0.0
    images: int = 0


def bench(
    files: Mapping[str, Timed],
    *,
    batches: Sequence[int] = (1, 32),
    rounds: int = 30,
    seconds: float = 5.0,
    largest: Mapping[str, int] | None = None,
    seed: int = 0,
    energy: Callable[[], float] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    track: Track = silent,
) -> dict[str, Timing]:
    """Time each file at each batch size, smallest first; `largest` caps the batch by name.

    A batch size ends after `rounds` rounds or about `seconds` a file, not before 5 rounds. A file whose call raises a
    QuantwardError is out from then on, with the reason; the others go on. p50, p90 and p99 are percentiles of single
    calls in milliseconds. `energy` gives joules so far; the energy of a turn is shared by all its images.
    """
    if not files or rounds < 1 or not batches or min(batches) < 1:
        raise UsageError("Expected files, batch sizes of at least 1 and at least one round; got none. Name them.")
    caps, order = largest or {}, np.random.default_rng(seed)
    found: dict[str, list[Latency]] = {name: [] for name in files}
    failures: dict[str, str] = {}
    for batch in sorted(set(batches)):
        going = {name: timed for name, timed in files.items() if name not in failures}
        lanes = {name: _Lane(timed) for name, timed in going.items() if batch <= caps.get(name, batch)}
        if not lanes:
            continue
        for name in track(list(lanes), f"warm up at batch {batch}", total=len(lanes)):
            with _leaving(name, lanes, failures, batch):
                _warm(lanes[name], batch, seconds)
        end = clock() + seconds * len(lanes)
        for _ in track(_until(rounds, end, clock), f"time at batch {batch}", total=rounds):
            names = list(lanes)
            for place in order.permutation(len(names)):
                with _leaving(names[place], lanes, failures, batch):
                    _turn(lanes[names[place]], batch, energy)
        for name in list(lanes):
            with _leaving(name, lanes, failures, batch):
                found[name].append(_latency(batch, lanes[name], energy is not None))
    return {name: Timing(tuple(rows), failures.get(name, "")) for name, rows in found.items()}


def summed(batch: int, calls: Sequence[float], rounds: Sequence[float] = (), settled: bool = True) -> Latency:
    """Percentiles and robust spread of single calls, given in milliseconds.

    >>> summed(1, [1.0, 2.0, 3.0, 4.0, 100.0]).p50
    3.0
    """
    p25, p50, p75, p90, p99 = (float(value) for value in np.percentile(calls, [25, 50, 75, 90, 99]))
    spread = (p75 - p25) / 1.349 / p50 if p50 > 0 else 0.0
    return Latency(batch, p50, p90, p99, len(calls), spread, tuple(rounds), settled)


def _until(rounds: int, end: float, clock: Callable[[], float]) -> Iterable[int]:
    for done in range(rounds):
        if done >= LEAST_ROUNDS and clock() > end:
            return
        yield done


@contextmanager
def _leaving(name: str, lanes: dict[str, _Lane], failures: dict[str, str], batch: int) -> Iterator[None]:
    """A file whose call fails leaves its lane, with the reason."""
    try:
        yield
    except QuantwardError as error:
        failures[name] = f"at batch {batch}: {getattr(error, 'reason', error)}"
        del lanes[name]


def _warm(lane: _Lane, batch: int, seconds: float) -> None:
    """Call until the times are at rest or `seconds` are over, and decide on the calls of a turn."""
    turns: list[float] = []
    spent = 0.0
    while len(turns) < WARMUP:
        calls = lane.timed.time(batch, lane.calls, touch=0)
        spent += sum(calls)
        turns.append(float(np.median(calls)))
        lane.calls = _calls(turns[-1])
        if len(turns) >= 2 and (spent > seconds or (len(turns) >= 6 and at_rest(turns))):
            break
    lane.touch = 0 if turns[-1] > LONG else 1
    lane.settled = at_rest(turns)


def at_rest(turns: Sequence[float]) -> bool:
    """Whether the median of the last three turns is that of the three before, within `SETTLED`; of fewer than six
    turns, the last half and as many before.

    >>> at_rest([9, 5, 4, 3.0, 3.1, 3.0, 2.9, 3.0, 3.0]), at_rest([9, 7, 5, 4, 3.5, 3.2])
    (True, False)
    """
    half = min(3, len(turns) // 2)
    before, now = float(np.median(turns[-2 * half : -half])), float(np.median(turns[-half:]))
    return abs(now - before) <= SETTLED * before


def _calls(seconds: float) -> int:
    """How many calls of that length make a turn."""
    return MOST_CALLS if seconds * MOST_CALLS <= TURN else max(1, math.ceil(TURN / seconds))


def _turn(lane: _Lane, batch: int, energy: Callable[[], float] | None) -> None:
    """A touch to bring the file's weights back to the caches, then the calls that count."""
    before = energy() if energy is not None else 0.0
    calls = [1000 * seconds for seconds in lane.timed.time(batch, lane.calls, touch=lane.touch)]
    if energy is not None:
        lane.joules += energy() - before
        lane.images += batch * (lane.calls + lane.touch)
    lane.rounds.append(calls)


def _latency(batch: int, lane: _Lane, metered: bool) -> Latency:
    every = [call for calls in lane.rounds for call in calls]
    row = summed(batch, every, [float(np.median(calls)) for calls in lane.rounds], lane.settled)
    joules = lane.joules / lane.images if metered and lane.images else None
    return replace(row, joules=joules, peak_bytes=lane.timed.peak_bytes())
