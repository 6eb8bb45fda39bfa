"""Grids for weights alone: a scale for each short run of weights, and three ways to find it (RTN, HQQ, AWQ).

Activations stay in float, so nothing asks for one scale a row: the row is cut into blocks, each as wide as its own
weights need. A weight is seen as the matrix (outputs, all else), which covers linear layers and convolutions alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.values import FloatArray, Node, Plan, QuantSpec
from quantward.graph.stored import broadcast, stored_weight
from quantward.graph.walk import weight_of
from quantward.quantize._equalise import LIMIT, Stream, scale_inputs, scale_outputs
from quantward.quantize._rounding import damped, descend, errors
from quantward.quantize._specs import TINY

Array = npt.NDArray[np.float64]

SHARES = (np.linspace(0.7, 1.0, 7), np.linspace(0.4, 1.0, 13))
"""Shares of a block's extremes that are tried as the ends of its grid: with 4 bits and more, and with fewer."""

ALPHAS = tuple(k / 10 for k in range(11))
"""Exponents that AWQ tries; 0 is no scaling at all, so the search never does worse than rounding alone."""


def block_of(inputs: int, group: int) -> int | None:
    """The length of a row's blocks: as near `group` as blocks of one length come; None for a row that is one block.

    >>> block_of(144, 32), block_of(1280, 32), block_of(24, 32)
    (36, 32, None)
    """
    blocks = max(1, round(inputs / group)) if group else 1
    return None if blocks == 1 else -(-inputs // blocks)


def nearest(weight: FloatArray, bits: int, block: int | None, affine: bool = True) -> QuantSpec:
    """Round to nearest (RTN), with the ends of each block's grid where the squared error is least: `SHARES` of its
    extremes are tried, s = (high - low) / (2^b - 1) and z = round(-low / s), or max |w| and z = 0 on a symmetric
    grid. Scales of blocks are rounded to half precision, so that a file can store them in two bytes.
    """
    rows = cut(weight, block)
    low, high = np.minimum(rows.min(-1), 0.0), np.maximum(rows.max(-1), 0.0)
    if not affine:
        high = np.maximum(-low, high)
        low = -high
    first, last = (0, (1 << bits) - 1) if affine else (1 - (1 << (bits - 1)), (1 << (bits - 1)) - 1)
    steps = last - first
    best, zeros, least = high - low, np.zeros(high.shape), np.full(high.shape, np.inf)
    for share in SHARES[bits < 4]:
        scale = _kept(np.maximum(share * (high - low) / steps, TINY), block)
        zero = np.clip(np.rint(-share * low / scale), first, last) if affine else np.zeros(scale.shape)
        whole = np.clip(np.rint(rows / scale[..., None]) + zero[..., None], first, last) - zero[..., None]
        error = ((whole * scale[..., None] - rows) ** 2).sum(-1)
        better = error < least
        best, zeros, least = np.where(better, scale, best), np.where(better, zero, zeros), np.minimum(error, least)
    return QuantSpec("weight", bits, not affine, "integer", "affine" if affine else "symmetric", 0, block,
                     scale=best.astype(np.float32), zero_point=zeros.astype(np.int32),
                     source="least squared error")  # fmt: skip


def half_quadratic(weight: FloatArray, bits: int, block: int | None, rounds: int = 20) -> QuantSpec:
    """HQQ (Badri & Shaji, "Half-quadratic quantization of large machine learning models", 2023): affine, unsigned,
    min over the grid of sum |w - s (q - z)|^p with p = 0.7, which lets a few weights err much so that most err little.

    Alternates e = shrink(w - s (q - z)) with the grid that fits w - e best. Two deviations: z is an integer, as ONNX
    stores it, and s is fitted as well to make up for that; the shrinkage works in steps of the grid, so that beta = 10
    means the same for every layer. The best grid of all rounds is kept, so it never ends above its start (min-max).
    """
    rows, top, power, beta = cut(weight, block), (1 << bits) - 1, 0.7, 10.0
    low, high = np.minimum(rows.min(-1), 0.0), np.maximum(rows.max(-1), 0.0)
    scale = np.maximum((high - low) / top, TINY)
    zero = np.clip(np.rint(-low / scale), 0, top)
    best_scale, best_zero, least = scale, zero, np.full(scale.shape, np.inf)
    for _ in range(rounds):
        scale = _kept(scale, block).astype(np.float64)
        whole = np.clip(np.rint(rows / scale[..., None]) + zero[..., None], 0, top)
        gap = rows / scale[..., None] - (whole - zero[..., None])
        error = (np.abs(gap) ** power).sum(-1) * scale**power
        better = error < least
        best_scale, best_zero = np.where(better, scale, best_scale), np.where(better, zero, best_zero)
        least = np.minimum(error, least)
        size = np.maximum(np.abs(gap), 1e-8)
        explained = rows - scale[..., None] * np.sign(gap) * np.maximum(size - size ** (power - 1) / beta, 0.0)
        zero = np.clip(np.rint((whole - explained / scale[..., None]).mean(-1)), 0, top)
        centred = whole - zero[..., None]
        fitted = (centred * explained).sum(-1) / np.maximum((centred**2).sum(-1), 1e-30)
        scale = np.where(fitted > 0, np.maximum(fitted, TINY), scale)
        beta *= 1.01
    return QuantSpec("weight", bits, False, "integer", "affine", 0, block, scale=_kept(best_scale, block),
                     zero_point=best_zero.astype(np.int32), source="half-quadratic, |error|^0.7")  # fmt: skip


def cut(weight: FloatArray, block: int | None) -> Array:
    """A weight as (outputs, blocks, block), the last block filled up with zeros; (outputs, all else) without blocks."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    if block is None:
        return rows
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % block))).reshape(len(rows), -1, block)


def _kept(scale: Any, block: int | None) -> npt.NDArray[np.float32]:
    """Scales as they will be stored: those of blocks in half precision."""
    if block is None:
        return np.asarray(scale, np.float32)
    half: npt.NDArray[np.float32] = np.clip(scale, TINY, 65504.0).astype(np.float16).astype(np.float32)
    return half


def output_error(weight: FloatArray, stored: FloatArray, moment: FloatArray) -> float:
    """Expected squared error of an output over its expected square: tr(D H D') / tr(W H W'), D = stored - weight.

    `moment` is H = E[x x'], shape (groups, k, k).

    >>> weight = np.array([[1.0, 2.0]])
    >>> output_error(weight, weight * 1.1, np.eye(2)[None]).__round__(4)
    0.01
    """
    groups, k, _ = moment.shape
    rows = weight.reshape(groups, -1, k).astype(np.float64)
    power = float(errors(0.0, rows, moment).sum())
    return float(errors(rows, stored.reshape(groups, -1, k).astype(np.float64), moment).sum()) / max(power, 1e-300)


@dataclass(frozen=True, eq=False)
class Scaled:
    """What AWQ gives: the float Plan with folded scales, H as its layers see it now, and the exponent of each layer
    that could be scaled."""

    plan: Plan
    moments: dict[str, FloatArray]
    alphas: dict[str, float]


def activation_aware(
    plan: Plan,
    found: list[Stream],
    moments: Mapping[str, FloatArray],
    reach: Mapping[str, FloatArray],
    grid: Callable[[Node, FloatArray], QuantSpec],
) -> Scaled:
    """AWQ (Lin et al., "AWQ: activation-aware weight quantization", MLSys 2024): input channels that carry much are
    rounded finer. Each channel of a layer's weight is multiplied by s = (a / max a)^alpha and its input divided by s,
    which costs nothing where the division can be folded into what writes the channel (`found`).

    alpha is the one of `ALPHAS` with the least error of the outputs, summed over the layers that read the stream.
    Deviations: a is the root mean square of a channel, which H already holds, not its mean magnitude; under a clamp at
    c no channel may be raised beyond it, so s >= max |x| / c with `reach` (step -> max |x| of each channel).
    `moments` holds H of the layers to be stored on `grid`; other readers of a stream are only rescaled.
    """
    weights, moved, alphas = dict(plan.weights), dict(moments), {}
    for stream in found:
        dense = [layer for layer in stream.readers if layer.name in moments and len(moments[layer.name]) == 1]
        if not dense:
            continue
        importance = np.mean([_importance(weights[weight_of(n)], moments[n.name]) for n in dense], axis=0)
        floor = np.full(len(importance), 1 / LIMIT)
        if stream.clamp is not None:
            measured = [reach[step] for step in stream.steps if step in reach]
            floor = np.maximum(floor, np.max(measured, axis=0) / stream.clamp)
        best, scales, chosen = np.inf, np.ones(len(importance)), 0.0
        for alpha in ALPHAS:
            tried = np.clip((importance / importance.max()) ** alpha, np.minimum(floor, 1.0), 1.0)
            error = sum(_error(weights[weight_of(n)], moments[n.name], tried, n, grid) for n in dense)
            if error < best:
                best, scales, chosen = error, tried, alpha
        if chosen == 0.0:
            alphas.update({layer.name: 0.0 for layer in dense})
            continue
        for layer in stream.writers:
            scale_outputs(weights, layer, 1 / scales)
        for layer in stream.readers:
            scale_inputs(weights, layer, 1 / scales)
        for layer in stream.readers:
            if layer.name in moments:
                moved[layer.name] = _moved(moments[layer.name], scales)
        alphas.update({layer.name: chosen for layer in dense})
    return Scaled(replace(plan, weights=weights), moved, alphas)


def _importance(weight: FloatArray, moment: FloatArray) -> Array:
    """Root mean square of each input channel, from the diagonal of H, relative to the largest."""
    power = np.einsum("gkk->k", moment.astype(np.float64)).reshape(weight.shape[1], -1).mean(1)
    size = np.sqrt(np.maximum(power, 0.0))
    return np.asarray(np.maximum(size, 1e-12) / max(float(size.max()), 1e-12))


def _error(
    weight: FloatArray, moment: FloatArray, scales: Array, layer: Node, grid: Callable[[Node, FloatArray], QuantSpec]
) -> float:
    """Relative output error of a layer whose input channels have been multiplied by `scales` before rounding."""
    grown = (weight * scales.reshape(1, -1, *[1] * (weight.ndim - 2))).astype(np.float32)
    return output_error(grown, stored_weight(grown, grid(layer, grown)), _moved(moment, scales))


def _moved(moment: FloatArray, scales: Array) -> FloatArray:
    """H of inputs divided by `scales`: one group of channels with their taps, or a group for each channel."""
    groups, k, _ = moment.shape
    if groups > 1:
        each = np.repeat(scales, groups // len(scales)) ** 2
        return np.asarray(moment / each[:, None, None], np.float32)
    each = np.repeat(scales, k // len(scales))
    return np.asarray(moment / np.outer(each, each), np.float32)


def settle_blocks(weight: FloatArray, spec: QuantSpec, moment: FloatArray) -> FloatArray:
    """The point of a blocked or affine grid that is nearest to the weight in the metric of H (`_rounding.descend`),
    started at the rounded weight. A row that ends no better keeps its rounded values."""
    groups, k, _ = moment.shape
    shape = (groups, len(weight) // groups, k)
    scale, zero = (part.astype(np.float32) for part in broadcast(spec, weight.shape))
    scale, zero = (np.broadcast_to(part, weight.shape).reshape(shape) for part in (scale, zero))
    rows, low, high = weight.reshape(shape).astype(np.float32), spec.low - zero, spec.high - zero
    metric = damped(moment)
    first = np.clip(np.rint(rows / scale), low, high)
    whole = descend(rows, first, scale, metric, low, high)
    better = errors(rows, whole * scale, metric) < errors(rows, first * scale, metric)
    return np.asarray((np.where(better[..., None], whole, first) * scale).reshape(weight.shape), np.float32)
