"""Rounding that keeps what a layer computes, not what its weights are: errors of one weight make up for another's.

The error of a layer's output is a quadratic form of the weights' errors, E ||(W' - W) x||^2 = tr(D H D'), with
H = E[x x'] of the layer's inputs: one pass over the images gives every H, and no image is needed after that. The
objective is AdaRound's (Nagel et al., "Up or down?", ICML 2020, eq. 13). It is minimised over all integers of the grid
by coordinate descent, after Zhang et al., "COMQ", 2024: each step takes the best integer for one input, given all
others, so the error falls in every step and nothing has to be tuned. The scale of each row is then refitted, and the
descent repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quantward.core.contracts import Batch
from quantward.core.values import FloatArray, Node, Plan, QuantSpec
from quantward.graph.simulate import simulate
from quantward.graph.walk import weight_of
from quantward.quantize._patches import patches

DAMPING = 0.01
"""Share of the mean diagonal that is added to H: what few images do not show is not to be exploited."""

SWEEPS = 3
"""Rounds over all inputs; after three hardly an integer moves."""

BLOCK = 64
"""Inputs whose slopes are updated one by one before the rest follow in one matrix product."""


def second_moments(
    plan: Plan, wanted: Mapping[str, Node], batches: Iterable[Batch], tensors: Mapping[str, QuantSpec] | None = None
) -> dict[str, FloatArray]:
    """H = E[x x'] of every wanted layer's inputs, float32 (groups, k, k), with k inputs a group (of a patch).

    With `tensors`, inputs are rounded by their activation specs while weights stay float.
    """
    stored = {name: spec for name, spec in (tensors or {}).items() if spec.kind == "activation"}
    network = simulate(replace(plan, tensors=stored)).eval()
    read = network.on_input
    assert read is not None
    kernels = {name: plan.weights[weight_of(layer)].shape[2:] for name, layer in wanted.items()}
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = dict.fromkeys(wanted, 0)

    def on_input(name: str, tensor: Tensor) -> Tensor:
        seen = read(name, tensor)
        if name in wanted:
            rows = patches(wanted[name], kernels[name], seen)
            sums[name] = sums.get(name, torch.zeros(())) + rows @ rows.mT
            counts[name] += rows.shape[-1]
        return seen

    network.on_input = on_input
    with torch.inference_mode():
        for batch in batches:
            network(torch.from_numpy(batch))
    return {name: (total / max(counts[name], 1)).numpy() for name, total in sums.items()}


def settle(weight: FloatArray, spec: QuantSpec, moment: FloatArray, rounds: int = 2) -> tuple[FloatArray, QuantSpec]:
    """A weight's nearest point of the grid in the metric of H, and its spec with refitted scales.

    `moment` (groups, k, k). Scales are refitted, s = q H w / q H q for each row, where the grid has one a row.
    """
    groups, k, _ = moment.shape
    rows = weight.reshape(groups, len(weight) // groups, k).astype(np.float32)
    metric = damped(moment)
    scale = np.broadcast_to(np.asarray(spec.scale, np.float32), (len(weight),)).reshape(groups, -1)
    whole = np.clip(np.rint(rows / scale[..., None]), spec.low, spec.high)
    best, best_scale, least = whole, scale, errors(rows, whole * scale[..., None], metric)
    for turn in range(rounds):
        whole = descend(rows, whole, scale[..., None], metric, spec.low, spec.high)
        found = errors(rows, whole * scale[..., None], metric)
        better = found < least
        best = np.where(better[..., None], whole, best)
        best_scale, least = np.where(better, scale, best_scale), np.minimum(found, least)
        if turn + 1 < rounds:
            if spec.axis is None:
                break
            along = np.matmul(whole, metric)
            fit = (along * rows).sum(-1) / np.maximum((along * whole).sum(-1), 1e-30)
            scale = np.where(fit > 0, fit, scale).astype(np.float32)
            whole = np.clip(np.rint(rows / scale[..., None]), spec.low, spec.high)
    settled = (best * best_scale[..., None]).reshape(weight.shape).astype(np.float32)
    kept = np.asarray(best_scale.reshape(-1), np.float32) if spec.axis is not None else spec.scale
    return settled, replace(spec, scale=kept, source=f"{spec.source}, rounded for the layer's output")


def descend(rows: Any, whole: Any, scale: Any, metric: Any, low: Any, high: Any) -> Any:
    """Coordinate descent over integers, the inputs that carry most first: `rows` and the integers `whole` to start
    from have shape (groups, rows, k), `metric` (groups, k, k); `scale`, `low` and `high` broadcast against `rows`.

    Within a block of `BLOCK` inputs only that block's slopes are kept up to date; the others follow in one product.
    """
    order = np.argsort(-np.einsum("gkk->k", metric))
    metric = metric[:, order][:, :, order]
    rows, whole = rows[..., order], whole[..., order]
    scale, low, high = (np.broadcast_to(np.asarray(a, np.float32), rows.shape)[..., order] for a in (scale, low, high))
    slope = np.matmul(whole * scale - rows, metric)
    curvature = np.einsum("gkk->gk", metric)
    for _ in range(SWEEPS):
        before = whole.copy()
        for start in range(0, len(order), BLOCK):
            block = slice(start, start + BLOCK)
            near, local = metric[:, block, block], slope[..., block].copy()
            fresh = whole[..., block].copy()
            for j in range(fresh.shape[-1]):
                at = start + j
                ideal = fresh[..., j] - local[..., j] / (curvature[:, at, None] * scale[..., at])
                best = np.clip(np.rint(ideal), low[..., at], high[..., at])
                local += ((best - fresh[..., j]) * scale[..., at])[..., None] * near[:, None, j, :]
                fresh[..., j] = best
            slope += np.matmul((fresh - whole[..., block]) * scale[..., block], metric[:, block])
            whole[..., block] = fresh
        if np.array_equal(before, whole):
            break
    return whole[..., np.argsort(order)]


def errors(rows: Any, rounded: Any, metric: Any) -> Any:
    """d H d' of each row, (groups, rows), with d = rounded - rows."""
    gap = rounded - rows
    return (np.matmul(gap, metric) * gap).sum(-1)


def damped(moment: FloatArray) -> FloatArray:
    """H with a little of its mean diagonal added, float32."""
    k = moment.shape[-1]
    level = np.einsum("gkk->g", moment) / k
    lifted = moment + (DAMPING * np.maximum(level, 1e-12))[:, None, None] * np.eye(k)
    return np.asarray(lifted, np.float32)
