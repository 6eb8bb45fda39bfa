"""A filter that is all zeros keeps its bias: the step of such a weight must not be too small to count up to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.core.contracts import Batch, Context
from quantward.core.registry import Registry
from quantward.core.values import Plan, with_weights
from quantward.graph.walk import CONV, bias_of, layers, weight_of
from quantward.quantize._specs import with_room
from quantward.targets.onnx_cpu import OnnxCpu
from quantward.workbench import open_session

torch = pytest.importorskip("torch")


@pytest.fixture
def dead(small_plan: Plan) -> tuple[Plan, str]:
    """The small network with a filter of its first convolution switched off but for its bias."""
    stem = next(layer for layer in layers(small_plan.program) if layer.op == CONV)
    weight, bias = weight_of(stem), bias_of(stem)
    assert bias is not None
    changed = {weight: small_plan.weights[weight].copy(), bias: small_plan.weights[bias].copy()}
    changed[weight][2], changed[bias][2] = 0.0, 1.5
    return with_weights(small_plan, changed), stem.name


def test_the_bias_of_a_dead_filter_survives(dead: tuple[Plan, str], images: Batch, tmp_path: Path) -> None:
    from quantward.graph.network import Network
    from quantward.graph.simulate import simulate

    parent, stem = dead
    recipe = Registry("recipe", "quantward.quantize.recipes").make("int8-static:equalise=0,correct=false")
    plan = recipe.plan(parent, Context(images=lambda _: iter([images])))
    (layer,) = (layer for layer in layers(plan.program) if layer.name == stem)
    spec = plan.tensors[bias_of(layer) or ""]
    stored = np.rint(1.5 / spec.scale[2])
    assert 2**28 < stored < 2**31
    with torch.inference_mode():
        expected = Network(parent).eval()(torch.from_numpy(images)).numpy()
        simulated = simulate(plan).eval()(torch.from_numpy(images)).numpy()
    assert np.abs(simulated - expected).max() <= 0.1 * np.ptp(expected)
    got = open_session(OnnxCpu().write(plan, tmp_path), "onnxruntime", 1)(images)
    assert np.abs(got - simulated).max() <= 0.03 * np.ptp(expected)


def test_weights_with_room_are_left_alone(small_plan: Plan, images: Batch) -> None:
    recipe = Registry("recipe", "quantward.quantize.recipes").make("int8-static")
    plan = recipe.plan(small_plan, Context(images=lambda _: iter([images])))
    assert with_room(plan, plan.tensors) == {}
    (name, spec), *_ = ((n, s) for n, s in plan.tensors.items() if s.kind == "weight")
    narrow = {**plan.tensors, name: replace(spec, scale=spec.scale * np.float32(2.0**-40))}
    assert with_room(plan, narrow).keys() == {name}
