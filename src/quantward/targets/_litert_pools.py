"""Means and pools as TFLite operators: those over an image's rows and columns run in integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from quantward.graph.walk import inputs_of
from quantward.targets._litert_layers import VALID, padded
from quantward.targets._litert_step import Step, activation_of, pair
from quantward.targets._litert_values import CHANNELS_LAST, Value, arranged, as_float, refuse, reshaped


def mean(step: Step) -> Value:
    """The mean over some axes; a mean over rows and columns runs in integers."""
    axes = [int(a) % len(step.x.shape) for a in step.args[1]]
    kept = bool(step.get(2, "keepdim", False))
    return _mean(step, step.x, axes, kept)


def _mean(step: Step, x: Value, axes: Sequence[int], kept: bool) -> Value:
    sheet = step.sheet
    integer = x.grid is not None and step.want is not None and x.grid.kind == step.want.kind
    x = x if integer else as_float(sheet, x)
    places = sheet.whole_numbers(sorted(x.order.index(a) for a in axes))
    small = tuple(1 if a in axes else size for a, size in enumerate(x.shape))
    made = sheet.value(step.name, small, x.order, step.want.whole if integer and step.want else None)
    found = sheet.run("MEAN", [x, places], made, keepDims=True)
    return found if kept else reshaped(sheet, found, step.shape, step.name)


def adaptive_pool(step: Step) -> Value:
    """Average pooling to a given size: a mean, or windows of equal size."""
    size = [n if n is not None else have for n, have in zip(step.args[1], step.x.shape[2:], strict=True)]
    if size == [1, 1]:
        return _mean(step, step.x, [2, 3], True)
    if any(have % want for have, want in zip(step.x.shape[2:], size, strict=True)):
        raise refuse("windows of equal size", f"{step.x.shape[2:]} pooled to {size}", step.name)
    window = [have // want for have, want in zip(step.x.shape[2:], size, strict=True)]
    return average_pool(replace(step, args=(step.x, window, window)))


def average_pool(step: Step) -> Value:
    """Average pooling. In integers a depthwise convolution, which unlike TFLite's pool may write another grid."""
    window = pair(step.args[1])
    stride, padding = pair(step.get(2, "stride", None) or window), pair(step.get(3, "padding", 0))
    if any(padding) or step.get(4, "ceil_mode", False):
        raise refuse("average pooling without padding", f"{step.node.args[2:]}", step.name)
    sheet, x = step.sheet, arranged(step.sheet, step.x, CHANNELS_LAST)
    options: dict[str, Any] = {"padding": VALID, "strideH": stride[0], "strideW": stride[1]}
    if x.grid is None or step.want is None or x.grid.kind != "int8":
        made = sheet.value(step.name, step.shape, CHANNELS_LAST)
        return sheet.run("AVERAGE_POOL_2D", [as_float(sheet, x)], made, filterHeight=window[0], filterWidth=window[1],
                         **options)  # fmt: skip
    channels, area = x.shape[1], window[0] * window[1]
    scale = np.full(channels, 1 / (127 * area), np.float32)
    weight = sheet.draft.constant("ones", np.full((1, *window, channels), 127), "int8", scale, axis=3)
    bias = sheet.draft.constant("none", np.zeros(channels), "int32", np.float32(x.grid.scale) * scale)
    made = sheet.value(step.name, step.shape, CHANNELS_LAST, step.want.whole)
    return sheet.run("DEPTHWISE_CONV_2D", [x, weight, bias], made, depthMultiplier=1, dilationHFactor=1,
                     dilationWFactor=1, **options)  # fmt: skip


def max_pool(step: Step) -> Value:
    """Max pooling, on the grid of what it reads."""
    window = pair(step.args[1])
    stride, padding = pair(step.get(2, "stride", None) or window), pair(step.get(3, "padding", 0))
    dilation = pair(step.get(4, "dilation", 1))
    if dilation != (1, 1):
        raise refuse("max pooling of neighbours", f"dilation {dilation}", step.name)
    x = arranged(step.sheet, step.x, CHANNELS_LAST)
    source = next(node for node in step.plan.program if node.name == inputs_of(step.node)[0])
    least = activation_of(source) not in ("RELU", "RELU6")  # behind these zeros are the smallest values
    x, edges = padded(step.sheet, step.name, x, step.shape, window, stride, padding, dilation, least)
    made = step.sheet.value(step.name, step.shape, CHANNELS_LAST, x.grid)
    return step.sheet.run("MAX_POOL_2D", [x], made, padding=edges, strideH=stride[0], strideW=stride[1],
                          filterHeight=window[0], filterWidth=window[1])  # fmt: skip
