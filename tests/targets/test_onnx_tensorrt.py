"""The TensorRT file: what is in it, that ONNX Runtime reads it to the same answers, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quantward.audit.tensorrt import breaches
from quantward.core.contracts import Batch
from quantward.core.errors import Unsupported, UsageError
from quantward.core.values import Model, Plan, Preprocess
from quantward.graph.simulate import simulate
from quantward.runtimes.onnxruntime import Onnxruntime
from quantward.targets._opset import oldest
from quantward.targets.onnx_tensorrt import OnnxTensorrt

SIGNED = "int8-static:signed=true"
CHOSEN = [
    "fp32",
    "fp16",
    SIGNED,
    "int8-static:signed=true,per_channel=false",
    "int8-static:signed=true,keep=stem+blocks.0*",
    "int8-static:signed=true,reduce_range=true",
    "qat:signed=true,epochs=1,batch=16,augment=none",
]


def expected(plan: Plan, images: Batch) -> Any:
    with torch.no_grad():
        return simulate(plan)(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("recipe", CHOSEN)
def test_files_break_no_rule_and_agree_with_the_simulation(
    recipe: str, planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    plan = planned(recipe)
    variant = OnnxTensorrt().write(plan, tmp_path)
    assert breaches(variant.path) == ()
    got, wanted = Onnxruntime().open(variant, 1)(images), expected(plan, images)
    assert np.array_equal(got.argmax(1), wanted.argmax(1))
    assert np.abs(got - wanted).max() <= 0.03 * np.ptp(wanted)
    assert np.abs(got - wanted).mean() <= 0.002 * np.ptp(wanted)


@pytest.mark.parametrize("recipe", [SIGNED, "fp32"])
def test_a_transformer_agrees_too(recipe: str, small_transformer: Plan, images: Batch, tmp_path: Path) -> None:
    from quantward.core.contracts import Context
    from quantward.core.registry import Registry

    recipes = Registry("recipe", "quantward.quantize.recipes")
    plan = recipes.make(recipe).plan(small_transformer, Context(images=lambda n: iter([images])))
    variant = OnnxTensorrt().write(plan, tmp_path)
    assert [found for found in breaches(variant.path) if found.severity == "refused"] == []
    got, wanted = Onnxruntime().open(variant, 1)(images), expected(plan, images)
    assert np.mean(got.argmax(1) == wanted.argmax(1)) >= 0.98
    assert np.abs(got - wanted).mean() <= 0.005 * np.ptp(wanted)


def test_biases_are_floats_and_weights_int8_a_scale_a_channel(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    model = onnx.load(OnnxTensorrt().write(planned(SIGNED), tmp_path).path)
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    assert held["stem.weight:int8"].data_type == TensorProto.INT8
    assert held["stem.bias"].data_type == TensorProto.FLOAT
    assert numpy_helper.to_array(held["stem.weight:scale"]).shape == (8,)
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    zeros = {held[node.input[2]].data_type for node in quantizers}
    assert quantizers and zeros == {TensorProto.INT8}
    layers = Counter(node.op_type for node in model.graph.node)
    assert layers["Conv"] + layers["Gemm"] == 8
    assert layers["Clip"] + layers["Relu"] == 5  # clamps stay floats: TensorRT clips no integers


def test_the_residual_alone_is_quantized(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    model = onnx.load(OnnxTensorrt().write(planned(SIGNED), tmp_path).path)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    sums = [node for node in model.graph.node if node.op_type == "Add"]
    assert len(sums) == 2
    for node in sums:
        assert sorted(makers[name] for name in node.input) == ["Conv", "DequantizeLinear"]


def test_an_old_opset_is_enough_and_a_newer_one_can_be_asked_for(
    planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    plan = planned(SIGNED)
    versions = {
        asked: onnx.load(OnnxTensorrt(opset=asked).write(plan, tmp_path / str(asked)).path).opset_import[0].version
        for asked in (17, 19, 21)
    }
    assert versions == {17: 17, 19: 19, 21: 21}
    with pytest.raises(UsageError, match="Expected opset from 17 to 21; got 9"):
        OnnxTensorrt(opset=9)


def test_the_same_plan_gives_the_same_bytes(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned(SIGNED)
    assert OnnxTensorrt().write(plan, tmp_path / "a").sha256 == OnnxTensorrt().write(plan, tmp_path / "b").sha256


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("int8-static", r"Expected signed activations .* is unsigned\. Add signed=true to the recipe"),
        ("int8-dynamic", r"range is fixed .* Use int8-static:signed=true"),
        ("int16x8", r"Expected 8-bit activations .* has 16 bits\. Use int8-static:signed=true"),
        ("low-bit:rounding=nearest,signed=true", r"Expected INT8 weights beside 8-bit activations .* has 4 bits"),
        ("low-bit:rounding=nearest,activations=4,signed=true", r"Expected 8-bit activations .* has 4 bits"),
        ("int4-weights:group=8,rounding=nearest,method=rtn", r"beside float activations only as INT4 in blocks"),
        ("int4-weights:group=8,rounding=nearest,method=rtn,ends=4,scheme=symmetric,keep=stem+head", "linear layers"),
    ],
)
def test_what_tensorrt_does_not_take_is_refused_with_the_option_that_helps(
    recipe: str, sentence: str, planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    plan = planned(recipe)
    if "scheme=symmetric" in recipe:  # only convolutions with blocks are left
        plan = replace(plan, tensors={n: s for n, s in plan.tensors.items() if s.block or s.bits == 16})
    with pytest.raises(Unsupported, match=sentence) as refusal:
        OnnxTensorrt().write(plan, tmp_path)
    assert "onnx-tensorrt" in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_zero_point_on_a_signed_grid_is_refused(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned(SIGNED)
    shifted = replace(plan.tensors["input"], zero_point=np.asarray(3, np.int32))
    with pytest.raises(Unsupported, match="signed with zero point 3"):
        OnnxTensorrt().write(replace(plan, tensors={**plan.tensors, "input": shifted}), tmp_path)


@pytest.fixture(scope="module")
def wide() -> Plan:
    """Two linear layers of 128 inputs behind a convolution: 3 x 32 x 32 -> 4 logits."""
    from torch import nn

    from quantward.graph.capture import capture

    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 128), nn.ReLU(),
                            nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 4))  # fmt: skip
    return capture(Model("wide", net.eval(), Preprocess(size=32, resize=32), tuple("abcd")))


def int4(plan: Plan, images: Batch, options: str) -> Plan:
    from quantward.core.contracts import Context
    from quantward.core.registry import Registry
    from quantward.quantize.recipes.int4_weights import Int4Weights

    made = Registry("recipe", "quantward.quantize.recipes").make(f"int4-weights:{options}")
    assert isinstance(made, Int4Weights)
    return made.plan(plan, Context(images=lambda n: iter([images])))


@pytest.mark.parametrize("group", [64, 128])
def test_int4_weights_lie_in_blocks_along_the_inputs(group: int, wide: Plan, images: Batch, tmp_path: Path) -> None:
    plan = int4(wide, images, f"method=rtn,scheme=symmetric,group={group},rounding=nearest,keep=0+7")
    if group == 128:  # one block a row: the recipe then leaves blocks out
        with pytest.raises(Unsupported, match="one scale a row"):
            OnnxTensorrt().write(plan, tmp_path)
        return
    variant = OnnxTensorrt().write(plan, tmp_path)
    assert breaches(variant.path) == ()
    model = onnx.load(variant.path)
    assert model.opset_import[0].version == 21
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in ("3.weight", "5.weight"):
        stored = held[f"{name}:int4"]
        assert stored.data_type == TensorProto.INT4 and tuple(stored.dims) == (128, 128)
        assert tuple(held[f"{name}:scale"].dims) == (2, 128)
    assert Counter(node.op_type for node in model.graph.node)["MatMul"] == 2
    got, wanted = _exact(variant.path, images), expected(plan, images)
    assert np.abs(got - wanted).max() <= 1e-4 * np.ptp(wanted)


def _exact(path: Path, images: Batch) -> Any:
    """ONNX Runtime without its own rounding of activations to 8 bits in weight-only products."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def tiny(nodes: list[onnx.NodeProto], shape: list[int], constants: dict[str, Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    return model


