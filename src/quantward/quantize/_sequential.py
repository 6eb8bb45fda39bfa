"""Weights rounded layer by layer, each behind what has been rounded before it, so that it can make up for that.

A layer of the rounded network reads x', where the float network's reads x; it is to give what the float one gives, so
its weights W' on the grid minimise E ||W' x' - W x||^2. With H = E[x' x'^T] and C = E[x x'^T] that is, but for a
constant, tr((W' - W*) H (W' - W*)^T) with W* = W C H^-1: the asymmetric objective of AdaRound (Nagel et al., ICML 2020,
eq. 21) and of GPTAQ (Li et al., 2025), and W* is what `_rounding.settle` rounds. The bias then takes the mean.

Few images make H look flatter in some directions than it is, and both W* and the rounding would exploit that. So H is
drawn towards a multiple of the identity by as much as it differs from image to image (Ledoit and Wolf, "A
well-conditioned estimator for large-dimensional covariance matrices", 2004), which leaves nothing to tune.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quantward.core.contracts import Batch
from quantward.core.progress import Track, silent
from quantward.core.values import FloatArray, Node, Plan, QuantSpec
from quantward.graph.simulate import round_to_grid
from quantward.graph.walk import bias_of, input_key, layers, weight_of
from quantward.quantize._patches import mean_patch, patches
from quantward.quantize._rounding import settle
from quantward.quantize._stretch import Stretch
from quantward.quantize._subset import evenly

IMAGES = 256
"""Images that both networks run on, at most; what is live in them is all that is held."""

CHUNK = 16
"""Images that run at once."""

LIVE_BYTES = 2**28
"""What is live between two layers is kept up to this size (of each network), beyond it is computed again."""

RIDGE = 0.01
"""Share of the mean diagonal of H that holds W* to W where the images say nothing."""

MOST = 0.9
"""H is drawn so far towards the identity at most: a channel that nearly never fires differs in every image."""

Values = list[dict[str, Any]]


class Moments:
    """Sums over what one layer reads in the float network, x, and in the rounded one, x'; all float64.

    `metric` and `cross` (groups, k, k) sum x' x'^T and x x'^T over `count` positions, `square` (groups,) the squared
    norm of each image's own E[x' x'^T], `exact` and `rounded` (groups, k) the mean patch of each image.
    """

    def __init__(self, layer: Node, kernel: tuple[int, ...]) -> None:
        self.layer, self.kernel = layer, kernel
        self.metric = self.cross = self.square = self.exact = self.rounded = torch.zeros((), dtype=torch.float64)
        self.count = self.images = 0

    def add(self, x: Tensor, seen: Tensor, images: int) -> None:
        """Add what the layer reads of some images: `x` in the float network, `seen` in the rounded one."""
        a, b = patches(self.layer, self.kernel, x), patches(self.layer, self.kernel, seen)
        self.metric = self.metric + (b @ b.mT).double()
        self.cross = self.cross + (a @ b.mT).double()
        each = b.reshape(*b.shape[:2], images, -1).transpose(1, 2)
        small = each @ each.mT if each.shape[2] <= each.shape[3] else each.mT @ each
        self.square = self.square + (small / each.shape[3]).square().sum((1, 2, 3)).double()
        self.exact = self.exact + mean_patch(self.layer, self.kernel, x).double() * images
        self.rounded = self.rounded + mean_patch(self.layer, self.kernel, seen).double() * images
        self.count += b.shape[-1]
        self.images += images


def adapt(
    plan: Plan,
    tensors: Mapping[str, QuantSpec],
    batches: Iterable[Batch],
    correct: bool = True,
    track: Track = silent,
) -> tuple[Plan, dict[str, QuantSpec]]:
    """The Plan with the integer weights of `tensors` on their grids, and the specs with refitted scales.

    `plan` is the float network; activations are rounded by their specs in `tensors` on the way. With `correct`, the
    bias of every layer, rounded or not, is changed so that the mean of its output is that of the float network.
    """
    stored = {name: spec for name, spec in tensors.items() if spec.kind == "activation"}
    images = evenly(batches, IMAGES)
    chunks = [torch.from_numpy(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
    exact: Values = [{"input": chunk} for chunk in chunks]
    rounded: Values = list(exact)
    start, held = 0, images.nbytes
    done, specs = plan, dict(tensors)
    position = {node.name: i for i, node in enumerate(plan.program)}
    for layer in track(layers(plan.program), "round"):
        at, source = position[layer.name], layer.args[0]["node"]
        pair = Stretch(plan, start, at), Stretch(done, start, at, stored)
        moments = Moments(layer, plan.weights[weight_of(layer)].shape[2:])
        own = stored.get(input_key(layer.name))
        next_exact: Values = []
        next_rounded: Values = []
        size = 0
        with torch.inference_mode():
            for chunk, before, after in zip(chunks, exact, rounded, strict=True):
                ours, theirs = pair[0](before), pair[1](after)
                x, seen = ours[source], theirs[source]
                moments.add(x, seen if own is None else round_to_grid(seen, own), len(chunk))
                size = size or _bytes(ours) * len(images) // len(chunk)
                if size <= max(LIVE_BYTES, held):
                    next_exact.append(ours)
                    next_rounded.append(theirs)
        if next_exact:
            exact, rounded, start, held = next_exact, next_rounded, at, size
        changed, spec = fitted(plan, layer, specs.get(weight_of(layer)), moments, correct)
        done = replace(done, weights={**done.weights, **changed})
        if spec is not None:
            specs[weight_of(layer)] = spec
    return done, specs


def fitted(
    plan: Plan, layer: Node, spec: QuantSpec | None, moments: Moments, correct: bool
) -> tuple[dict[str, FloatArray], QuantSpec | None]:
    """The weight and bias of a layer that change, by name, and the weight's spec with refitted scales."""
    key, bias = weight_of(layer), bias_of(layer)
    weight = new = plan.weights[key]
    changed: dict[str, FloatArray] = {}
    if spec is not None and spec.kind == "weight" and spec.format == "integer" and spec.block is None:
        wanted, metric = target(weight, moments)
        new, spec = settle(wanted, spec, metric)
        changed[key] = new
    if correct and bias is not None:
        shift = _product(weight, moments.exact / moments.images) - _product(new, moments.rounded / moments.images)
        changed[bias] = (plan.weights[bias] + shift).astype(np.float32)
    return changed, spec


