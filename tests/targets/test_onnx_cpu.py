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
from quantward.runtimes.onnxruntime import Onnxruntime
from quantward.targets.onnx_cpu import OnnxCpu

RECIPES = Registry("recipe", "quantward.quantize.recipes")
ALL = [
    *RECIPES.names(),
    "int8-static:per_channel=false",
    "int8-static:keep=stem+blocks.0*",
    "int8-dynamic:convolutions=false",
]


@pytest.mark.parametrize("recipe", ALL)
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


def test_widths_without_a_type_are_refused(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned("int8-static")
    odd = {name: replace(spec, bits=3) for name, spec in plan.tensors.items() if spec.kind == "weight"}
    with pytest.raises(Unsupported, match="Expected tensors of 8 bits"):
        OnnxCpu().write(replace(plan, tensors={**plan.tensors, **odd}), tmp_path)


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
