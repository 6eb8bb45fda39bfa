"""The proof against brute force: every pair of activations, added as the processor adds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from quantward.audit.saturation import HIGHEST, LOWEST, facts, saturating_pairs, saturation
from quantward.core.values import Plan
from quantward.graph.walk import layers, weight_of


def brute(weights: np.ndarray, top: int) -> tuple[int, int, int]:
    """(pairs, pairs that overflow for some activations, largest |sum| of neighbours), by trying all of them."""
    first, second = np.meshgrid(np.arange(top + 1), np.arange(top + 1))
    pairs = possible = worst = 0
    for row in weights.reshape(len(weights), weights.shape[1], -1):
        for place in range(row.shape[1]):
            for i in range(0, row.shape[0] - 1, 2):
                sums = first * row[i, place] + second * row[i + 1, place]
                pairs += 1
                possible += bool((np.clip(sums, LOWEST, HIGHEST) != sums).any())
                worst = max(worst, int(np.abs(sums).max()))
    return pairs, possible, worst


@pytest.mark.parametrize("shape", [(3, 4), (2, 5), (3, 2, 2, 1), (4, 1, 3, 3), (2, 3, 1, 2)])
@pytest.mark.parametrize("top", [255, 127, 15])
def test_the_proof_is_what_trying_everything_finds(shape: tuple[int, ...], top: int) -> None:
    draw = np.random.default_rng(len(shape) + top)
    for reach in (127, 63, 64, 90):
        weights = draw.integers(-reach, reach + 1, shape)
        weights.flat[:2] = reach, reach if reach % 2 else -reach
        pairs, possible, worst, _ = saturating_pairs(weights, top)
        assert (pairs, possible, abs(worst)) == brute(weights, top)


def test_any_order_is_never_kinder_than_neighbours() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        weights = draw.integers(-127, 128, (3, 6))
        _, possible, worst, anywhere = saturating_pairs(weights, 255)
        assert abs(anywhere) >= abs(worst)
        shuffled = np.stack([draw.permutation(row) for row in weights])
        assert abs(saturating_pairs(shuffled, 255)[2]) <= abs(anywhere)
        assert saturating_pairs(shuffled, 255)[3] == anywhere
        assert possible == 0 or not LOWEST <= anywhere <= HIGHEST


def test_eight_bits_can_overflow_and_seven_never_do(audited: Callable[[str], Plan]) -> None:
    eight, seven = (
        facts(saturation(audited(f"int8-static:calibrator=max{end}"))) for end in ("", ",reduce_range=true")
    )
    assert eight["layers"] == seven["layers"] == 8
    assert eight["possible_layers"] > 0 and abs(eight["worst"]) > HIGHEST and not eight["never_in_any_order"]
    assert seven["possible_layers"] == 0 and seven["never_in_any_order"] and abs(seven["worst"]) <= 255 * 126
    assert set(eight["worst_layers"]) and seven["worst_layers"] == {}


def test_a_depthwise_filter_has_one_input_and_no_partner(audited: Callable[[str], Plan]) -> None:
    plan = audited("int8-static:calibrator=max")
    by_name = {one.layer: one for one in saturation(plan)}
    assert by_name["blocks.0.depthwise"].pairs == 0 and by_name["blocks.0.depthwise"].possible == 0
    assert by_name["blocks.0.expand"].pairs == 24 * 8 / 2


def test_ranges_found_at_run_time_count_too(audited: Callable[[str], Plan]) -> None:
    assert facts(saturation(audited("int8-dynamic")))["layers"] == 8


@pytest.mark.parametrize("recipe", ["fp32", "fp16"])
def test_a_file_without_bytes_to_multiply_needs_no_proof(audited: Callable[[str], Plan], recipe: str) -> None:
    assert facts(saturation(audited(recipe))) == {}


def test_kept_layers_and_signed_activations_are_left_out(audited: Callable[[str], Plan]) -> None:
    plan = audited("int8-static:calibrator=max,keep=head")
    assert "head" not in {one.layer for one in saturation(plan)}
    stem = next(layer for layer in layers(plan.program) if layer.name == "stem")
    signed = replace(plan.tensors["input"], signed=True)
    assert stem.name not in {one.layer for one in saturation(replace(plan, tensors={**plan.tensors, "input": signed}))}
    assert weight_of(stem) in plan.tensors
