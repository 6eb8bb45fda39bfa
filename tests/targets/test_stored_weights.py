"""How integers lie in a file, against five-line definitions and against the runtime that reads them back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from quantward.core.values import QuantSpec
from quantward.graph.stored import stored_weight
from quantward.targets._draft import Draft
from quantward.targets._weights import _digits, _folded, four_bits


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
