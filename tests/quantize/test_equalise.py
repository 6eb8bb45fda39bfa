"""Equalisation changes nothing in float and rescues a network whose channels were set at odds on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from quantward.core.contracts import Batch, Context
from quantward.core.registry import Registry
from quantward.core.values import Node, Plan
from quantward.graph.network import Network
from quantward.graph.simulate import simulate
from quantward.graph.walk import layers, weight_of
from quantward.quantize._equalise import channel_ranges, equalise, streams
from quantward.quantize._placement import quantized_outputs

RECIPES = Registry("recipe", "quantward.quantize.recipes")


def logits(network: torch.nn.Module, images: Batch) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


@pytest.fixture
def unbalanced(small_plan: Plan) -> Plan:
    """The small network with ReLU in place of ReLU6 and every hidden channel scaled by 10^U(-1, 1), undone in the layer
    that reads it: the same function, the worst case for one scale a tensor."""
    program = tuple(
        replace(node, op="aten.relu.default", args=node.args[:1]) if node.op == "aten.hardtanh.default" else node
        for node in small_plan.program
    )
    draw = np.random.default_rng(3)
    weights = dict(small_plan.weights)
    for block in ("blocks.0", "blocks.1"):
        for writer, reader in (("expand", "depthwise"), ("depthwise", "project")):
            out, into = f"{block}.{writer}.weight", f"{block}.{reader}.weight"
            factor = (10 ** draw.uniform(-1, 1, len(weights[out]))).astype(np.float32)
            weights[out] = weights[out] * factor[:, None, None, None]
            weights[f"{block}.{writer}.bias"] = weights[f"{block}.{writer}.bias"] * factor
            shape = (-1, 1, 1, 1) if reader == "depthwise" else (1, -1, 1, 1)
            weights[into] = weights[into] / factor.reshape(shape)
    return replace(small_plan, program=program, weights=weights)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_float_network_computes_what_it_did(small_plan: Plan, images: Batch, strength: float) -> None:
    changed = equalise(small_plan, [images], quantized_outputs(small_plan.program), strength)
    assert any(not np.array_equal(changed.weights[n], small_plan.weights[n]) for n in small_plan.weights)
    assert np.allclose(logits(Network(changed), images), logits(Network(small_plan), images), atol=1e-4)


def test_channels_get_one_range(unbalanced: Plan, images: Batch) -> None:
    stored = quantized_outputs(unbalanced.program)
    after = equalise(unbalanced, [images], stored)
    name = "blocks.0.act1"
    before, now = (channel_ranges(plan, [images], [name])[name] for plan in (unbalanced, after))
    lively = before > 0.02 * before.max()
    assert before[lively].max() / before[lively].min() > 5
    assert now[lively].max() / now[lively].min() == pytest.approx(1.0, abs=1e-3)


def test_unbalanced_channels_collapse_and_recover(unbalanced: Plan, images: Batch) -> None:
    """The failure that per-tensor tools have, and its cure, on a function that did not change at all."""
    context = Context(images=lambda n: iter([images]))
    expected = logits(Network(unbalanced), images)

    def error(recipe: str) -> float:
        got = logits(simulate(RECIPES.make(recipe).plan(unbalanced, context)), images)
        return float(((got - expected) ** 2).mean() / expected.var())

    naive = error("int8-static:calibrator=max,equalise=0,correct=false,per_channel=false")
    cured = error("int8-static:calibrator=max")
    assert naive > 20 * cured
    assert cured < 0.01


def test_residual_streams_are_one_set(small_plan: Plan) -> None:
    found = {tuple(sorted(w.name for w in s.writers)): s for s in streams(small_plan.program)}
    stream = found["blocks.0.project", "blocks.1.project", "stem"]
    assert {r.name for r in stream.readers} == {"blocks.0.expand", "blocks.1.expand", "head"}
    assert found[("blocks.0.expand",)].clamp == 6.0
    assert len(found) == 5


def test_steps_that_do_not_commute_close_their_set(small_plan: Plan) -> None:
    """A sigmoid behind the stem ties the whole residual stream down; the sets inside the blocks stay free."""
    nodes = list(small_plan.program)
    at = next(i for i, node in enumerate(nodes) if node.name == "act")
    nodes[at] = Node("act", "aten.sigmoid.default", ({"node": "stem"},))
    found = {tuple(w.name for w in s.writers) for s in streams(tuple(nodes))}
    assert found == {("blocks.0.expand",), ("blocks.0.depthwise",), ("blocks.1.expand",), ("blocks.1.depthwise",)}


def test_weights_of_a_depthwise_layer_change_by_filter(small_plan: Plan, images: Batch) -> None:
    changed = equalise(small_plan, [images], quantized_outputs(small_plan.program))
    layer = next(layer for layer in layers(small_plan.program) if layer.name == "blocks.0.depthwise")
    ratio = changed.weights[weight_of(layer)] / small_plan.weights[weight_of(layer)]
    assert np.allclose(ratio, ratio[:, :, :1, :1], rtol=1e-4)


def test_layer_norms_take_over_what_their_readers_find_hard(small_transformer: Plan, images: Batch) -> None:
    found = [stream for stream in streams(small_transformer.program) if stream.normed]
    assert [len(stream.readers) for stream in found] == [1, 1, 1, 1], "qkv and the first layer of both blocks"
    stored = quantized_outputs(small_transformer.program)
    smooth = equalise(small_transformer, [images], stored, 0.5)
    expected = logits(Network(small_transformer), images)
    assert np.allclose(logits(Network(smooth), images), expected, atol=1e-4)
    name = found[0].steps[0]
    before, after = (channel_ranges(plan, [images], [name])[name] for plan in (small_transformer, smooth))
    assert len(before) == 24 and after.max() / after.min() < 0.5 * before.max() / before.min()


def test_a_transformer_is_closer_to_itself_when_smooth(
    small_transformer: Plan, images: Batch, context: Context
) -> None:
    expected = logits(Network(small_transformer), images)

    def error(recipe: str) -> float:
        plan = RECIPES.make(recipe).plan(small_transformer, context)
        return float(np.abs(logits(simulate(plan), images) - expected).mean())

    assert error("int8-static:equalise=0.5") < 0.9 * error("int8-static:equalise=0")