def target(weight: FloatArray, moments: Moments) -> tuple[FloatArray, FloatArray]:
    """W*, in the shape of the weight, and H drawn towards the identity, float32 (groups, k, k).

    (1 - r) H + r m I up to a factor, with m the mean diagonal and r = sum_i ||H_i - H||^2 / n^2 / ||H - m I||^2 over
    the H_i of n images. W* = W + W (C - H) (H + l I)^-1 with l = m (r / (1 - r) + RIDGE).
    """
    h, c = (moments.metric / moments.count).numpy(), (moments.cross / moments.count).numpy()
    groups, k, _ = h.shape
    eye = np.eye(k)
    level = np.maximum(np.einsum("gkk->g", h) / k, 1e-12)
    noise = (moments.square.numpy() / moments.images - np.square(h).sum((1, 2))) / moments.images
    apart = np.square(h - level[:, None, None] * eye).sum((1, 2))
    share = np.clip(noise / np.maximum(apart, 1e-30), 0.0, MOST)
    lift = level * share / (1 - share)
    rows = weight.reshape(groups, -1, k).astype(np.float64)
    firm = h + (lift + level * RIDGE)[:, None, None] * eye
    more = np.linalg.solve(firm, (rows @ (c - h)).transpose(0, 2, 1)).transpose(0, 2, 1)
    metric = np.asarray(h + lift[:, None, None] * eye, np.float32)
    return np.asarray((rows + more).reshape(weight.shape), np.float32), metric


def _product(weight: FloatArray, mean: Tensor) -> FloatArray:
    """What a layer without its bias makes of a mean patch (groups, k): one number an output."""
    groups, k = mean.shape
    found = weight.reshape(groups, -1, k).astype(np.float64) @ mean.numpy()[..., None]
    return np.asarray(found.reshape(-1))


def _bytes(values: Any) -> int:
    """Bytes of all tensors in nested values."""
    if isinstance(values, Tensor):
        return values.numel() * values.element_size()
    if isinstance(values, dict):
        return _bytes(list(values.values()))
    return sum(_bytes(item) for item in values) if isinstance(values, (list, tuple)) else 0
