"""From ranges and weights to QuantSpecs: the arithmetic of scales and zero points, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from quantward.core.values import FloatArray, Plan, QuantSpec
from quantward.graph.walk import bias_of, input_key, layers, weight_of

TINY = 2.0**-24
"""Smallest range of a channel: a dead channel (all weights zero) still needs a positive scale."""


def activation_spec(low: float, high: float, bits: int, source: str) -> QuantSpec:
    """Unsigned affine grid over [low, high] widened to hold 0: s = (high - low) / (2^b - 1), z = round(-low / s).

    Zero must be on the grid because convolutions pad with it.

    >>> activation_spec(0.0, 2.55, 8, "max").zero_point.item()
    0
    """
    low, high = min(low, 0.0), max(high, 0.0)
    steps = 2**bits - 1
    scale = np.float32(max((high - low) / steps, TINY))
    zero = np.clip(np.rint(-low / scale), 0, steps)
    return QuantSpec("activation", bits, False, scheme="affine", scale=np.asarray(scale),
                     zero_point=np.asarray(zero, np.int32), source=source)  # fmt: skip


def weight_spec(weight: FloatArray, bits: int, per_channel: bool = True) -> QuantSpec:
    """Symmetric signed grid for each output channel (axis 0) or the whole tensor.

    From 5 bits on s = max |w| / (2^(b-1) - 1): nothing is clipped. Below, clipping the largest weights pays, and s is
    the one of 80 shares of it with the least squared error.
    """
    rows = weight.reshape(len(weight), -1) if per_channel else weight.reshape(1, -1)
    reach = np.maximum(np.abs(rows).max(axis=1), TINY)
    top = 2 ** (bits - 1) - 1
    if bits < 5:
        reach = reach * _best_share(rows / reach[:, None], top)
    scale = np.asarray(reach / top, np.float32)
    scale = scale if per_channel else np.asarray(scale[0])
    return QuantSpec("weight", bits, True, "integer", "symmetric", 0 if per_channel else None, scale=scale,
                     zero_point=np.zeros_like(scale, np.int32),
                     source="max |w|" if bits >= 5 else "least squared error")  # fmt: skip


def _best_share(rows: FloatArray, top: int) -> FloatArray:
    """For rows (n, k) within [-1, 1]: the share of the reach at which rounding to 2 top + 1 levels errs least, (n,)."""
    shares = np.linspace(0.21, 1.0, 80)
    errors = np.empty((len(shares), len(rows)))
    for k, share in enumerate(shares):
        step = share / top
        errors[k] = ((np.clip(np.rint(rows / step), -top, top) * step - rows) ** 2).sum(axis=1)
    return np.asarray(shares[errors.argmin(axis=0)])


def with_room(plan: Plan, tensors: Mapping[str, QuantSpec]) -> dict[str, QuantSpec]:
    """Weight specs whose steps are raised where the bias would not fit into 30 bits: s_w >= |b| / (2^30 s_x).

    A filter of (nearly) nothing but zeros, as a dead normalisation leaves it, would have a step so small that s_x s_w
    cannot count up to its bias, and the bias is all that the filter has.
    """
    found: dict[str, QuantSpec] = {}
    for layer in layers(plan.program):
        bias, name = bias_of(layer), weight_of(layer)
        source = tensors.get(input_key(layer.name), tensors.get(layer.args[0]["node"]))
        if bias is None or source is None or source.dynamic or source.format != "integer" or name not in tensors:
            continue
        least = np.abs(plan.weights[bias]).astype(np.float64) / (2.0**30 * np.asarray(source.scale, np.float64))
        spec = tensors[name]
        raised = np.maximum(spec.scale, least if spec.axis == 0 else least.max()).astype(np.float32)
        if spec.block is None and spec.format == "integer" and np.any(raised > spec.scale):
            found[name] = replace(spec, scale=raised)
    return found


def bias_specs(plan: Plan, tensors: dict[str, QuantSpec]) -> dict[str, QuantSpec]:
    """Int32 grids s_x s_w for the bias of every layer whose input and weight are both stored as integers.

    Integer runtimes add the bias to the int32 accumulator, which is on this grid; ONNX Runtime would round to it
    anyway, so the Plan says so. Behind signed 8-bit activations the bias stays in float: the accelerators that want
    them (TensorRT) rescale the accumulator first and refuse an int32 bias.
    """
    found = {}
    for layer in layers(plan.program):
        bias, weight = bias_of(layer), tensors.get(weight_of(layer))
        source = tensors.get(input_key(layer.name), tensors.get(layer.args[0]["node"]))
        if bias is None or weight is None or source is None or source.dynamic or source.signed:
            continue
        if weight.block is not None or weight.format != "integer" or source.format != "integer":
            continue
        scale = np.asarray(np.asarray(source.scale, np.float32) * np.asarray(weight.scale, np.float32))
        axis = 0 if scale.ndim else None
        found[bias] = QuantSpec("bias", 32, True, "integer", "symmetric", axis, scale=scale,
                                zero_point=np.zeros_like(scale, np.int32),
                                source="input scale x weight scale")  # fmt: skip
    return found


def grid_range(spec: QuantSpec) -> tuple[Any, Any]:
    """The smallest and largest value a grid holds, per tensor or per slice."""
    return (spec.low - spec.zero_point) * spec.scale, (spec.high - spec.zero_point) * spec.scale
