"""The cap really holds, it shows what the proof says, and where it cannot be measured that is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.audit import capped as module
from quantward.audit.capped import capped, compared, unmeasurable
from quantward.audit.child import Answer
from quantward.core.contracts import Batch, Context
from quantward.core.values import Plan, Variant, with_weights
from quantward.graph.walk import bias_of, layers
from quantward.quantize.recipes.int8_static import Int8Static
from quantward.targets.onnx_cpu import OnnxCpu


@pytest.fixture
def loud(small_plan: Plan) -> Plan:
    """The small network with one layer whose weights are all alike and whose inputs are all high: every pair of its
    products overflows 16 bits."""
    stem = bias_of(layers(small_plan.program)[0])
    assert stem is not None
    changed = {
        "blocks.0.expand.weight": np.full_like(small_plan.weights["blocks.0.expand.weight"], 0.02),
        stem: small_plan.weights[stem] + np.float32(8.0),
    }
    return with_weights(small_plan, changed, parent="loud")


def bright(images: Batch) -> Context:
    def lend(n: int | None) -> Iterator[Batch]:
        yield np.abs(images[: n or len(images)])

    return Context(images=lend)


def test_a_capped_child_overflows_and_seven_bits_do_not(loud: Plan, images: Batch, tmp_path: Path) -> None:
    gaps = {}
    for reduced in (False, True):
        plan = Int8Static(calibrator="max", equalise=0.0, reduce_range=reduced).plan(loud, bright(images))
        variant = OnnxCpu().write(plan, tmp_path / str(reduced))
        reason = unmeasurable(variant)
        if reason:
            pytest.skip(reason)
        found = capped(variant, lambda: np.abs(images[:16]))
        assert found.worst is not None and found.images == 16, found.reason
        gaps[reduced] = found.worst
    assert gaps[False] > 0.1 and gaps[True] < gaps[False] / 10, gaps


def never() -> Batch:
    raise AssertionError("images must not be made where nothing can be measured")


def test_a_processor_without_vnni_says_so(int8_file: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(module.machine, "cpu", lambda: ("old", ("avx2",)))
    found = capped(int8_file, never)
    assert found.agreement is None and found.images == 0 and "has no VNNI" in found.reason


def test_a_format_that_no_capped_runtime_reads_says_so(int8_file: Variant) -> None:
    pytest.importorskip("openvino")
    found = capped(replace(int8_file, format="tflite"), never)
    assert found.agreement is None and found.reason == "no runtime that honours the cap reads tflite files"


def test_an_absent_runtime_is_a_fact_with_its_reason(int8_file: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantward.runtimes.openvino import Openvino

    monkeypatch.setattr(Openvino, "missing", lambda self: "openvino is not installed; run: pip install openvino")
    assert capped(int8_file, never).reason.startswith("openvino is not installed")


def test_answers_are_compared_image_by_image() -> None:
    free, held = np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([[2.0, 2.5], [0.0, 3.0]])
    found = compared(Answer(free), Answer(held))
    assert (found.agreement, found.worst, found.images) == (0.5, 1.5, 2)
    assert compared(Answer(free), Answer(None, "openvino crashed (SIGILL)")).reason.endswith("crashed (SIGILL)")
