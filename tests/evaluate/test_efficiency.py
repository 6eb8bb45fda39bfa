"""Latency in turns: who is called when, and what the percentiles say, with a clock of our own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantward.core.errors import Refused, UsageError
from quantward.evaluate.efficiency import (
    LEAST_ROUNDS,
    MOST_CALLS,
    TURN,
    WARMUP,
    Timing,
    at_rest,
    bench,
    summed,
)


class Clock:
    """Time that passes only when a file works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class File:
    """Something to time: `cost(k)` seconds for the k-th call on one image; keeps a log of its turns."""

    def __init__(
        self,
        clock: Clock,
        cost: Callable[[int], float] | float,
        log: list[tuple[str, int, int, int]] | None = None,
        name: str = "",
        dies_at: int | None = None,
    ) -> None:
        self.clock, self.log, self.name, self.dies_at = clock, [] if log is None else log, name, dies_at
        self.cost = cost if callable(cost) else lambda k: cost
        self.made = 0

    def time(self, batch: int, calls: int, touch: int = 1) -> list[float]:
        if self.dies_at is not None and len(self.log) >= self.dies_at:
            raise Refused("Expected an answer; it crashed (SIGSEGV). Try another runtime.")
        self.log.append((self.name, batch, calls, touch))
        seconds = []
        for k in range(touch + calls):
            self.made += 1
            one = self.cost(self.made) * batch
            self.clock.now += one
            if k >= touch:
                seconds.append(one)
        return seconds

    def peak_bytes(self) -> int | None:
        return 1000 * self.made


def test_files_take_turns_in_an_order_drawn_anew() -> None:
    clock, log = Clock(), []  # type: ignore[var-annotated]
    files = {"slow": File(clock, 0.010, log, "slow"), "quick": File(clock, 0.002, log, "quick")}
    found = bench(files, batches=(4, 1), rounds=20, seconds=1e9, clock=clock)
    assert [row.batch for row in found["slow"].latency] == [1, 4]
    one, two = found["slow"].latency[0], found["quick"].latency[0]
    assert one.p50 == pytest.approx(10) and two.p50 == pytest.approx(2) and len(one.rounds) == len(two.rounds) == 20
    assert found["quick"].throughput == pytest.approx(500)
    assert one.reliable and one.spread == pytest.approx(0) and one.settled
    timed = [name for name, batch, _, touch in log if batch == 1 and touch == 1]
    rounds = [timed[i : i + 2] for i in range(0, 40, 2)]
    assert all(set(pair) == {"slow", "quick"} for pair in rounds)
    assert 4 < sum(pair[0] == "slow" for pair in rounds) < 16
    again = [name for name, batch, _, touch in log if batch == 4 and touch == 1]
    assert len(again) == 40


def test_a_turn_lasts_about_as_long_for_quick_and_slow_files() -> None:
    clock = Clock()
    for cost in (1e-5, 0.004, 0.03, 2.0):
        file = File(clock, cost)
        row = bench({"a": file}, batches=(1,), rounds=6, seconds=1e9, clock=clock)["a"].latency[0]
        calls, touch = file.log[-1][2:]
        assert row.runs == 6 * calls and 1 <= calls <= MOST_CALLS
        assert calls in (1, MOST_CALLS) or TURN <= calls * cost < TURN + cost
        assert touch == (0 if cost > 0.5 else 1)


def test_warming_up_ends_when_the_times_have_come_to_rest() -> None:
    clock = Clock()
    falling = File(clock, lambda k: 0.1 * (1 + 4 * 0.5**k))
    row = bench({"a": falling}, batches=(1,), rounds=5, seconds=1e9, clock=clock)["a"].latency[0]
    warm = [turn for turn in falling.log if turn[3] == 0]
    assert 6 <= len(warm) <= WARMUP and row.settled and row.p50 == pytest.approx(100, rel=0.02)
    growing = File(clock, lambda k: 0.1 * 1.2**k)
    row = bench({"a": growing}, batches=(1,), rounds=5, seconds=1e9, clock=clock)["a"].latency[0]
    assert len([turn for turn in growing.log if turn[3] == 0]) >= WARMUP and not row.settled and not row.reliable


