"""Which function writes which aten operator, and those that work number by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnx import TensorProto

from quantward.core.values import Node
from quantward.graph import _onnx_emit_layers as layers
from quantward.graph import _onnx_emit_moves as moves
from quantward.graph._onnx_writing import Writing, argument, refused

Emitter = Callable[[Writing, Node], str | None]


def _same(op: str, **attributes: Any) -> Emitter:
    """An operator of one tensor that keeps its axes."""
    return lambda work, node: work.put(op, [work.value(node.args[0])], **attributes)


def _pair(op: str, turned: bool = False) -> Emitter:
    """An operator of two tensors, or of a tensor and a number; `turned` reads them from right to left."""

    def emitter(work: Writing, node: Node) -> str:
        factor = node.kwargs.get("alpha", 1)
        if node.kwargs.keys() - {"alpha"} or len(node.args) > 2:
            raise refused(node, f"a plain {op}", dict(node.kwargs))
        first, second = work.alike(node.args[::-1] if turned else node.args, floats=op in ("Div", "Pow"))
        if factor != 1:
            second = work.put("Mul", [second, work.cast(work.constant(factor), work.kinds[second])])
        return work.put(op, [first, second])

    return emitter


def _divided(work: Writing, node: Node) -> str:
    """A quotient, rounded down where it says so."""
    mode = node.kwargs.get("rounding_mode")
    if mode not in (None, "floor"):
        raise refused(node, "a division that rounds down", mode)
    whole = all(work.kinds[name] == TensorProto.INT64 for name in work.alike(node.args[:2]))
    made = work.put("Div", work.alike(node.args[:2], floats=True))
    if mode is None:
        return made
    made = work.put("Floor", [made])
    return work.cast(made, TensorProto.INT64) if whole else made


def _clip(low: float | None, high: float | None) -> Emitter:
    """A clamp; `low` and `high` where the trace leaves an end out."""

    def emitter(work: Writing, node: Node) -> str:
        given = [argument(node, place, node.kwargs.get(name, default))
                 for place, name, default in ((1, "min", low), (2, "max", high))]  # fmt: skip
        inputs = [work.value(node.args[0]), *("" if end is None else work.constant(float(end)) for end in given)]
        return work.put("Clip", inputs if inputs[-1] else inputs[:-1])

    return emitter


def _highest(work: Writing, node: Node) -> str:
    """A clamp that has an upper end only."""
    return work.put("Clip", [work.value(node.args[0]), "", work.constant(float(node.args[1]))])


def _silu(work: Writing, node: Node) -> str:
    x = work.value(node.args[0])
    return work.put("Mul", [x, work.put("Sigmoid", [x])])


def _gelu(work: Writing, node: Node) -> str:
    return work.put("Gelu", [work.value(node.args[0])], approximate=node.kwargs.get("approximate", "none"))


def _slope(op: str) -> Emitter:
    """An activation whose one number is an attribute."""

    def emitter(work: Writing, node: Node) -> str:
        given: dict[str, Any] = {"alpha": float(node.args[1])} if len(node.args) > 1 else {}
        return work.put(op, [work.value(node.args[0])], **given)

    return emitter


def _prelu(work: Writing, node: Node) -> str:
    slopes = work.value(node.args[1])
    shaped = work.reshaped(slopes, [*work.shapes[slopes], *[1] * (work.rank(node.args[0]) - 2)])
    return work.put("PRelu", [work.value(node.args[0]), shaped])


def _softmax(op: str) -> Emitter:
    return lambda work, node: work.put(op, [work.value(node.args[0])], axis=int(node.args[1]))


def _reduce(op: str) -> Emitter:
    """One number for all places of some axes."""
    return lambda work, node: _reduced(work, node, op, argument(node, 1, None), bool(argument(node, 2, False)))


def _reduced(work: Writing, node: Node, op: str, axes: Any, keep: bool) -> str:
    given = [axes] if isinstance(axes, int) else axes or range(work.rank(node.args[0]))
    x = work.value(node.args[0])
    if work.kinds[x] == TensorProto.BOOL:
        x = work.cast(x, TensorProto.INT64)
    return work.put(op, [x, work.numbers(list(given))], keepdims=int(keep))


def _norm(work: Writing, node: Node) -> str:
    """The length of vectors, as the sum of their parts or by Pythagoras."""
    order = argument(node, 1, 2)
    if order not in (1, 2):
        raise refused(node, "a norm of order 1 or 2", order)
    return _reduced(work, node, f"ReduceL{order:.0f}", argument(node, 2, None), bool(argument(node, 3, False)))


def _where(work: Writing, node: Node) -> str:
    return work.put("Where", [work.value(node.args[0]), *work.alike(node.args[1:])])


def _einsum(work: Writing, node: Node) -> str:
    return work.put("Einsum", [work.value(item) for item in node.args[1]], equation=node.args[0])


def _square(work: Writing, node: Node) -> str:
    x = work.value(node.args[0])
    return work.put("Mul", [x, x])


def _rsqrt(work: Writing, node: Node) -> str:
    return work.put("Reciprocal", [work.put("Sqrt", [work.value(node.args[0])])])


def _alias(work: Writing, node: Node) -> str:
    return work.value(node.args[0])


EMITTERS: dict[str, Emitter] = {
    "aten.conv2d.default": layers.conv,
    "aten.linear.default": layers.linear,
    "aten.matmul.default": _pair("MatMul"),
    "aten.batch_norm.default": layers.batch_norm,
    "aten.layer_norm.default": layers.layer_norm,
    "aten.group_norm.default": layers.group_norm,
    "aten.relu.default": _same("Relu"),
    "aten.leaky_relu.default": _slope("LeakyRelu"),
    "aten.elu.default": _slope("Elu"),
    "aten.prelu.default": _prelu,
    "aten.hardtanh.default": _clip(-1.0, 1.0),
    "aten.clamp.default": _clip(None, None),
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
    "aten.max_pool2d.default": layers.max_pool,
    "aten.avg_pool2d.default": layers.average_pool,
    "aten.adaptive_avg_pool2d.default": layers.adaptive_pool,
    "aten.mean.dim": _reduce("ReduceMean"),
    "aten.sum.dim_IntList": _reduce("ReduceSum"),
    "aten.amax.default": _reduce("ReduceMax"),
    "aten.amin.default": _reduce("ReduceMin"),
    "aten.flatten.using_ints": moves.flatten,
    "aten.reshape.default": moves.reshape,
    "aten.expand.default": moves.expand,
    "aten.permute.default": moves.permute,
    "aten.transpose.int": moves.transpose,
    "aten.cat.default": moves.cat,
    "aten.slice.Tensor": moves.cut,
    "aten.select.int": moves.select,
    "aten.index_select.default": moves.index_select,
    "aten.unsqueeze.default": moves.unsqueeze,
    "aten.pad.default": moves.pad,
    "aten.where.self": _where,
    "aten.sym_size.int": moves.count,
    "operator.mul": moves.counted,
    "aten.alias.default": _alias,
    "aten.conv1d.default": layers.conv_line,
    "aten.scaled_dot_product_attention.default": layers.attention,
    "aten.upsample_bilinear2d.vec": layers.resize("linear"),
    "aten.upsample_bicubic2d.vec": layers.resize("cubic"),
    "aten.upsample_nearest2d.vec": layers.resize("nearest"),
    "aten.bmm.default": _pair("MatMul"),
    "aten.einsum.default": _einsum,
    "aten.linalg_vector_norm.default": _norm,
    "aten.clamp_min.default": _clip(None, None),
    "aten.clamp_max.default": _highest,
    "aten.sin.default": _same("Sin"),
    "aten.cos.default": _same("Cos"),
    "aten.bitwise_not.default": _same("Not"),
    "aten.logical_not.default": _same("Not"),
    "aten.rsqrt.default": _rsqrt,
    "aten.square.default": _square,
    "aten.rsub.Scalar": _pair("Sub", turned=True),
    "aten.pow.Scalar": _pair("Pow"),
    "aten.pow.Tensor_Tensor": _pair("Pow"),
    "aten.div.Tensor_mode": _divided,
    "aten.cumsum.default": moves.cumulated,
    "aten.t.default": moves.turn,
    "aten.reshape_as.default": moves.reshape_as,
    "aten.unflatten.int": moves.unflatten,
    "aten.squeeze.dim": moves.squeeze,
    "aten.squeeze.dims": moves.squeeze,
    "aten.expand_as.default": moves.expand_as,
    "aten.repeat.default": moves.repeat,
    "aten.roll.default": moves.roll,
    "aten.stack.default": moves.stack,
    "aten.index.Tensor": moves.index,
    "aten.unbind.int": moves.unbind,
    "aten.split_with_sizes.default": moves.split,
    "aten.split.Tensor": moves.split,
    "aten.chunk.default": moves.chunk,
    "operator.getitem": moves.part,
    "aten.zeros.default": moves.filled(0.0),
    "aten.ones.default": moves.filled(1.0),
    "aten.arange.default": moves.arange,
    "aten.arange.start": moves.arange,
    "aten.to.dtype": moves.convert,
    "aten._assert_tensor_metadata.default": moves.nothing,
    "operator.add": moves.counted,
    "operator.sub": moves.counted,
    "operator.floordiv": moves.counted,
}
