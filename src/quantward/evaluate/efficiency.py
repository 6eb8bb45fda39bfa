"""How long opened sessions take, measured in turns: a machine that slows down must slow down all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantward.core.contracts import Batch, Session
from quantward.core.errors import UsageError
from quantward.core.machine import cpu
from quantward.core.progress import Track, silent
from quantward.core.values import Efficiency, Latency, Variant


@dataclass(frozen=True)
class Timing:
    """Latencies by batch size and, from the largest batch, images a second."""

    latency: tuple[Latency, ...]
    throughput: float | None


def bench(
    sessions: Mapping[str, Session],
    images: Callable[[int], Batch],
    *,
    batches: Sequence[int] = (1, 32),
    runs: int = 50,
    warmup: int = 5,
    seconds: float = 20.0,
    largest: Mapping[str, int] | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    track: Track = silent,
) -> dict[str, Timing]:
    """Time each session at each batch size; `images(b)` makes a batch (b, 3, size, size).

    Each round calls every session once, in an order drawn anew, so that drift and neighbours fall on all alike. A
    batch size ends after `runs` rounds or about `seconds`, not before 5 rounds. `largest` caps the batch by name.
    p50, p90 and p99 are percentiles of single calls in milliseconds; throughput is b / p50 at the largest batch.
    """
    if not sessions or runs < 1 or not batches or min(batches) < 1:
        raise UsageError("Expected sessions, batch sizes of at least 1 and at least one run; got none. Name them.")
    caps = largest or {}
    order = np.random.default_rng(seed)
    found: dict[str, list[Latency]] = {name: [] for name in sessions}
    for size in sorted(set(batches)):
        names = [name for name in sessions if size <= caps.get(name, size)]
        if not names:
            continue
        batch = images(size)
        for name in names:
            for _ in range(warmup):
                sessions[name](batch)
        times: dict[str, list[float]] = {name: [] for name in names}
        start = clock()
        for done in track(range(runs), f"latency at batch {size}", total=runs):
            if done >= 5 and clock() - start > seconds:
                break
            for place in order.permutation(len(names)):
                name = names[place]
                before = clock()
                sessions[name](batch)
                times[name].append(1000 * (clock() - before))
        for name in names:
            found[name].append(_latency(size, times[name]))
    return {
        name: Timing(tuple(rows), 1000 * rows[-1].batch / rows[-1].p50 if rows and rows[-1].p50 > 0 else None)
        for name, rows in found.items()
    }


def priced(variant: Variant, runtime: str, timing: Timing, peak_bytes: int | None = None) -> Efficiency:
    """A Variant's cost on one runtime: its bytes, the seconds it took to make, and its timing on this machine."""
    return Efficiency(
        variant.name,
        runtime,
        variant.bytes,
        variant.seconds,
        timing.latency,
        timing.throughput,
        peak_bytes,
        cpu()[0],
    )


def _latency(batch: int, times: Sequence[float]) -> Latency:
    p50, p90, p99 = np.percentile(times, [50, 90, 99])
    mean = float(np.mean(times))
    return Latency(
        batch,
        float(p50),
        float(p90),
        float(p99),
        len(times),
        float(np.std(times)) / mean if mean > 0 else 0.0,
    )
