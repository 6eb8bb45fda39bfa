"""Audits say no when they should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.audit.arithmetic import arithmetic
from quantward.audit.equivalence import NotEquivalent, agreement, require_equal
from quantward.audit.size import size
from quantward.core.contracts import Batch, Executed
from quantward.core.values import Plan
from quantward.runtimes.onnxruntime import Onnxruntime
from quantward.targets.onnx_cpu import OnnxCpu


def test_agreement_counts_images_and_finds_the_largest_gap(images: Batch) -> None:
    def one(batch: Batch) -> Batch:
        return batch[:, :, 0, 0]

    def two(batch: Batch) -> Batch:
        changed = one(batch).copy()
        changed[:1] = np.roll(changed[:1], 1, axis=1)
        return changed

    found = agreement(one, two, [images[:8], images[8:16]])
    assert found.n == 16
    assert found.top1 == 14 / 16
    assert found.worst == pytest.approx(max(np.abs(two(b) - one(b)).max() for b in (images[:8], images[8:16])))


def test_unequal_sessions_are_refused_with_the_gap(images: Batch) -> None:
    found = agreement(lambda b: b[:, :, 0, 0], lambda b: b[:, :, 0, 0] + np.float32(0.01), [images])
    with pytest.raises(NotEquivalent, match=r"largest difference is 0\.01"):
        require_equal(found, "the file")


def test_nan_is_not_equal(images: Batch) -> None:
    found = agreement(lambda b: b[:, :, 0, 0], lambda b: b[:, :, 0, 0] * np.float32(np.nan), [images])
    with pytest.raises(NotEquivalent):
        require_equal(found, "the file")


def test_arithmetic_of_a_real_file(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned("int8-static:keep=head")
    executed = Onnxruntime().executed(OnnxCpu().write(plan, tmp_path))
    assert executed is not None
    found = arithmetic(plan, executed)
    assert (found.layers, found.integer, found.meant, found.share) == (8, 7, 7, 1.0)
    assert found.float_operators == {"Gemm": 1}


def test_layers_that_fell_back_to_float_are_seen(planned: Callable[[str], Plan]) -> None:
    found = arithmetic(planned("int8-static"), Executed({"int8": 2, "float32": 6}, {"Conv": 6, "QLinearConv": 2}))
    assert found.share == 0.25
    assert found.float_operators == {"Conv": 6}


def test_a_file_that_kept_its_float_weights_has_overhead(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned("int8-static")
    honest = OnnxCpu().write(plan, tmp_path)
    assert size(plan, honest).promised < honest.bytes
    kept = replace(honest, bytes=honest.bytes + 3 * size(plan, honest).promised)
    assert size(plan, kept).overhead > size(plan, honest).overhead + 2.9
