"""Rounding behind what has been rounded: it makes up for earlier errors, and neither means nor order are lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from quantward.core.contracts import Batch
from quantward.core.values import Plan, QuantSpec
from quantward.graph.network import Network
from quantward.graph.simulate import simulate
from quantward.graph.stored import stored_weight
from quantward.graph.walk import layers, weight_of
from quantward.quantize import _sequential
from quantward.quantize._correct import correct_biases
from quantward.quantize._patches import mean_patch, patches
from quantward.quantize._sequential import Moments, adapt, target
from quantward.quantize._specs import activation_spec, weight_spec
from quantward.quantize._stretch import Stretch, live
from quantward.quantize._subset import evenly


def four_bits(plan: Plan) -> dict[str, QuantSpec]:
    return {weight_of(layer): weight_spec(plan.weights[weight_of(layer)], 4) for layer in layers(plan.program)}


def moments_of(x: np.ndarray, seen: np.ndarray, plan: Plan) -> Moments:
    head = layers(plan.program)[-1]
    moments = Moments(head, ())
    moments.add(torch.from_numpy(x), torch.from_numpy(seen), len(x))
    return moments


def test_the_target_is_the_least_squares_answer_where_images_are_many(small_plan: Plan) -> None:
    draw = np.random.default_rng(0)
    x = (draw.normal(size=(20000, 6)) @ draw.normal(size=(6, 6))).astype(np.float32)
    seen = (x @ (np.eye(6) + 0.1 * draw.normal(size=(6, 6))) + 0.1 * draw.normal(size=x.shape)).astype(np.float32)
    weight = draw.normal(size=(3, 6)).astype(np.float32)
    found, _ = target(weight, moments_of(x, seen, small_plan))
    best = np.linalg.lstsq(seen, x @ weight.T, rcond=None)[0].T

    def lost(w: np.ndarray) -> float:
        return float(np.square(seen @ w.T - x @ weight.T).mean())

    assert lost(best) <= lost(found) < 1.05 * lost(best) < 0.5 * lost(weight)


def test_few_images_are_trusted_less_and_same_inputs_change_nothing(small_plan: Plan) -> None:
    draw = np.random.default_rng(0)
    weight = draw.normal(size=(3, 40)).astype(np.float32)
    x = draw.normal(size=(4000, 40)).astype(np.float32)
    few, many = (target(weight, moments_of(x[:n], x[:n], small_plan)) for n in (30, 4000))
    assert np.allclose(few[0], weight, atol=1e-5) and np.allclose(many[0], weight, atol=1e-5)

    def spread(h: np.ndarray) -> float:
        own = np.linalg.eigvalsh(h[0])
        return float(own[-1] / own[0])

    alone = x[:30].T @ x[:30] / 30
    assert spread(few[1]) < 20 < np.linalg.cond(alone), "thirty images say nothing of most of 40 directions"
    assert spread(many[1]) < 2


@pytest.mark.parametrize("live_bytes", [2**28, 0])
def test_what_is_computed_again_is_what_was_kept(
    small_plan: Plan, images: Batch, live_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = four_bits(small_plan)
    expected, specs = adapt(small_plan, tensors, [images[:41]])
    monkeypatch.setattr(_sequential, "LIVE_BYTES", live_bytes)
    found, again = adapt(small_plan, tensors, [images[:20], images[20:41]])
    for name, array in expected.weights.items():
        assert np.allclose(found.weights[name], array, atol=1e-6), name
    assert all(np.array_equal(specs[name].scale, again[name].scale) for name in tensors)


def test_all_images_are_seen_when_the_last_chunk_alone_is_small(small_plan: Plan, images: Batch) -> None:
    seen: list[int] = []

    class Counting(Moments):
        def add(self, x: torch.Tensor, seen_: torch.Tensor, count: int) -> None:
            super().add(x, seen_, count)
            seen.append(count)

    for power in range(12, 24):
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_sequential, "Moments", Counting)
            patch.setattr(_sequential, "LIVE_BYTES", 2**power)
            adapt(small_plan, four_bits(small_plan), [images[:33]])
        assert seen == [16, 16, 1] * len(layers(small_plan.program)), power


def test_later_layers_make_up_for_earlier_ones(small_plan: Plan, images: Batch) -> None:
    tensors = four_bits(small_plan)
    head = weight_of(layers(small_plan.program)[-1])
    only = {name: spec for name, spec in tensors.items() if name != head}
    plan, specs = adapt(small_plan, tensors, [images[:48]])
    symmetric = {**plan.weights, head: stored_weight(small_plan.weights[head], tensors[head])}
    assert set(only) < set(specs)
    x = torch.from_numpy(images[48:])
    with torch.no_grad():
        exact = Network(small_plan).eval()(x)
        mine = simulate(replace(plan, tensors=specs)).eval()(x)
        other = Network(replace(plan, weights=symmetric)).eval()(x)
    assert float((mine - exact).square().mean()) < 0.9 * float((other - exact).square().mean())


def test_the_mean_of_every_output_is_the_float_networks(small_plan: Plan, images: Batch) -> None:
    plan, specs = adapt(small_plan, four_bits(small_plan), [images])
    with torch.no_grad():
        exact = Network(small_plan).eval()(torch.from_numpy(images)).mean(0)
        found = simulate(replace(plan, tensors=specs)).eval()(torch.from_numpy(images)).mean(0)
        untouched, specs = adapt(small_plan, four_bits(small_plan), [images], correct=False)
    assert torch.allclose(exact, found, atol=1e-4)
    assert all(np.array_equal(a, untouched.weights[n]) for n, a in small_plan.weights.items() if n.endswith("bias"))


def test_mean_patch_is_the_mean_of_all_patches(small_plan: Plan) -> None:
    for layer in layers(small_plan.program):
        weight = small_plan.weights[weight_of(layer)]
        kernel = weight.shape[2:]
        groups = int(layer.args[6]) if len(layer.args) > 6 else 1
        inputs = weight.shape[1] * groups
        x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, inputs, 7, 7) if kernel else (3, inputs)))
        assert torch.allclose(mean_patch(layer, kernel, x), patches(layer, kernel, x).mean(-1)), layer.name


def test_a_part_of_a_rounded_program_gives_what_the_whole_gives(small_plan: Plan, images: Batch) -> None:
    x = torch.from_numpy(images[:4])
    stored = {node.name: activation_spec(-3.0, 3.0, 4, "test") for node in small_plan.program[:-1:2]}
    expected = simulate(replace(small_plan, tensors=stored)).eval()(x)
    middle = len(small_plan.program) // 2
    first = Stretch(small_plan, 0, middle, stored)({"input": x})
    assert set(first) == set(live(small_plan.program, middle))
    rest = Stretch(small_plan, middle, len(small_plan.program), stored)(first)
    assert torch.allclose(rest["output"], expected, atol=1e-5)


def test_images_are_spread_over_all_batches() -> None:
    images = np.arange(1000, dtype=np.float32)[:, None]
    chosen = evenly((images[start : start + 7] for start in range(0, 1000, 7)), 10).ravel()
    assert len(chosen) == 10 and chosen[0] == 0 and chosen[-1] > 900
    assert np.diff(chosen).max() <= 2 * np.diff(chosen).min()
    assert evenly([images[:3]], 10).shape == (3, 1)


def test_biases_are_corrected_on_images_of_all_classes(small_plan: Plan, images: Batch) -> None:
    dark, bright = images[:32] - 2.0, np.tile(images[:32] + 2.0, (6, 1, 1, 1))
    both = np.concatenate([np.tile(dark, (6, 1, 1, 1)), bright])
    tensors = four_bits(small_plan)
    plan = correct_biases(small_plan, small_plan, tensors, [both[s : s + 16] for s in range(0, len(both), 16)])
    with torch.no_grad():
        x = torch.from_numpy(both)
        gap = simulate(replace(plan, tensors=tensors)).eval()(x).mean(0) - Network(small_plan).eval()(x).mean(0)
        plain = simulate(replace(small_plan, tensors=tensors)).eval()(x).mean(0) - Network(small_plan).eval()(x).mean(0)
    assert float(gap.abs().max()) < 0.2 * float(plain.abs().max())
