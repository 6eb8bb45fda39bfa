"""Streaming histograms and calibrators against whole-array definitions."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantward.core.contracts import Batch
from quantward.core.errors import Refused
from quantward.core.values import Plan
from quantward.graph.network import function
from quantward.quantize._calibrators import THROUGH, divergences, entropy, maximum, percentile, squared_error
from quantward.quantize._observers import BINS, Histogram, observe


def histogram_of(*batches: np.ndarray) -> Histogram:
    found = Histogram(np.zeros(BINS), 0.0, np.inf, -np.inf)
    for batch in batches:
        found.add(torch.from_numpy(np.atleast_2d(batch).astype(np.float32)))
    return found


@settings(max_examples=50)
@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30), min_size=1, max_size=6))
def test_no_value_is_lost_however_the_range_grows(parts: list[list[float]]) -> None:
    found = histogram_of(*(np.array(part) for part in parts))
    everything = np.concatenate([np.array(part, np.float32) for part in parts])
    assert found.low == everything.min()
    assert found.high == everything.max()
    assert found.counts.sum() == len(everything)


def test_growing_range_gives_the_histogram_of_the_final_range() -> None:
    draw = np.random.default_rng(0)
    parts = [scale * draw.normal(size=500).astype(np.float32) for scale in (1, 10, 3, 200)]
    found = histogram_of(*parts)
    direct = torch.histc(torch.from_numpy(np.concatenate(parts)), BINS, -found.reach, found.reach).numpy()
    assert np.abs(found.counts - direct).sum() <= 4  # values on an edge may fall either way


def test_nan_is_refused() -> None:
    with pytest.raises(Refused, match="Expected finite activations"):
        histogram_of(np.array([1.0, np.nan]))


def test_no_images_are_refused(small_plan: Plan) -> None:
    with pytest.raises(Refused, match="Expected images to calibrate on"):
        observe(small_plan, [], ["input"])


def test_memory_does_not_grow_with_the_number_of_images(small_plan: Plan, images: Batch) -> None:
    def peak(batches: int) -> int:
        def stream() -> Iterator[Batch]:
            yield from (images[:8] for _ in range(batches))

        tracemalloc.start()
        observe(small_plan, stream(), [node.name for node in small_plan.program[:-1]])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2)
    assert peak(40) < 1.2 * peak(4)


def test_max_is_the_exact_range() -> None:
    values = np.random.default_rng(1).normal(size=1000)
    assert maximum(histogram_of(values), 8) == pytest.approx((values.min(), values.max()), rel=1e-6)


def test_percentile_cuts_the_share_it_says() -> None:
    values = np.random.default_rng(2).normal(size=200_000)
    low, high = percentile(histogram_of(values), 8)
    outside = np.mean((values < low) | (values > high))
    assert outside == pytest.approx(1e-4, abs=5e-5)


def test_percentile_of_a_relu_cuts_no_zeros() -> None:
    values = np.maximum(np.random.default_rng(3).normal(size=100_000), 0)
    low, high = percentile(histogram_of(values), 8)
    assert low == 0.0
    assert 3.5 < high < 4.5


@pytest.mark.parametrize("bits", [4, 8])
def test_mse_finds_the_best_range_of_a_search_by_hand(bits: int) -> None:
    values = np.concatenate([np.random.default_rng(4).normal(size=20_000), [40.0]])

    def cost(low: float, high: float) -> float:
        step = (high - low) / (2**bits - 1)
        zero = np.rint(-low / step)
        q = (np.clip(np.rint(values / step) + zero, 0, 2**bits - 1) - zero) * step
        return float(((values - q) ** 2).mean())

    low, high = squared_error(histogram_of(values), bits)
    by_hand = min(cost(-a, b) for a in np.linspace(1, 5, 30) for b in [*np.linspace(1, 5, 30), 40.0])
    assert cost(low, high) <= 1.05 * by_hand


def test_entropy_survives_the_zeros_of_a_relu() -> None:
    values = np.maximum(np.random.default_rng(5).normal(size=200_000), 0)
    low, high = entropy(histogram_of(values), 8)
    assert low == 0.0
    assert high > 2.5


def test_entropy_clips_a_lonely_outlier() -> None:
    values = np.concatenate([np.random.default_rng(6).normal(size=200_000), [80.0]])
    assert entropy(histogram_of(values), 8)[1] < 20


@pytest.mark.parametrize("levels", [8, 128])
def test_divergences_follow_their_definition(levels: int) -> None:
    draw = np.random.default_rng(0)
    counts = np.floor(draw.exponential(size=600) * 40 * np.exp(-np.arange(600) / 120))
    counts[draw.integers(1, 600, 80)] = 0
    stops = np.arange(levels, 600, 37)
    for stop, found in zip(stops, divergences(counts, stops, levels), strict=True):
        clipped = counts[:stop].copy()
        clipped[-1] += counts[stop:].sum()
        cell = np.arange(stop) * levels // stop
        filled = counts[:stop] > 0
        even = np.bincount(cell, counts[:stop], levels) / np.maximum(np.bincount(cell, filled, levels), 1)
        p, q = clipped / clipped.sum(), np.where(filled, even[cell], 0) / counts[:stop].sum()
        q = np.where((p > 0) & (q <= 0), 1e-12, q)
        assert found == pytest.approx(float(p[p > 0] @ np.log(p[p > 0] / q[p > 0])), rel=1e-9, abs=1e-12)


def test_a_range_is_chosen_for_what_reads_it() -> None:
    draw = np.random.default_rng(0)
    x = np.r_[draw.normal(size=20_000), draw.uniform(-30, -10, 4_000)]
    histogram = Histogram(np.histogram(x, BINS, (-30, 30))[0].astype(float), 30.0, float(x.min()), float(x.max()))
    silu = THROUGH["aten.silu.default"]

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        zero = np.rint(-low / step)
        return float(np.mean((silu((np.clip(np.rint(x / step) + zero, 0, 255) - zero) * step) - silu(x)) ** 2))

    plain, through = squared_error(histogram, 8), squared_error(histogram, 8, silu)
    assert plain[0] < -20 < through[0], "the tail that a SiLU sets to zero is clipped"
    assert error(*through) < 0.3 * error(*plain)


@pytest.mark.parametrize("op", sorted(THROUGH))
def test_functions_are_those_of_torch(op: str) -> None:
    x = torch.linspace(-8, 8, 201, dtype=torch.float64)
    assert np.allclose(THROUGH[op](x.numpy()), function(op)(x).numpy(), atol=1e-12)