def run(model: onnx.ModelProto, x: Any) -> Any:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("op", "attributes", "constants", "shape", "opset"),
    [
        ("Gelu", {}, {}, [2, 3, 4], 17),
        ("Gelu", {"approximate": "tanh"}, {}, [2, 3, 4], 20),
        ("ReduceMean", {"keepdims": 1}, {"axes": np.array([1, 2])}, [2, 1, 1], 17),
        ("Pad", {}, {"pads": np.array([0, 0, 1, 0, 0, 1])}, [2, 3, 6], 17),
        ("Pad", {"mode": "wrap"}, {"pads": np.array([0, 0, 1, 0, 0, 1])}, [2, 3, 6], 19),
        ("Reshape", {}, {"shape": np.array([2, -1])}, [2, 12], 17),
        ("Relu", {}, {}, [2, 3, 4], 17),
    ],
)
def test_the_oldest_opset_says_the_same(
    op: str, attributes: dict[str, Any], constants: dict[str, Any], shape: list[int], opset: int
) -> None:
    model = tiny([helper.make_node(op, ["x", *constants], ["y"], **attributes)], shape, constants)
    older = oldest(model, 17)
    assert older.opset_import[0].version == opset
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    assert np.abs(run(model, x) - run(older, x)).max() < 1e-6
