"""Latency in turns: who is called when, and what the percentiles say, with a clock of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantward.core.errors import UsageError
from quantward.core.values import Preprocess, Variant
from quantward.evaluate.efficiency import Timing, bench, priced


class Clock:
    """Time that passes only when a session works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def session(clock: Clock, seconds: float, log: list[tuple[str, int]], name: str) -> Any:
    def call(batch: Any) -> Any:
        clock.now += seconds * len(batch)
        log.append((name, len(batch)))
        return np.zeros((len(batch), 2), np.float32)

    return call


def images(b: int) -> Any:
    return np.zeros((b, 3, 8, 8), np.float32)


def test_sessions_take_turns_and_times_are_theirs() -> None:
    clock, log = Clock(), []  # type: ignore[var-annotated]
    sessions = {"slow": session(clock, 0.010, log, "slow"), "quick": session(clock, 0.002, log, "quick")}
    found = bench(sessions, images, batches=(4, 1), runs=20, warmup=2, seconds=1e9, clock=clock)
    assert [row.batch for row in found["slow"].latency] == [1, 4]
    assert found["slow"].latency[0].p50 == pytest.approx(10) and found["quick"].latency[0].p50 == pytest.approx(2)
    assert found["quick"].throughput == pytest.approx(500)
    assert found["quick"].latency[0].runs == 20 and found["quick"].latency[0].reliable
    timed = [name for name, size in log if size == 1][4:]
    rounds = [set(timed[i : i + 2]) for i in range(0, 40, 2)]
    assert all(pair == {"slow", "quick"} for pair in rounds)
    assert 4 < sum(timed[i] == "slow" for i in range(0, 40, 2)) < 16


def test_time_runs_out_after_five_rounds() -> None:
    clock, log = Clock(), []  # type: ignore[var-annotated]
    found = bench({"a": session(clock, 1.0, log, "a")}, images, batches=(1,), runs=100, seconds=0.5, clock=clock)
    assert found["a"].latency[0].runs == 5


def test_a_cap_on_the_batch_is_kept() -> None:
    clock, log = Clock(), []  # type: ignore[var-annotated]
    sessions = {"one": session(clock, 0.1, log, "one"), "any": session(clock, 0.1, log, "any")}
    found = bench(sessions, images, batches=(1, 8), runs=5, largest={"one": 1}, clock=clock)
    assert [row.batch for row in found["one"].latency] == [1] and len(found["any"].latency) == 2
    assert found["one"].throughput == pytest.approx(10)


def test_noise_is_flagged() -> None:
    clock = Clock()
    rng = np.random.default_rng(0)

    def call(batch: Any) -> Any:
        clock.now += float(rng.uniform(0.5, 1.5))
        return batch

    found = bench({"a": call}, images, batches=(1,), runs=30, seconds=1e9, clock=clock)
    row = found["a"].latency[0]
    assert not row.reliable and row.p50 < row.p90 <= row.p99


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(UsageError, match="Name them"):
        bench({}, images)


def test_priced_carries_the_file(tmp_path: Path) -> None:
    how = Preprocess(size=8, resize=8)
    variant = Variant("int8", "onnx", tmp_path, "0", 1234, "int8-static", "p", how, ("a", "b"), 3.5)
    found = priced(variant, "onnxruntime", Timing((), None))
    assert (found.name, found.bytes, found.seconds, found.runtime) == ("int8", 1234, 3.5, "onnxruntime")
    assert found.machine
