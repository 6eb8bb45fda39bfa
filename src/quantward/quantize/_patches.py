"""What each output of a layer is a product with: the patches a convolution reads, the rows a linear layer reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quantward.core.values import Node
from quantward.graph.walk import CONV

POSITIONS = 64
"""Positions of an image (or tokens) that moments are made from, evenly spaced: neighbours say the same."""


def patches(layer: Node, kernel: tuple[int, ...], x: Tensor) -> Tensor:
    """What each output of a layer is a product with: (groups, inputs of a group's patch, positions).

    `kernel` is the shape of the weight behind its first two axes; () for a linear layer.
    """
    if layer.op != CONV:
        rows = x.reshape(len(x), -1, x.shape[-1])
        return rows[:, _spread(rows.shape[1])].reshape(1, -1, x.shape[-1]).mT
    padded, (down, right), (rise, run), (high, wide), groups = _laid_out(layer, kernel, x)
    chosen = _spread(high * wide)
    rows = (chosen // wide) * down + torch.arange(kernel[0])[:, None] * rise
    along = (chosen % wide) * right + torch.arange(kernel[1])[:, None] * run
    seen = padded[:, :, rows[:, None], along[None]]
    n, channels = seen.shape[:2]
    inputs = channels // groups * kernel[0] * kernel[1]
    columns: Tensor = seen.reshape(n, groups, inputs, -1).permute(1, 2, 0, 3)
    return columns.reshape(groups, inputs, -1)


def mean_patch(layer: Node, kernel: tuple[int, ...], x: Tensor) -> Tensor:
    """The mean of `patches` over all positions, not only the chosen ones: (groups, inputs of a group's patch)."""
    if layer.op != CONV:
        return x.reshape(1, -1, x.shape[-1]).mean(1)
    padded, (down, right), (rise, run), (high, wide), groups = _laid_out(layer, kernel, x)
    ends = (high - 1) * down + 1, (wide - 1) * right + 1
    means = [
        padded[:, :, i * rise : i * rise + ends[0] : down, j * run : j * run + ends[1] : right].mean((0, 2, 3))
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return torch.stack(means, 1).reshape(groups, -1)


def _laid_out(layer: Node, kernel: tuple[int, ...], x: Tensor) -> tuple[Any, ...]:
    """The padded input of a convolution, its stride, dilation, the size of its output and its groups."""
    stride, padding, dilation, groups = (*layer.args[3:], *[None] * 4)[:4]
    down, right = _pair(stride, 1)
    rise, run = _pair(dilation, 1)
    above, beside = _pair(padding, 0)
    padded = torch.nn.functional.pad(x, (beside, beside, above, above)) if above or beside else x
    high = (padded.shape[-2] - rise * (kernel[0] - 1) - 1) // down + 1
    wide = (padded.shape[-1] - run * (kernel[1] - 1) - 1) // right + 1
    return padded, (down, right), (rise, run), (high, wide), int(groups or 1)


def _spread(length: int) -> Tensor:
    """Up to `POSITIONS` indices from 0 to length - 1; both ends are among them, so no step shares a row's length."""
    return torch.linspace(0, length - 1, min(length, POSITIONS), dtype=torch.float64).round().long()


def _pair(value: Any, otherwise: int) -> tuple[int, int]:
    if value is None:
        return otherwise, otherwise
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return int(values[0]), int(values[-1])
