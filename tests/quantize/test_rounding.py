"""Rounding in the metric of a layer's output: better than the nearest integers, and best where brute force can say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from quantward.core.contracts import Batch, Context
from quantward.core.registry import Registry
from quantward.core.values import FloatArray, Plan, QuantSpec
from quantward.graph.network import Network
from quantward.graph.simulate import simulate
from quantward.graph.stored import stored_weight, to_integers
from quantward.graph.walk import CONV, layers, weight_of
from quantward.quantize._patches import patches
from quantward.quantize._rounding import second_moments, settle
from quantward.quantize._specs import weight_spec


def correlated(k: int, seed: int = 0, groups: int = 1) -> FloatArray:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(groups, 200, k)) @ draw.normal(size=(groups, k, k)) + draw.normal(size=(groups, 200, 1))
    return np.asarray(np.matmul(x.transpose(0, 2, 1), x) / 200, np.float32)


def error(weight: FloatArray, stored: FloatArray, moment: FloatArray) -> float:
    gap = (stored - weight).reshape(len(moment), -1, moment.shape[-1])
    return float((np.matmul(gap, moment) * gap).sum())


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(6, 70), (8, 3, 3, 3)])
def test_output_error_falls(bits: int, shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    moment = correlated(int(np.prod(shape[1:])))
    spec = weight_spec(weight, bits)
    settled, refitted = settle(weight, spec, moment)
    assert error(weight, settled, moment) < 0.8 * error(weight, stored_weight(weight, spec), moment)
    assert np.allclose(stored_weight(settled, refitted), settled, atol=1e-6), "it lies on the grid"
    whole = to_integers(settled, refitted)
    assert whole.min() >= spec.low and whole.max() <= spec.high


def test_depthwise_filters_have_a_metric_each() -> None:
    weight = np.random.default_rng(1).normal(size=(5, 1, 3, 3)).astype(np.float32)
    moment = correlated(9, groups=5)
    spec = weight_spec(weight, 4)
    settled, _ = settle(weight, spec, moment)
    assert error(weight, settled, moment) < 0.8 * error(weight, stored_weight(weight, spec), moment)


def test_it_is_nearly_what_brute_force_finds() -> None:
    moment, draw = correlated(5, seed=2), np.random.default_rng(3)
    ratios = []
    for _ in range(20):
        weight = draw.normal(size=(1, 5)).astype(np.float32)
        spec = QuantSpec("weight", 2, scale=np.asarray(weight_spec(weight, 2, per_channel=False).scale))
        settled, _ = settle(weight, spec, moment)
        every = np.array(list(itertools.product((-1, 0, 1), repeat=5)), np.float32) * spec.scale
        best = min(error(weight, one[None], moment) for one in every)
        ratios.append(error(weight, settled, moment) / best)
    assert np.median(ratios) < 1.1 and min(ratios) > 0.9, "the damping of the metric leaves a little room"


def test_patches_are_what_a_convolution_multiplies(small_plan: Plan, images: Batch) -> None:
    layer = next(node for node in layers(small_plan.program) if node.op == CONV and len(node.args) > 6)
    weight = small_plan.weights[weight_of(layer)]
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, weight.shape[0], 6, 6)).astype(np.float32))
    rows = patches(layer, weight.shape[2:], x)
    got = torch.from_numpy(weight.reshape(len(weight), 1, -1)) @ rows
    expected = nn.functional.conv2d(x, torch.from_numpy(weight), padding=1, groups=len(weight))
    assert torch.allclose(got.reshape(len(weight), 2, 6, 6).transpose(0, 1), expected, atol=1e-5)


def test_moments_are_means_over_images(small_plan: Plan, images: Batch) -> None:
    head = layers(small_plan.program)[-1]
    seen: list[torch.Tensor] = []
    network = Network(small_plan, on_input=lambda name, x: (seen.append(x) if name == head.name else None, x)[1])
    with torch.no_grad():
        network(torch.from_numpy(images))
    found = second_moments(small_plan, {head.name: head}, [images[:32], images[32:]])[head.name]
    expected = (seen[0].T @ seen[0] / len(images)).numpy()
    assert np.allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_four_bits_lose_less(small_plan: Plan, small_transformer: Plan, images: Batch, context: Context) -> None:
    recipes = Registry("recipe", "quantward.quantize.recipes")
    x = torch.from_numpy(images)

    def lost(plan: Plan, recipe: str) -> float:
        with torch.no_grad():
            gap = simulate(recipes.make(recipe).plan(plan, context))(x) - Network(plan)(x)
        return float(gap.abs().mean())

    for plan in (small_plan, small_transformer):
        alone = lost(plan, "low-bit:depthwise=4,rounding=nearest,correct=false")
        assert lost(plan, "low-bit:depthwise=4,correct=false") < 0.6 * alone
    corrected = lost(small_transformer, "low-bit:rounding=nearest")
    assert lost(small_transformer, "low-bit") < 0.95 * corrected
