"""Every operator of a program that TFLite has a form for, and which; layers take their weights from the Plan here."""

from __future__ import annotations

import numpy as np

from quantward.targets._litert_attention import attention, layer_norm, matmul, softmax
from quantward.targets._litert_functions import binary, clamp, divide, extreme, function, gelu, sigmoid, silu
from quantward.targets._litert_layers import Layer, convolution, linear, per_channel
from quantward.targets._litert_moves import (
    concatenate,
    pad,
    parts,
    permute,
    reshape,
    roll,
    select,
    slice_,
    transpose,
    unbind,
    unchanged,
)
from quantward.targets._litert_pools import adaptive_pool, average_pool, max_pool, mean
from quantward.targets._litert_step import Lowering, Step, pair
from quantward.targets._litert_values import Value, refuse


def conv2d(step: Step) -> Value:
    """A convolution over rows and columns."""
    padding = step.get(4, "padding", [0, 0])
    if isinstance(padding, str):
        raise refuse("padding in numbers", repr(padding), step.name)
    return convolution(step.sheet, _layer(step), step.x, step.shape, pair(step.get(3, "stride", 1)), pair(padding),
                       pair(step.get(5, "dilation", 1)), int(step.get(6, "groups", 1)))  # fmt: skip


def fully_connected(step: Step) -> Value:
    """A linear layer."""
    return linear(step.sheet, _layer(step), step.x, step.shape)


def _layer(step: Step) -> Layer:
    names = [ref.get("weight") if isinstance(ref, dict) else None for ref in (*step.node.args, None)[1:3]]
    if names[0] is None:
        raise refuse("a stored weight", "a computed one", step.name)
    return Layer(step.plan, step.name, names[0], names[1], step.want, step.activation)


def batch_norm(step: Step) -> Value:
    """Per channel (x - mean) gamma / sqrt(variance + eps) + beta, with fixed statistics."""
    gamma, beta, mean, variance = (
        np.full(step.x.shape[1], default) if given is None else np.asarray(given, np.float64)
        for given, default in zip(step.args[1:5], (1.0, 0.0, 0.0, 1.0), strict=True)
    )
    factor = gamma / np.sqrt(variance + step.args[7])
    return per_channel(step.sheet, step.name, step.x, factor, beta - mean * factor, step.want, step.activation)


STEPS: dict[str, Lowering] = {
    "aten.conv2d.default": conv2d,
    "aten.linear.default": fully_connected,
    "aten.batch_norm.default": batch_norm,
    "aten.add.Tensor": binary("ADD"),
    "aten.sub.Tensor": binary("SUB"),
    "aten.mul.Tensor": binary("MUL"),
    "aten.div.Tensor": divide,
    "aten.relu.default": clamp,
    "aten.relu6.default": clamp,
    "aten.hardtanh.default": clamp,
    "aten.maximum.default": extreme("MAXIMUM"),
    "aten.minimum.default": extreme("MINIMUM"),
    "aten.sigmoid.default": sigmoid,
    "aten.silu.default": silu,
    "aten.hardswish.default": function("HARD_SWISH"),
    "aten.tanh.default": function("TANH"),
    "aten.gelu.default": gelu,
    "aten.softmax.int": softmax,
    "aten.layer_norm.default": layer_norm,
    "aten.mean.dim": mean,
    "aten.adaptive_avg_pool2d.default": adaptive_pool,
    "aten.avg_pool2d.default": average_pool,
    "aten.max_pool2d.default": max_pool,
    "aten.cat.default": concatenate,
    "aten.flatten.using_ints": reshape,
    "aten.reshape.default": reshape,
    "aten.unsqueeze.default": reshape,
    "aten.squeeze.dim": reshape,
    "aten.permute.default": permute,
    "aten.transpose.int": transpose,
    "aten.slice.Tensor": slice_,
    "aten.select.int": select,
    "aten.unbind.int": unbind,
    "aten.split.Tensor": parts,
    "aten.chunk.default": parts,
    "aten.roll.default": roll,
    "aten.pad.default": pad,
    "aten.matmul.default": matmul,
    "aten.bmm.default": matmul,
    "aten.scaled_dot_product_attention.default": attention,
    "aten.expand.default": unchanged,
}
"""Operator of a program -> how it is written."""
