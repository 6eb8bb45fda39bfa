"""Ratios of medians: paired by round, with intervals that cover, and against the right baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from quantward.core.values import Efficiency, Latency
from quantward.evaluate.speedups import ratio, same_runtime, with_speedups


def row(name: str, runtime: str, recipe: str, rounds: Sequence[float], *, parent: str = "net", threads: int = 1,
        batch: int = 1, machine: str = "m") -> Efficiency:  # fmt: skip
    p50 = float(np.median(rounds))
    line = Latency(batch, p50, p50, p50, len(rounds), 0.0, tuple(rounds))
    return Efficiency(name, runtime, 1, 0.0, (line,), machine=machine, threads=threads, recipe=recipe, parent=parent)


def test_the_mood_of_the_machine_cancels() -> None:
    mood = 1 + np.random.default_rng(0).exponential(0.5, 40)
    value, low, high = ratio((8 * mood).tolist(), (2 * mood).tolist())
    assert value == pytest.approx(4) and high - low < 1e-9
    alone = ratio((8 * mood).tolist(), (2 * mood[::-1]).tolist())
    assert alone[2] - alone[1] > 0.1


def test_intervals_cover_the_true_ratio() -> None:
    draw = np.random.default_rng(1)
    covered = 0
    for k in range(200):
        pairs = draw.lognormal(0, 0.1, (2, 30))
        _, low, high = ratio((6 * pairs[0]).tolist(), (2 * pairs[1]).tolist(), seed=k)
        covered += low <= 3 <= high
    assert 0.90 <= covered / 200 <= 0.995


def test_ratios_are_reciprocal_and_repeat_with_their_seed() -> None:
    draw = np.random.default_rng(2)
    a, b = draw.lognormal(0, 0.2, (2, 21)).tolist()
    there, back = ratio(a, b, seed=5), ratio(b, a, seed=5)
    assert there[0] == pytest.approx(1 / back[0]) and there[1] == pytest.approx(1 / back[2], rel=0.02)
    assert ratio(a, b, seed=5) == there


def test_each_row_is_held_against_fp32_of_its_runtime_and_against_eager() -> None:
    rows = [
        row("fp32", "onnxruntime", "fp32", [8, 8, 8]),
        row("int8", "onnxruntime", "int8-static", [4, 4, 4]),
        row("fp32", "torch-float", "fp32", [32, 32, 32]),
        row("fp32", "openvino", "fp32", [6, 6, 6]),
        row("fp32", "openvino:precision=bf16", "fp32", [2, 2, 2]),
        row("int8", "openvino:precision=bf16", "int8-static", [1, 1, 1]),
        row("other", "onnxruntime", "int8-static", [1, 1, 1], parent="other net"),
        row("int8", "onnxruntime", "int8-static", [3, 3, 3], threads=2),
    ]
    found = [{one.reference: one.value for one in made.speedups} for made in with_speedups(rows)]
    eager = "fp32 on torch-float"
    assert found[0] == {eager: 4}
    assert found[1] == {"fp32 on onnxruntime": 2, eager: 8}
    assert found[2] == {}
    assert found[4] == {"fp32 on openvino": 3, eager: 16}
    assert found[5] == {"fp32 on openvino": 6, eager: 32}
    assert found[6] == {} and found[7] == {}
    assert same_runtime(rows[5], rows) is rows[3]


def test_without_any_fp32_the_first_row_is_the_reference() -> None:
    rows = [row("a", "litert", "int8-static", [4, 4]), row("b", "litert", "int4-weights", [8, 8])]
    found = with_speedups(rows)
    assert found[0].speedups == () and [one.value for one in found[1].speedups] == [0.5]
    assert found[1].speedups[0].reference == "a on litert"


def test_rows_that_shared_no_rounds_have_no_ratio() -> None:
    rows = [row("fp32", "a", "fp32", [4, 4]), row("x", "a", "int8-static", [2, 2, 2])]
    assert with_speedups(rows)[1].speedups == ()
    rows = [row("fp32", "a", "fp32", [4, 4]), row("x", "a", "int8-static", [2, 2], batch=8)]
    assert with_speedups(rows)[1].speedups == ()
    gone = Efficiency("fp32", "a", 1, 0.0, (), recipe="fp32", parent="net", machine="m", failure="crashed")
    assert with_speedups([gone, rows[1]])[1].speedups == ()
