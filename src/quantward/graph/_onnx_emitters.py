"""One function an aten operator: the ONNX operators that compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from quantward.core.errors import Unsupported
from quantward.core.values import Node
from quantward.graph._onnx_writing import LARGEST, Writing

Emitter = Callable[[Writing, Node], str]


def _same(op: str, **attributes: Any) -> Emitter:
    """An operator of one tensor that keeps its axes."""

    def emitter(work: Writing, node: Node) -> str:
        work.ranks[node.name] = work.rank(node.args[0])
        return work.put(op, [work.value(node.args[0])], **attributes)

    return emitter


def _pair(op: str) -> Emitter:
    """An operator of two tensors, or of a tensor and a number."""

    def emitter(work: Writing, node: Node) -> str:
        if node.kwargs:
            raise Unsupported(f"Expected a plain {op} at {node.name!r}; got {dict(node.kwargs)}. Install torch.")
        work.ranks[node.name] = max(work.rank(item) for item in node.args[:2])
        return work.put(op, [work.value(item) for item in node.args[:2]])

    return emitter


def _layer_input(work: Writing, node: Node) -> str:
    return work.tap(work.value(node.args[0]), f"input:{node.name}")


def _argument(node: Node, place: int, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else default


def _conv(work: Writing, node: Node) -> str:
    strides, pads, dilations = (list(_argument(node, place, default))
                                for place, default in ((3, [1, 1]), (4, [0, 0]), (5, [1, 1])))  # fmt: skip
    inputs = [_layer_input(work, node), work.value(node.args[1])]
    if _argument(node, 2, None) is not None:
        inputs.append(work.value(node.args[2]))
    work.ranks[node.name] = 4
    return work.put("Conv", inputs, strides=strides, pads=[*pads, *pads], dilations=dilations,
                    group=int(_argument(node, 6, 1)))  # fmt: skip


def _linear(work: Writing, node: Node) -> str:
    x, weight = _layer_input(work, node), work.value(node.args[1])
    bias = _argument(node, 2, None)
    rank = work.ranks[node.name] = work.rank(node.args[0])
    if rank == 2:
        return work.put("Gemm", [x, weight, *([] if bias is None else [work.value(bias)])], transB=1)
    product = work.put("MatMul", [x, work.put("Transpose", [weight], perm=[1, 0])])
    return product if bias is None else work.put("Add", [product, work.value(bias)])


def _batch_norm(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0])
    return work.put("BatchNormalization", [work.value(item) for item in node.args[:5]], epsilon=float(node.args[7]))


def _layer_norm(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0])
    sizes, weight, bias = node.args[1], _argument(node, 2, None), _argument(node, 3, None)
    inputs = [work.value(node.args[0]), work.constant(np.ones(sizes)) if weight is None else work.value(weight)]
    if bias is not None:
        inputs.append(work.value(bias))
    return work.put("LayerNormalization", inputs, axis=-len(sizes), epsilon=float(_argument(node, 4, 1e-5)))


def _group_norm(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0])
    inputs = [work.value(item) for item in (node.args[0], *node.args[2:4])]
    return work.put("GroupNormalization", inputs, num_groups=int(node.args[1]), epsilon=float(_argument(node, 4, 1e-5)))


def _clip(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0])
    ends = [_argument(node, place, None) for place in (1, 2)]
    inputs = [work.value(node.args[0]), *("" if end is None else work.constant(float(end)) for end in ends)]
    return work.put("Clip", inputs if inputs[-1] else inputs[:-1])


def _silu(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0])
    x = work.value(node.args[0])
    return work.put("Mul", [x, work.put("Sigmoid", [x])])


def _gelu(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0])
    return work.put("Gelu", [work.value(node.args[0])], approximate=node.kwargs.get("approximate", "none"))


def _slope(op: str) -> Emitter:
    """An activation whose one number is an attribute."""

    def emitter(work: Writing, node: Node) -> str:
        work.ranks[node.name] = work.rank(node.args[0])
        given = {"alpha": float(node.args[1])} if len(node.args) > 1 else {}
        return work.put(op, [work.value(node.args[0])], **given)

    return emitter


def _prelu(work: Writing, node: Node) -> str:
    rank = work.ranks[node.name] = work.rank(node.args[0])
    slope = work.put("Reshape", [work.value(node.args[1]), work.numbers([-1] + [1] * (rank - 2))])
    return work.put("PRelu", [work.value(node.args[0]), slope])


def _softmax(op: str) -> Emitter:
    def emitter(work: Writing, node: Node) -> str:
        work.ranks[node.name] = work.rank(node.args[0])
        return work.put(op, [work.value(node.args[0])], axis=int(node.args[1]))

    return emitter


def _max_pool(work: Writing, node: Node) -> str:
    return _pool(work, node, "MaxPool", dilations=_two(_argument(node, 4, [1, 1])), ceil_mode=_argument(node, 5, False))


def _average_pool(work: Writing, node: Node) -> str:
    if _argument(node, 6, None) is not None:
        raise Unsupported(f"Expected a plain average at {node.name!r}; got a divisor of its own. Install torch.")
    return _pool(work, node, "AveragePool", ceil_mode=_argument(node, 4, False),
                 count_include_pad=_argument(node, 5, True))  # fmt: skip


def _pool(work: Writing, node: Node, op: str, **attributes: Any) -> str:
    kernel, pads = _two(node.args[1]), _two(_argument(node, 3, [0, 0]))
    strides = _two(_argument(node, 2, None) or kernel)
    work.ranks[node.name] = 4
    given = {name: int(value) if isinstance(value, bool) else value for name, value in attributes.items()}
    return work.put(op, [work.value(node.args[0])], kernel_shape=kernel, strides=strides, pads=[*pads, *pads], **given)


def _two(value: Any) -> list[int]:
    return [int(v) for v in (value if len(value) == 2 else [*value, *value])]


def _adaptive(work: Writing, node: Node) -> str:
    if list(node.args[1]) != [1, 1]:
        raise Unsupported(f"Expected a pool to one pixel at {node.name!r}; got {node.args[1]}. Install torch.")
    work.ranks[node.name] = 4
    return work.put("GlobalAveragePool", [work.value(node.args[0])])


def _reduce(op: str) -> Emitter:
    def emitter(work: Writing, node: Node) -> str:
        axes, keep = list(node.args[1]), bool(_argument(node, 2, False))
        work.ranks[node.name] = work.rank(node.args[0]) - (0 if keep else len(axes))
        return work.put(op, [work.value(node.args[0]), work.numbers(axes)], keepdims=int(keep))

    return emitter


def _flatten(work: Writing, node: Node) -> str:
    rank, start = work.rank(node.args[0]), int(_argument(node, 1, 0))
    end = int(_argument(node, 2, -1)) % rank
    if start == 1 and end == rank - 1:
        work.ranks[node.name] = 2
        return work.put("Flatten", [work.value(node.args[0])], axis=1)
    sizes = [0] * start + [-1]
    if end != rank - 1:
        raise Unsupported(f"Expected the last axes to be flattened at {node.name!r}; got others. Install torch.")
    work.ranks[node.name] = start + 1
    return work.put("Reshape", [work.value(node.args[0]), work.numbers(sizes)])


def _reshape(work: Writing, node: Node) -> str:
    work.ranks[node.name] = len(node.args[1])
    return work.put("Reshape", [work.value(node.args[0]), work.shape(node.args[1])], allowzero=1)


def _expand(work: Writing, node: Node) -> str:
    work.ranks[node.name] = len(node.args[1])
    sizes = [1 if size == -1 else size for size in node.args[1]]
    return work.put("Expand", [work.value(node.args[0]), work.shape(sizes)])


def _permute(work: Writing, node: Node) -> str:
    rank = work.ranks[node.name] = work.rank(node.args[0])
    return work.put("Transpose", [work.value(node.args[0])], perm=[axis % rank for axis in node.args[1]])


def _transpose(work: Writing, node: Node) -> str:
    rank = work.ranks[node.name] = work.rank(node.args[0])
    order = list(range(rank))
    first, second = node.args[1] % rank, node.args[2] % rank
    order[first], order[second] = second, first
    return work.put("Transpose", [work.value(node.args[0])], perm=order)


def _cat(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0][0])
    return work.put("Concat", [work.value(item) for item in node.args[0]], axis=int(_argument(node, 1, 0)))


def _slice(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0])
    axis, start, end, step = (_argument(node, place, default) for place, default in ((1, 0), (2, 0), (3, None), (4, 1)))
    ends = [work.numbers([number]) for number in (start or 0, LARGEST if end is None else end, axis, step)]
    return work.put("Slice", [work.value(node.args[0]), *ends])


def _select(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0]) - 1
    place = work.constant(int(node.args[2]), np.int64)
    return work.put("Gather", [work.value(node.args[0]), place], axis=int(node.args[1]))


def _index_select(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0])
    return work.put("Gather", [work.value(node.args[0]), work.value(node.args[2])], axis=int(node.args[1]))


def _unsqueeze(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0]) + 1
    return work.put("Unsqueeze", [work.value(node.args[0]), work.numbers([node.args[1]])])


def _pad(work: Writing, node: Node) -> str:
    rank = work.ranks[node.name] = work.rank(node.args[0])
    sides, mode = list(node.args[1]), _argument(node, 2, "constant")
    count = len(sides) // 2
    amounts = [sides[2 * k + end] for end in (0, 1) for k in range(count)]
    axes = work.numbers([rank - 1 - k for k in range(count)])
    inputs = [work.value(node.args[0]), work.numbers(amounts)]
    if mode == "constant":
        inputs.append(work.value(_argument(node, 3, None) or 0.0))
    else:
        inputs.append("")
    return work.put("Pad", [*inputs, axes], mode={"replicate": "edge"}.get(mode, mode))


def _where(work: Writing, node: Node) -> str:
    work.ranks[node.name] = max(work.rank(item) for item in node.args)
    return work.put("Where", [work.value(item) for item in node.args])


def _count(work: Writing, node: Node) -> str:
    """The number of images, as a list of one."""
    made = work.put("Shape", [work.value(node.args[0])], start=int(node.args[1]), end=int(node.args[1]) + 1)
    work.sizes.add(made)
    return made


def _times(work: Writing, node: Node) -> str:
    parts = [work.values[item["node"]] if isinstance(item, dict) else work.numbers([item]) for item in node.args]
    made = work.put("Mul", parts)
    work.sizes.add(made)
    return made


def _alias(work: Writing, node: Node) -> str:
    work.ranks[node.name] = work.rank(node.args[0])
    return work.put("Identity", [work.value(node.args[0])])


EMITTERS: dict[str, Emitter] = {
    "aten.conv2d.default": _conv,
    "aten.linear.default": _linear,
    "aten.matmul.default": _pair("MatMul"),
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.group_norm.default": _group_norm,
    "aten.relu.default": _same("Relu"),
    "aten.leaky_relu.default": _slope("LeakyRelu"),
    "aten.elu.default": _slope("Elu"),
    "aten.prelu.default": _prelu,
    "aten.hardtanh.default": _clip,
    "aten.clamp.default": _clip,
    "aten.sigmoid.default": _same("Sigmoid"),
    "aten.tanh.default": _same("Tanh"),
    "aten.softplus.default": _same("Softplus"),
    "aten.mish.default": _same("Mish"),
    "aten.hardsigmoid.default": _same("HardSigmoid", alpha=1 / 6, beta=0.5),
    "aten.hardswish.default": _same("HardSwish"),
    "aten.silu.default": _silu,
    "aten.gelu.default": _gelu,
    "aten.erf.default": _same("Erf"),
    "aten.exp.default": _same("Exp"),
    "aten.log.default": _same("Log"),
    "aten.sqrt.default": _same("Sqrt"),
    "aten.reciprocal.default": _same("Reciprocal"),
    "aten.abs.default": _same("Abs"),
    "aten.neg.default": _same("Neg"),
    "aten.pow.Tensor_Scalar": _pair("Pow"),
    "aten.softmax.int": _softmax("Softmax"),
    "aten.log_softmax.int": _softmax("LogSoftmax"),
    "aten.add.Tensor": _pair("Add"),
    "aten.sub.Tensor": _pair("Sub"),
    "aten.mul.Tensor": _pair("Mul"),
    "aten.div.Tensor": _pair("Div"),
    "aten.maximum.default": _pair("Max"),
    "aten.minimum.default": _pair("Min"),
    "aten.max_pool2d.default": _max_pool,
    "aten.avg_pool2d.default": _average_pool,
    "aten.adaptive_avg_pool2d.default": _adaptive,
    "aten.mean.dim": _reduce("ReduceMean"),
    "aten.sum.dim_IntList": _reduce("ReduceSum"),
    "aten.amax.default": _reduce("ReduceMax"),
    "aten.amin.default": _reduce("ReduceMin"),
    "aten.flatten.using_ints": _flatten,
    "aten.reshape.default": _reshape,
    "aten.expand.default": _expand,
    "aten.permute.default": _permute,
    "aten.transpose.int": _transpose,
    "aten.cat.default": _cat,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.index_select.default": _index_select,
    "aten.unsqueeze.default": _unsqueeze,
    "aten.pad.default": _pad,
    "aten.where.self": _where,
    "aten.sym_size.int": _count,
    "operator.mul": _times,
    "aten.alias.default": _alias,
}
