"""Fake quantization against five lines of NumPy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantward.core.values import QuantSpec
from quantward.graph.simulate import round_to_grid
from quantward.graph.stored import stored_weight, to_integers


def reference(x: np.ndarray, scale: float, zero: int, low: int, high: int) -> np.ndarray:
    """ONNX QuantizeLinear then DequantizeLinear, by the letter of the specification."""
    q = np.clip(np.rint(x / np.float32(scale)) + zero, low, high)
    return ((q - zero) * np.float32(scale)).astype(np.float32)


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20),
    st.floats(2**-10, 10, width=32),
    st.integers(0, 255),
)
def test_unsigned_grid_is_quantize_linear(values: list[float], scale: float, zero: int) -> None:
    x = np.asarray(values, np.float32)
    spec = QuantSpec("activation", 8, False, scheme="affine", scale=np.float32(scale), zero_point=np.int32(zero))
    got = round_to_grid(torch.from_numpy(x), spec).numpy()
    assert np.allclose(got, reference(x, scale, zero, 0, 255), rtol=1e-6, atol=1e-6 * scale)


@given(st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4))
def test_weights_are_stored_within_half_a_step(values: list[float]) -> None:
    weight = np.asarray(values, np.float32).reshape(2, 2)
    scale = np.maximum(np.abs(weight).max(1), 1e-6) / 127
    spec = QuantSpec("weight", axis=0, scale=scale.astype(np.float32), zero_point=np.zeros(2, np.int32))
    gap = np.abs(stored_weight(weight, spec) - weight)
    assert (gap <= scale[:, None] * 0.501).all()
    assert np.abs(to_integers(weight, spec)).max() <= 127


def test_gradient_passes_inside_the_range_and_stops_outside() -> None:
    spec = QuantSpec("activation", 8, False, scheme="affine", scale=np.float32(0.1), zero_point=np.int32(0))
    x = torch.tensor([-1.0, 0.33, 12.0, 99.0], requires_grad=True)
    round_to_grid(x, spec).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_dynamic_range_is_each_images_own() -> None:
    spec = QuantSpec("activation", 8, False, scheme="affine", dynamic=True)
    small = torch.linspace(0, 1, 50).reshape(1, -1)
    both = torch.cat([small, 100 * small])
    assert torch.equal(round_to_grid(both, spec)[:1], round_to_grid(small, spec))


def test_half_precision_rounds_like_numpy() -> None:
    weight = np.random.default_rng(0).normal(size=100).astype(np.float32)
    spec = QuantSpec("weight", 16, format="float16")
    assert np.array_equal(stored_weight(weight, spec), weight.astype(np.float16).astype(np.float32))
    assert np.array_equal(round_to_grid(torch.from_numpy(weight), spec).numpy(), stored_weight(weight, spec))