def test_warming_up_ends_when_its_time_is_over() -> None:
    clock = Clock()
    slow = File(clock, 30.0)
    row = bench({"a": slow}, batches=(1,), rounds=50, seconds=5, clock=clock)["a"].latency[0]
    assert len(slow.log) == 2 + LEAST_ROUNDS and row.runs == LEAST_ROUNDS and row.settled


@given(st.lists(st.floats(0.9, 1.1), min_size=6, max_size=20), st.floats(0.001, 100))
def test_rest_does_not_depend_on_the_unit(turns: list[float], unit: float) -> None:
    before, now = np.median(turns[-6:-3]), np.median(turns[-3:])
    if abs(abs(now - before) / before - 0.05) > 1e-9:
        assert at_rest(turns) == at_rest([unit * turn for turn in turns])


def test_a_file_that_dies_is_out_and_the_others_go_on() -> None:
    clock = Clock()
    for dies_at in (0, 3, 9):
        files = {"dies": File(clock, 0.01, dies_at=dies_at), "lives": File(clock, 0.01)}
        found = bench(files, batches=(1, 2), rounds=8, seconds=1e9, clock=clock)
        assert found["dies"].latency == () and found["dies"].throughput is None
        assert found["dies"].failure.startswith("at batch 1: Expected an answer; it crashed (SIGSEGV)")
        assert len(found["lives"].latency) == 2 and not found["lives"].failure
        assert len(found["lives"].latency[1].rounds) == 8
    late = {"late": File(clock, 0.01, dies_at=16)}
    found = bench(late, batches=(1, 2), rounds=8, seconds=1e9, clock=clock)
    assert [row.batch for row in found["late"].latency] == [1] and found["late"].failure.startswith("at batch 2: ")


def test_a_cap_on_the_batch_is_kept() -> None:
    clock = Clock()
    files = {"one": File(clock, 0.1), "any": File(clock, 0.1)}
    found = bench(files, batches=(1, 8), rounds=5, largest={"one": 1}, clock=clock)
    assert [row.batch for row in found["one"].latency] == [1] and len(found["any"].latency) == 2
    assert found["one"].throughput == pytest.approx(10)


def test_noise_is_flagged_and_a_single_hiccup_is_not() -> None:
    clock, draw = Clock(), np.random.default_rng(0)
    noisy = File(clock, lambda k: float(draw.uniform(0.5, 1.5)))
    row = bench({"a": noisy}, batches=(1,), rounds=30, seconds=1e9, clock=clock)["a"].latency[0]
    assert not row.reliable and row.p50 < row.p90 <= row.p99
    hiccup = [10.0] * 99 + [500.0]
    assert summed(1, hiccup).reliable and summed(1, hiccup).p99 > 10
    assert np.std(hiccup) / np.mean(hiccup) > 1


def test_the_spread_of_normal_times_is_their_coefficient_of_variation() -> None:
    calls = np.random.default_rng(1).normal(100, 8, 20_000)
    assert summed(1, calls.tolist()).spread == pytest.approx(0.08, rel=0.03)


def test_energy_is_shared_by_all_images_of_a_turn() -> None:
    clock = Clock()
    watts = {"one": 3.0, "two": 5.0}
    files = {name: File(clock, 0.02, name=name) for name in watts}
    spent, last = 0.0, [0.0]

    def joules() -> float:
        nonlocal spent
        recent = max((file.log for file in files.values()), key=len)
        spent += (clock.now - last[0]) * 4.0
        last[0] = clock.now
        assert recent
        return spent

    found = bench(files, batches=(1, 4), rounds=5, seconds=1e9, energy=joules, clock=clock)
    for timing in found.values():
        assert [row.joules for row in timing.latency] == pytest.approx([0.02 * 4.0] * 2)
    assert bench(files, batches=(1,), rounds=5, clock=clock)["one"].latency[0].joules is None


def test_memory_is_told_at_each_batch_size() -> None:
    file = File(Clock(), 0.01)
    rows = bench({"a": file}, batches=(1, 2), rounds=5, clock=file.clock)["a"].latency
    assert rows[0].peak_bytes is not None and rows[1].peak_bytes is not None
    assert 0 < rows[0].peak_bytes < rows[1].peak_bytes


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(UsageError, match="Name them"):
        bench({})
    with pytest.raises(UsageError, match="Name them"):
        bench({"a": File(Clock(), 1.0)}, batches=(0,))
    assert Timing().throughput is None
