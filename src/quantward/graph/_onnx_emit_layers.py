"""Convolutions, linear layers, normalisations, pools, attention: one function an aten operator, each as the ONNX
operators that runtimes have a kernel for, or a fusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from quantward.core.values import Node
from quantward.graph._onnx_writing import Writing, argument, refused


def layer_input(work: Writing, node: Node) -> str:
    """What a layer reads, behind its marker."""
    return work.tap(work.value(node.args[0]), f"input:{node.name}")


def conv(work: Writing, node: Node) -> str:
    """A convolution of images."""
    return _conv(work, node, layer_input(work, node), 2)


def conv_line(work: Writing, node: Node) -> str:
    """A convolution along one axis, which is no layer that recipes look at."""
    return _conv(work, node, work.value(node.args[0]), 1)


def _conv(work: Writing, node: Node, x: str, axes: int) -> str:
    strides, pads, dilations = (
        _many(argument(node, place, default), axes) for place, default in ((3, 1), (4, 0), (5, 1))
    )
    inputs = [x, work.value(node.args[1])]
    if argument(node, 2, None) is not None:
        inputs.append(work.value(node.args[2]))
    group = int(argument(node, 6, 1))
    return work.put("Conv", inputs, strides=strides, pads=[*pads, *pads], dilations=dilations, group=group)


def linear(work: Writing, node: Node) -> str:
    """A linear layer: Gemm for rows, MatMul and Add where there are more axes."""
    x, weight = layer_input(work, node), work.value(node.args[1])
    bias = argument(node, 2, None)
    if len(work.shapes[x]) == 2:
        return work.put("Gemm", [x, weight, *([] if bias is None else [work.value(bias)])], transB=1)
    product = work.put("MatMul", [x, work.put("Transpose", [weight], perm=[1, 0])])
    return product if bias is None else work.put("Add", [product, work.value(bias)])


def attention(work: Writing, node: Node) -> str:
    """softmax(q k' / sqrt(width) + mask) v, the scale on the smaller factor."""
    causal, grouped = argument(node, 5, False) or node.kwargs.get("is_causal"), node.kwargs.get("enable_gqa")
    if causal or grouped:
        raise refused(node, "attention between all tokens", "a causal or a grouped one")
    q, k, v = (work.value(item) for item in node.args[:3])
    scale = node.kwargs.get("scale") or 1 / math.sqrt(work.shapes[q][-1])
    order = list(range(len(work.shapes[k])))
    turned = work.put("Transpose", [k], perm=[*order[:-2], order[-1], order[-2]])
    scores = work.put("MatMul", [work.put("Mul", [q, work.constant(scale)]), turned])
    given = argument(node, 3, None)
    mask = node.kwargs.get("attn_mask") if given is None else given
    if mask is not None and work.kinds[work.value(mask)] == TensorProto.BOOL:
        scores = work.put("Where", [work.value(mask), scores, work.constant(-math.inf)])
    elif mask is not None:
        scores = work.put("Add", [scores, work.value(mask)])
    return work.put("MatMul", [work.put("Softmax", [scores], axis=-1), v])


def batch_norm(work: Writing, node: Node) -> str:
    """A batch normalisation that no convolution could take in."""
    channels = work.shape(node.args[0])[1]
    inputs = [
        work.constant(np.full(channels, default)) if item is None else work.value(item)
        for item, default in zip(node.args[1:5], (1.0, 0.0, 0.0, 1.0), strict=True)
    ]
    return work.put("BatchNormalization", [work.value(node.args[0]), *inputs], epsilon=float(node.args[7]))


def layer_norm(work: Writing, node: Node) -> str:
    """A layer normalisation over the last axes."""
    sizes, weight, bias = node.args[1], argument(node, 2, None), argument(node, 3, None)
    inputs = [work.value(node.args[0]), work.constant(np.ones(sizes)) if weight is None else work.value(weight)]
    if bias is not None:
        inputs.append(work.value(bias))
    return work.put("LayerNormalization", inputs, axis=-len(sizes), epsilon=float(argument(node, 4, 1e-5)))


def group_norm(work: Writing, node: Node) -> str:
    """A group normalisation."""
    shape = work.shape(node.args[0])
    inputs = [
        work.constant(np.full(shape[1], default)) if item is None else work.value(item)
        for item, default in ((argument(node, 2, None), 1.0), (argument(node, 3, None), 0.0))
    ]
    return work.put("GroupNormalization", [work.value(node.args[0]), *inputs], shape, num_groups=int(node.args[1]),
                    epsilon=float(argument(node, 4, 1e-5)))  # fmt: skip


def max_pool(work: Writing, node: Node) -> str:
    """The largest of a window."""
    return _pool(work, node, "MaxPool", dilations=_many(argument(node, 4, 1), 2), ceil_mode=argument(node, 5, False))


def average_pool(work: Writing, node: Node) -> str:
    """The mean of a window."""
    if argument(node, 6, None) is not None:
        raise refused(node, "a plain average", "a divisor of its own")
    return _pool(work, node, "AveragePool", ceil_mode=argument(node, 4, False),
                 count_include_pad=argument(node, 5, True))  # fmt: skip


def _pool(work: Writing, node: Node, op: str, **attributes: Any) -> str:
    kernel, pads = _many(node.args[1], 2), _many(argument(node, 3, 0), 2)
    strides = _many(argument(node, 2, None) or kernel, 2)
    given: dict[str, Any] = {name: int(v) if isinstance(v, bool) else v for name, v in attributes.items()}
    return work.put(op, [work.value(node.args[0])], kernel_shape=kernel, strides=strides, pads=[*pads, *pads], **given)


def adaptive_pool(work: Writing, node: Node) -> str:
    """A mean over windows that divide the image; over all of it where one pixel is left."""
    x, made = work.value(node.args[0]), _many(node.args[1], 2)
    if made == [1, 1]:
        return work.put("GlobalAveragePool", [x])
    sides = work.shapes[x][-2:]
    if any(side % size for side, size in zip(sides, made, strict=True)):
        raise refused(node, "a pool whose windows divide the image", f"{list(sides)} to {made}")
    kernel = [side // size for side, size in zip(sides, made, strict=True)]
    return x if kernel == [1, 1] else work.put("AveragePool", [x], kernel_shape=kernel, strides=kernel)


def resize(mode: str) -> Any:
    """An image with other sides: torch's upsampling, to sizes or by factors."""

    def emitter(work: Writing, node: Node) -> str:
        x = work.value(node.args[0])
        shape, made = work.shapes[x], argument(node, 1, None)
        factors = argument(node, 2 if mode == "nearest" else 3, None)
        aligned = mode != "nearest" and bool(argument(node, 2, False))
        if made is None:
            made = [math.floor(side * float(factor)) for side, factor in zip(shape[-2:], factors, strict=True)]
        if list(made) == list(shape[-2:]):
            return x
        given: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
        if mode == "nearest":
            given |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        elif aligned:
            given["coordinate_transformation_mode"] = "align_corners"
        if mode == "cubic":
            given["cubic_coeff_a"] = -0.75
        sides = [new / old for new, old in zip(made, shape[-2:], strict=True)]
        if factors is None and all(side == int(side) or 1 / side == int(1 / side) for side in sides):
            return work.put("Resize", [x, "", work.constant([1.0, 1.0, *sides])], **given)
        sized = [*shape[:2], *(int(side) for side in made)]
        return work.put("Resize", [x, "", "", work.sizes(sized)], sized, **given)

    return emitter


def _many(value: Any, count: int) -> list[int]:
    """One number for each axis."""
    listed: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    return [int(number) for number in (listed if len(listed) == count else [*listed] * count)]
