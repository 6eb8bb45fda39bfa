"""Grids in blocks: against brute force, against each other, and AWQ's promise that outputs never get worse."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from quantward.core.contracts import Batch
from quantward.core.values import FloatArray, Node, Plan, QuantSpec
from quantward.graph.stored import stored_weight, to_integers
from quantward.graph.walk import layers, weight_of
from quantward.quantize._equalise import channel_ranges, streams
from quantward.quantize._grouped import (
    activation_aware,
    block_of,
    cut,
    half_quadratic,
    nearest,
    output_error,
    settle_blocks,
)
from quantward.quantize._rounding import second_moments


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(3)


def lp(weight: FloatArray, spec: QuantSpec) -> float:
    return float((np.abs(weight - stored_weight(weight, spec)) ** 0.7).sum())


def min_max(weight: FloatArray, bits: int, block: int) -> QuantSpec:
    """The affine grid over the extremes of each block, in five lines."""
    rows = cut(weight, block)
    low, high = np.minimum(rows.min(-1), 0), np.maximum(rows.max(-1), 0)
    scale = ((high - low) / (2**bits - 1)).astype(np.float16).astype(np.float32)
    zero = np.clip(np.rint(-low / scale), 0, 2**bits - 1)
    return QuantSpec("weight", bits, False, scheme="affine", axis=0, block=block, scale=scale, zero_point=zero)


@pytest.mark.parametrize("inputs", range(1, 400, 7))
@pytest.mark.parametrize("group", [0, 16, 32])
def test_blocks_cover_a_row_in_equal_lengths_near_the_group(inputs: int, group: int) -> None:
    block = block_of(inputs, group)
    if block is None:
        assert group == 0 or inputs < 1.5 * group
    else:
        assert 0.7 * group <= block <= 1.5 * group
        assert (-(-inputs // block) - 1) * block < inputs


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 40), (5, 3, 3, 3)])
def test_scales_fit_into_half_precision_and_integers_into_their_bits(
    affine: bool, shape: tuple[int, ...], draw: np.random.Generator
) -> None:
    weight = draw.normal(size=shape).astype(np.float32)
    spec = nearest(weight, 4, 8, affine)
    assert np.array_equal(spec.scale.astype(np.float16).astype(np.float32), spec.scale)
    assert spec.scale.shape == cut(weight, 8).shape[:2]
    whole = to_integers(weight, spec)
    assert whole.min() >= spec.low and whole.max() <= spec.high
    assert spec.high - spec.low == (15 if affine else 14)


def test_the_search_beats_the_extremes_and_affine_beats_symmetric(draw: np.random.Generator) -> None:
    weight = (draw.normal(size=(16, 96)) + 0.5).astype(np.float32)

    def error(spec: QuantSpec) -> float:
        return float(((weight - stored_weight(weight, spec)) ** 2).sum())

    assert error(nearest(weight, 4, 32)) < error(min_max(weight, 4, 32))
    assert error(nearest(weight, 4, 32)) < error(nearest(weight, 4, 32, affine=False))


def test_half_quadratic_errs_less_in_its_own_norm_than_min_max(draw: np.random.Generator) -> None:
    weight = draw.standard_t(3, size=(16, 96)).astype(np.float32)
    spec, plain = half_quadratic(weight, 4, 32), min_max(weight, 4, 32)
    assert lp(weight, spec) < 0.97 * lp(weight, plain)
    assert spec.zero_point.min() >= 0 and spec.zero_point.max() <= 15


def test_dead_rows_stay_dead() -> None:
    weight = np.zeros((3, 64), np.float32)
    for spec in (nearest(weight, 4, 32), nearest(weight, 4, None, affine=False), half_quadratic(weight, 4, 32)):
        assert np.all(np.isfinite(spec.scale)) and np.all(spec.scale > 0)
        assert not stored_weight(weight, spec).any()


def test_output_error_is_the_measured_error_of_the_products(draw: np.random.Generator) -> None:
    x, weight = draw.normal(size=(500, 12)), draw.normal(size=(4, 12))
    stored = weight + 0.1 * draw.normal(size=weight.shape)
    measured = ((x @ (stored - weight).T) ** 2).sum() / ((x @ weight.T) ** 2).sum()
    assert output_error(weight, stored, (x.T @ x / len(x))[None]) == pytest.approx(measured)


def test_settling_finds_what_brute_force_finds(draw: np.random.Generator) -> None:
    x = draw.normal(size=(200, 4)) @ draw.normal(size=(4, 4))
    moment = (x.T @ x / len(x))[None].astype(np.float32)
    weight = draw.normal(size=(12, 4)).astype(np.float32)
    spec = nearest(weight, 2, 2)
    found = settle_blocks(weight, spec, moment)
    assert np.allclose(stored_weight(found, spec), found, atol=1e-6), "it lies on the grid"
    best = 0.0
    for row in range(len(weight)):
        scale, zero = (np.repeat(part[row], 2) for part in (spec.scale, spec.zero_point))
        every = [(np.asarray(q) - zero) * scale - weight[row] for q in product(range(4), repeat=4)]
        best += min(float(gap @ moment[0] @ gap) for gap in every)
    gap = found - weight
    reached = float(np.einsum("ri,ij,rj->", gap, moment[0], gap))
    plain = stored_weight(weight, spec) - weight
    assert best <= reached + 1e-6
    assert reached < 0.95 * float(np.einsum("ri,ij,rj->", plain, moment[0], plain))
    assert reached < 1.01 * best


def test_awq_never_errs_more_than_rounding_alone_and_keeps_the_network(small_plan: Plan, images: Batch) -> None:
    import torch

    from quantward.graph.network import Network

    def grid(layer: Node, weight: FloatArray) -> QuantSpec:
        return nearest(weight, 3, block_of(weight[0].size, 8))

    wanted = {n.name: n for n in layers(small_plan.program) if n.name not in ("stem", "head")}
    moments = second_moments(small_plan, wanted, [images])
    found = streams(small_plan.program)
    clamped = [step for stream in found if stream.clamp is not None for step in stream.steps]
    scaled = activation_aware(small_plan, found, moments, channel_ranges(small_plan, [images], clamped), grid)
    gains = []
    for name in scaled.alphas:
        key, layer = weight_of(wanted[name]), wanted[name]
        before, after = small_plan.weights[key], scaled.plan.weights[key]
        plain = output_error(before, stored_weight(before, grid(layer, before)), moments[name])
        aware = output_error(after, stored_weight(after, grid(layer, after)), scaled.moments[name])
        gains.append(plain - aware)
    assert len(gains) == 4
    assert sum(gains) > 0, "scaling is worth something somewhere"
    for stream in found:
        names = [n.name for n in stream.readers if n.name in scaled.alphas]
        assert len({scaled.alphas[name] for name in names}) <= 1
    with torch.no_grad():
        first, second = (Network(p)(torch.from_numpy(images)) for p in (small_plan, scaled.plan))
    assert torch.allclose(first, second, atol=1e-4), "folded scales cancel"
    again = second_moments(scaled.plan, wanted, [images])
    for name in scaled.alphas:
        assert np.allclose(again[name], scaled.moments[name], rtol=1e-3, atol=1e-5)
