"""The deployed file: what is in it, how small it is, and that it computes what its Plan says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from quantward.core.contracts import Batch
from quantward.core.errors import Unsupported
from quantward.core.registry import Registry
from quantward.core.values import Model, Plan, Preprocess
from quantward.graph.simulate import simulate
from quantward.quantize._specs import bias_specs
from quantward.runtimes.onnxruntime import Onnxruntime
from quantward.targets.onnx_cpu import OnnxCpu

RECIPES = Registry("recipe", "quantward.quantize.recipes")
CHOSEN = [
    "fp32",
    "fp16",
    "int8-static",
    "int8-dynamic",
    "int4-weights",
    "int16x8",
    "low-bit:weights=2,activations=3,rounding=nearest",
    "int8-static:per_channel=false",
    "int8-static:keep=stem+blocks.0*",
    "int8-dynamic:convolutions=false",
]


@pytest.mark.parametrize("recipe", CHOSEN)
def test_file_agrees_with_the_simulation(
    recipe: str, planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    plan = planned(recipe)
    variant = OnnxCpu().write(plan, tmp_path)
    got = Onnxruntime().open(variant, 1)(images)
    with torch.no_grad():
        expected = simulate(plan)(torch.from_numpy(images)).numpy()
    spread = float(np.ptp(expected))
    assert np.mean(np.abs(got - expected)) <= 0.002 * spread
    assert np.mean(got.argmax(1) == expected.argmax(1)) >= 0.98


def test_every_layer_of_int8_static_runs_as_integers(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    variant = OnnxCpu().write(planned("int8-static"), tmp_path)
    executed = Onnxruntime().executed(variant)
    assert executed is not None
    assert executed.layers == {"int8": 8}
    assert executed.operators["QLinearConv"] == 7
    assert executed.operators["QLinearAdd"] == 2
    assert executed.operators["QLinearGlobalAveragePool"] == 1


def test_weights_are_stored_as_integers_and_nothing_else_is_large(
    planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    model = onnx.load(OnnxCpu().write(planned("int8-static"), tmp_path).path)
    kinds = {t.name: onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}
    assert kinds["stem.weight:int8"] == "INT8"
    assert kinds["stem.bias:int32"] == "INT32"
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and ":scale" not in t.name]
    assert not floats
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_clamps_that_the_quantizer_does_are_left_out(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    quantized = onnx.load(OnnxCpu().write(planned("int8-static"), tmp_path).path)
    floating = onnx.load(OnnxCpu().write(planned("fp32"), tmp_path).path)
    count = Counter(node.op_type for node in floating.graph.node)
    assert count["Clip"] + count["Relu"] == 5
    assert not {node.op_type for node in quantized.graph.node} & {"Clip", "Relu"}


def test_clamps_within_the_quantizers_range_clip_integers(
    planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    plan = planned("int8-static:calibrator=max,equalise=0")
    wider = {
        name: replace(spec, scale=np.asarray(spec.scale * 1.7, np.float32)) if ".act" in name else spec
        for name, spec in plan.tensors.items()
        if spec.kind != "bias"
    }
    learned = replace(plan, tensors={**wider, **bias_specs(plan, wider)})
    variant = OnnxCpu().write(learned, tmp_path)
    executed = Onnxruntime().executed(variant)
    assert set(executed.layers) == {"int8"} and executed.operators["Clip"] >= 1
    with torch.inference_mode():
        expected = simulate(learned)(torch.from_numpy(images)).numpy()
    found = Onnxruntime().open(variant, 1)(images)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_the_same_plan_gives_the_same_bytes(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned("int8-static")
    assert OnnxCpu().write(plan, tmp_path / "a").sha256 == OnnxCpu().write(plan, tmp_path / "b").sha256


def test_dynamic_files_give_one_answer_at_any_batch_size(
    planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    variant = OnnxCpu().write(planned("int8-dynamic"), tmp_path)
    assert variant.max_batch == 1
    session = Onnxruntime().open(variant, 1)
    mixed = np.concatenate([images[:1], 50 * images[1:4]])
    assert np.array_equal(session(images[:1])[0], session(mixed)[0])


def test_signed_activations_are_refused(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned("int8-static")
    signed = {n: replace(s, signed=True) if s.kind == "activation" else s for n, s in plan.tensors.items()}
    with pytest.raises(Unsupported, match="Expected unsigned activations"):
        OnnxCpu().write(replace(plan, tensors=signed), tmp_path)
    assert not list(tmp_path.iterdir())


def changed(plan: Plan, kind: str, **fields: object) -> Plan:
    """The Plan with some fields of all specs of one kind replaced."""
    odd = {name: replace(spec, **fields) for name, spec in plan.tensors.items() if spec.kind == kind}
    return replace(plan, tensors={**plan.tensors, **odd})


@pytest.mark.parametrize(("kind", "bits"), [("weight", 9), ("weight", 1), ("activation", 12), ("activation", 1)])
def test_widths_without_a_type_are_refused(
    kind: str, bits: int, planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match=rf"Expected weights of 2 to 8 bits .* has {bits}\."):
        OnnxCpu().write(changed(planned("int8-static"), kind, bits=bits), tmp_path)
    assert not list(tmp_path.iterdir())


def test_dynamic_activations_in_front_of_float_weights_are_refused(
    planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    plan = planned("int8-dynamic")
    left = {name: spec for name, spec in plan.tensors.items() if name != "head.weight"}
    with pytest.raises(Unsupported, match="dynamic activations only in front of integer weights"):
        OnnxCpu().write(replace(plan, tensors=left), tmp_path)


def kinds(path: Path) -> dict[str, str]:
    """Initializer -> its ONNX type."""
    found = onnx.load(path).graph.initializer
    return {tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in found}


@pytest.mark.parametrize(
    ("bits", "name", "kind"),
    [
        (7, "blocks.0.expand.weight:int7", "INT8"),
        (5, "blocks.0.expand.weight:int5", "INT8"),
        (4, "blocks.0.expand.weight:int4:packed", "INT4"),
        (3, "blocks.0.expand.weight:int3:packed", "INT4"),
        (2, "blocks.0.expand.weight:int2:packed", "UINT8"),
    ],
)
def test_narrow_weights_lie_packed_and_still_run_as_integers(
    bits: int, name: str, kind: str, planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    plan = planned(f"low-bit:weights={bits},rounding=nearest")
    variant = OnnxCpu().write(plan, tmp_path)
    assert kinds(variant.path)[name] == kind
    executed = Onnxruntime().executed(variant)
    assert executed is not None
    assert executed.layers == {"int8": 8}
    held = next(t for t in onnx.load(variant.path).graph.initializer if t.name == name)
    each = {"INT8": 1.0, "INT4": 0.5, "UINT8": 0.2}[kind]
    assert len(held.raw_data) == int(np.ceil(plan.weights["blocks.0.expand.weight"].size * each))


def test_narrow_activations_are_clipped_as_integers_and_fuse(
    planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    plan = planned("low-bit:activations=2,rounding=nearest")
    variant = OnnxCpu().write(plan, tmp_path)
    executed = Onnxruntime().executed(variant)
    assert executed is not None
    assert executed.layers == {"int8": 8}
    operators = Counter(node.op_type for node in onnx.load(variant.path).graph.node)
    narrow = [s for s in plan.tensors.values() if s.kind == "activation" and s.bits == 2]
    assert narrow and 0 < operators["Clip"] <= len(narrow)
    wide = {name: replace(s, bits=8) for name, s in plan.tensors.items() if s.kind == "activation" and s.bits == 2}
    unclipped = OnnxCpu().write(replace(plan, tensors={**plan.tensors, **wide}, recipe="wide"), tmp_path)
    assert np.abs(Onnxruntime().open(variant, 1)(images) - Onnxruntime().open(unclipped, 1)(images)).max() > 1e-3


def test_layers_that_read_a_tensor_on_the_same_grid_share_its_nodes(
    planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    plan = planned("low-bit:activations=4,rounding=nearest")
    own = [name for name in plan.tensors if name.endswith(":input")]
    assert own
    names = {node.name for node in onnx.load(OnnxCpu().write(plan, tmp_path).path).graph.node}
    assert {f"QuantizeLinear:{name}:quantized" for name in own} <= names


def test_weights_alone_are_read_back_once_and_not_for_every_image(
    planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    executed = Onnxruntime().executed(OnnxCpu().write(planned("int4-weights:group=8,rounding=nearest"), tmp_path))
    assert executed is not None
    assert executed.layers == {"float32": 8}
    assert not {"DequantizeLinear", "Mul", "Cast", "Reshape:weight"} & set(executed.operators)


def test_sixteen_bit_activations_run_in_float(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    variant = OnnxCpu().write(planned("int16x8"), tmp_path)
    zeros = {kind for name, kind in kinds(variant.path).items() if name.endswith(":zero")}
    assert zeros == {"INT16"}
    executed = Onnxruntime().executed(variant)
    assert executed is not None
    assert executed.layers == {"float32": 8}


@pytest.mark.slow
def test_all_52_convolutions_of_mobilenetv2_fuse(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from quantward.core.contracts import Context
    from quantward.graph.capture import capture

    torch.manual_seed(0)
    net = timm.create_model("mobilenetv2_100", num_classes=4).eval()
    parent = capture(Model("mobilenetv2_100", net, Preprocess(size=64, resize=64), tuple("abcd")))
    draw = np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32)
    plan = RECIPES.make("int8-static:calibrator=max").plan(parent, Context(images=lambda n: iter([draw])))
    variant = OnnxCpu().write(plan, tmp_path)
    whole = OnnxCpu().write(RECIPES.make("fp32").plan(parent, Context(images=lambda n: iter(()))), tmp_path)
    executed = Onnxruntime().executed(variant)
    assert executed is not None
    assert executed.layers == {"int8": 53}
    assert executed.operators["QLinearConv"] == 52
    assert variant.bytes <= 0.30 * whole.bytes
