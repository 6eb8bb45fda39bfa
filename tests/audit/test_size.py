"""What each kind of file makes of the weights, read from the files themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.audit.size import size
from quantward.core.registry import Registry
from quantward.core.values import Plan, Variant

TARGETS = Registry("target", "quantward.targets")
LIBRARIES = {"onnx-cpu": "onnx", "litert": "ai_edge_litert", "torch-int8": "safetensors"}


def written(target: str, plan: Plan, folder: Path) -> Variant:
    pytest.importorskip(LIBRARIES[target])
    return TARGETS.make(target).write(plan, folder)


@pytest.mark.parametrize("target", LIBRARIES)
def test_integers_lie_as_integers(target: str, planned: Callable[[str], Plan], tmp_path: Path) -> None:
    """Eight layers with a bias each, every byte of which the file tells of."""
    plan = planned("int8-static")
    found = size(plan, written(target, plan, tmp_path))
    assert found.stored_as == {"32-bit in INT32": 8, "8-bit in INT8": 8}
    assert found.stored == sum(a.size * (4 if a.ndim == 1 else 1) for a in plan.weights.values())
    assert found.honest and found.stored < found.promised < found.bytes


@pytest.mark.parametrize("target", ["onnx-cpu", "litert"])
@pytest.mark.parametrize(("recipe", "expected"), [("fp32", "float32"), ("fp16", "float16")])
def test_floats_lie_as_wide_as_the_plan_says(
    target: str, recipe: str, expected: str, planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    plan = planned(recipe)
    assert size(plan, written(target, plan, tmp_path)).stored_as == {expected: 16}


@pytest.mark.parametrize("target", ["onnx-cpu", "litert"])
def test_four_bits_take_half_a_byte(target: str, planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned("low-bit")
    narrow = [name for name, spec in plan.tensors.items() if spec.kind == "weight" and spec.bits == 4]
    found = size(plan, written(target, plan, tmp_path))
    assert found.stored_as is not None and found.stored_as["4-bit in INT4"] == len(narrow) > 0
    others = sum(a.size * (4 if a.ndim == 1 else 1) for name, a in plan.weights.items() if name not in narrow)
    assert found.stored == others + sum(-(-plan.weights[name].size // 2) for name in narrow)


@pytest.mark.parametrize("target", ["onnx-cpu", "litert"])
def test_a_file_that_kept_its_floats_is_caught(
    target: str, small_plan: Plan, planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    """The FP32 file under the name of the INT8 one: every weight of the Plan's is named."""
    plan = planned("int8-static")
    found = size(plan, written(target, small_plan, tmp_path))
    assert not found.honest
    assert set(found.kept_float) >= {name for name, spec in plan.tensors.items() if spec.kind == "weight"}


def test_of_other_formats_nothing_is_said(small_plan: Plan, tmp_path: Path) -> None:
    file = replace(written("onnx-cpu", small_plan, tmp_path), format="engine")
    found = size(small_plan, file)
    assert found.stored is None and found.stored_as is None and found.honest
    assert found.promised == sum(np.asarray(a).nbytes for a in small_plan.weights.values())
