"""How integers lie in a file, against five-line definitions and against the runtime that reads them back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from quantward.core.contracts import Batch, Context
from quantward.core.registry import Registry
from quantward.core.values import Node, Plan, QuantSpec
from quantward.graph.stored import stored_weight
from quantward.runtimes.onnxruntime import Onnxruntime
from quantward.targets._draft import Draft
from quantward.targets._qdq import _finish
from quantward.targets._weights import _digits, _folded, four_bits
from quantward.targets.onnx_cpu import OnnxCpu


def run(draft: Draft, name: str) -> np.ndarray:  # type: ignore[type-arg]
    """One value of a graph without inputs, as ONNX Runtime computes it."""
    import onnxruntime as ort

    output = helper.make_empty_tensor_value_info(name)
    graph = helper.make_graph(draft.nodes, "weights", [], [output], list(draft.initializers.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run([name], {})[0]  # type: ignore[type-arg]
    return found


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=9), st.booleans())
def test_four_bits_are_read_back_by_onnx(integers: list[int], signed: bool) -> None:
    values = np.asarray(integers, np.int64) + (0 if signed else 8)
    tensor = four_bits("w", values, signed)
    assert len(tensor.raw_data) == (len(values) + 1) // 2
    assert numpy_helper.to_array(tensor).astype(np.int64).tolist() == values.tolist()


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 13), st.booleans())
def test_digits_are_read_back_by_the_runtime(count: int, signed: bool) -> None:
    spec = QuantSpec("weight", 2, signed, scheme="symmetric" if signed else "affine")
    values = np.random.default_rng(count).integers(spec.low, spec.high + 1, (count, 3))
    draft = Draft()
    assert np.array_equal(run(draft, _digits(draft, "w", values, spec)), values)
    assert len(draft.initializers["w:packed"].raw_data) == -(-values.size // (5 if signed else 4))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("shape", "block"), [((3, 2, 3, 3), 5), ((3, 8), 4), ((4, 7), None)])
def test_weights_read_back_in_float_are_what_the_plan_says(
    bits: int, signed: bool, shape: tuple[int, ...], block: int | None
) -> None:
    draw = np.random.default_rng(bits)
    weight = draw.normal(size=shape).astype(np.float32)
    grids = (shape[0],) if block is None else (shape[0], -(-weight[0].size // block))
    spec = QuantSpec("weight", bits, signed, scheme="symmetric" if signed else "affine", axis=0, block=block,
                     scale=draw.uniform(0.1, 0.5, grids).astype(np.float16).astype(np.float32))  # fmt: skip
    if not signed:
        spec = replace(spec, zero_point=draw.integers(0, spec.high + 1, grids))
    else:
        spec = replace(spec, zero_point=np.zeros(grids, np.int32))
    draft = Draft()
    assert np.array_equal(run(draft, _folded(draft, "w", weight, spec)), stored_weight(weight, spec))
    scale = draft.initializers["w:scale"].data_type
    assert scale == (onnx.TensorProto.FLOAT if block is None else onnx.TensorProto.FLOAT16)


@pytest.mark.parametrize("recipe", ["fp16", "int4-weights:keep=head"])
def test_a_weight_without_a_dot_in_its_name_is_stored_once(
    recipe: str, small_plan: Plan, context: Context, images: Batch, tmp_path: Path
) -> None:
    """`cls_token`: what reads a stored weight back has its name, so nothing else in the file may."""
    pytest.importorskip("torch")
    first = small_plan.program[1]
    added = Node("shifted", "aten.add.Tensor", ({"node": "input"}, {"weight": "shift"}))
    reads = replace(first, args=({"node": "shifted"}, *first.args[1:]))
    shift = np.linspace(-1, 1, 3, dtype=np.float32).reshape(1, 3, 1, 1)
    plan = replace(
        small_plan,
        program=(small_plan.program[0], added, reads, *small_plan.program[2:]),
        weights={**small_plan.weights, "shift": shift},
    )
    made = Registry("recipe", "quantward.quantize.recipes").make(recipe).plan(plan, context)
    variant = OnnxCpu().write(made, tmp_path)
    onnx.checker.check_model(onnx.load(str(variant.path)), full_check=True)
    with_shift = Onnxruntime().open(variant, 1)(images)
    without = Onnxruntime().open(OnnxCpu().write(small_plan, tmp_path), 1)(images + shift)
    assert np.mean(np.abs(with_shift - without)) < 0.05 * np.ptp(without)


def test_a_stored_tensor_whose_name_is_made_is_left_out() -> None:
    """ONNX wants one source for each name."""
    draft = Draft()
    draft.constant("token", np.ones(3, np.float32))
    draft.constant("token:float16", np.ones(3, np.float16))
    draft.add("Cast", ["token:float16"], "token", to=onnx.TensorProto.FLOAT)
    draft.add("Add", ["input", "token"], "logits")
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3]) for name in ("input", "logits")]
    given = helper.make_model(helper.make_graph([], "given", ends[:1], ends[1:]))
    made = _finish(draft, given)
    assert [tensor.name for tensor in made.graph.initializer] == ["token:float16"]
