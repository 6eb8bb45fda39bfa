"""ONNX operators that compute, as aten steps: layers, normalisations, activations, pools, sums and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from quantward.graph._onnx_reading import SMALL, Call, Ref

Translator = Callable[[Call], object]


def _windows(call: Call, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations and pads (top, left, bottom, right) of an operator that slides over an image."""
    if len(call.shape(0)) != 4:
        raise call.refused(f"it reads {len(call.shape(0))} axes, not 4")
    strides = call.attribute("strides") or [1, 1]
    dilations = call.attribute("dilations") or [1, 1]
    auto = call.attribute("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return strides, dilations, call.attribute("pads") or [0] * 4, list(kernel)
    pads = [0, 0, 0, 0]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        for axis, size in enumerate(call.shape(0)[2:]):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            total = max((-(-size // strides[axis]) - 1) * strides[axis] + reach - size, 0)
            first = total // 2 if auto == "SAME_UPPER" else total - total // 2
            pads[axis], pads[axis + 2] = first, total - first
    return strides, dilations, pads, list(kernel)


def _padded(call: Call, pads: Sequence[int], value: float = 0.0) -> tuple[Ref, list[int]]:
    """The input and its symmetric padding; what is not symmetric is padded by a step of its own."""
    top, left, bottom, right = pads
    if (top, left) == (bottom, right):
        return call.ref(0), [top, left]
    fill: Any = value if np.isfinite(value) else {"float": str(value)}
    sides = [left, right, top, bottom]
    return call.reading.add("aten.pad.default", [call.ref(0), sides, "constant", fill], f"{call.name}.pad"), [0, 0]


def _layer(call: Call, op: str, x: Ref, weight: Any, bias: Any, *rest: Any) -> None:
    """A convolution or linear layer with weights named after it."""
    name = call.reading.unique(call.name)
    weight_ref = call.reading.keep(f"{name}.weight", weight)
    bias_ref = None if bias is None else call.reading.keep(f"{name}.bias", bias)
    call.put(op, x, weight_ref, bias_ref, *rest, name=name)


def conv(call: Call) -> None:
    """`Conv` of two axes with stored weights."""
    weight = call.constant(1, "weight")
    bias = call.constant(2, "bias") if call.has(2) else None
    strides, dilations, pads, _ = _windows(call, weight.shape[2:])
    x, padding = _padded(call, pads)
    _layer(call, "aten.conv2d.default", x, weight, bias, strides, padding, dilations, call.attribute("group", 1))


def gemm(call: Call) -> None:
    """`Gemm` with a stored second factor: y = alpha x W' + beta c."""
    if call.attribute("transA", 0) or len(call.shape(0)) != 2:
        raise call.refused("its first factor is transposed")
    weight = call.constant(1, "second factor")
    weight = weight if call.attribute("transB", 0) else weight.T
    weight = weight * np.float32(call.attribute("alpha", 1.0))
    bias = None
    if call.has(2):
        added = call.constant(2, "third term") * np.float32(call.attribute("beta", 1.0))
        if added.ndim > 1 and added.shape[:-1] != (1,) * (added.ndim - 1):
            raise call.refused("its third term has rows")
        bias = np.broadcast_to(added.reshape(-1), (len(weight),)).copy()
    _layer(call, "aten.linear.default", call.ref(0), weight, bias)


def matmul(call: Call) -> None:
    """`MatMul`: a linear layer where the second factor is a stored matrix, else a product of two tensors."""
    weight = call.reading.seen.constant(call.input(1))
    if weight is not None and weight.ndim == 2 and len(call.shape(0)) >= 2:
        _layer(call, "aten.linear.default", call.ref(0), weight.T, None)
    else:
        call.put("aten.matmul.default", call.ref(0), call.ref(1))


def batch_norm(call: Call) -> None:
    """`BatchNormalization` as in inference."""
    if call.attribute("training_mode", 0) or not call.attribute("spatial", 1):
        raise call.refused("it is in training mode")
    parts = [call.constant(place, "statistics") for place in range(1, 5)]
    names = ("weight", "bias", "running_mean", "running_var")
    name = call.reading.unique(call.name)
    refs = [call.reading.keep(f"{name}.{part}", array) for part, array in zip(names, parts, strict=True)]
    epsilon = float(call.attribute("epsilon", 1e-5))
    call.put("aten.batch_norm.default", call.ref(0), *refs, False, 0.1, epsilon, False, name=name)


def layer_norm(call: Call) -> None:
    """`LayerNormalization` over the last axes."""
    rank = len(call.shape(0))
    axis = call.attribute("axis", -1) % rank
    sizes = list(call.shape(0)[axis:])
    name = call.reading.unique(call.name)
    refs = [
        call.reading.keep(f"{name}.{part}", np.broadcast_to(call.constant(place, part), sizes).copy())
        if call.has(place) else None
        for place, part in ((1, "weight"), (2, "bias"))
    ]  # fmt: skip
    epsilon = float(call.attribute("epsilon", 1e-5))
    call.put("aten.layer_norm.default", call.ref(0), sizes, *refs, epsilon, False, name=name)


def group_norm(call: Call) -> None:
    """`GroupNormalization` from operator set 21 on, where scales are those of channels; `InstanceNormalization`."""
    channels = call.shape(0)[1]
    if call.op == "GroupNormalization" and call.opset < 21:
        raise call.refused("before operator set 21 its scales were those of groups")
    groups = call.attribute("num_groups", channels) if call.op == "GroupNormalization" else channels
    name = call.reading.unique(call.name)
    refs = [call.reading.keep(f"{name}.{part}", call.constant(place, part))
            for place, part in ((1, "weight"), (2, "bias"))]  # fmt: skip
    epsilon = float(call.attribute("epsilon", 1e-5))
    call.put("aten.group_norm.default", call.ref(0), groups, *refs, epsilon, False, name=name)


def clip(call: Call) -> None:
    """`Clip`, as ReLU or a clamp of two ends where it is one; ends beyond float32 are none."""
    if call.opset < 11:
        low, high = float(call.attribute("min", -np.inf)), float(call.attribute("max", np.inf))
    else:
        ends = [float(call.constant(place, "end")) if call.has(place) else None for place in (1, 2)]
        low = -np.inf if ends[0] is None else ends[0]
        high = np.inf if ends[1] is None else ends[1]
    if low <= -SMALL and high >= SMALL:
        call.same()
    elif low == 0 and high >= SMALL:
        call.put("aten.relu.default", call.ref(0))
    elif low <= -SMALL or high >= SMALL:
        call.put("aten.clamp.default", call.ref(0), None if low <= -SMALL else low, None if high >= SMALL else high)
    else:
        call.put("aten.hardtanh.default", call.ref(0), low, high)


def hard_sigmoid(call: Call) -> None:
    """`HardSigmoid`: max(0, min(1, alpha x + beta))."""
    alpha, beta = float(call.attribute("alpha", 0.2)), float(call.attribute("beta", 0.5))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        call.put("aten.hardsigmoid.default", call.ref(0))
        return
    scaled = call.reading.add("aten.mul.Tensor", [call.ref(0), alpha], f"{call.name}.mul")
    shifted = call.reading.add("aten.add.Tensor", [scaled, beta], f"{call.name}.add")
    call.put("aten.hardtanh.default", shifted, 0.0, 1.0)


def prelu(call: Call) -> None:
    """`PRelu` with one slope in all or one a channel."""
    slope = call.constant(1, "slope").reshape(-1)
    if slope.size not in (1, call.shape(0)[1]):
        raise call.refused("its slopes are not those of channels")
    call.put("aten.prelu.default", call.ref(0), call.reading.keep(f"{call.name}.slope", slope))


def softmax(call: Call) -> None:
    """`Softmax` and `LogSoftmax`; before operator set 13 they ran over all axes from theirs on."""
    rank = len(call.shape(0))
    axis = call.attribute("axis", 1 if call.opset < 13 else -1) % rank
    if call.opset < 13 and any(size != 1 for size in call.shape(0)[axis + 1 :]):
        raise call.refused("it runs over several axes at once")
    op = "aten.softmax.int" if call.op == "Softmax" else "aten.log_softmax.int"
    call.put(op, call.ref(0), axis if axis < rank - 1 else -1)


def arithmetic(op: str) -> Translator:
    """`Add`, `Sub`, `Mul`, `Div`: a number stays a number, and stands second where the order does not matter."""

    def translate(call: Call) -> None:
        first, second = call.number(0), call.number(1)
        if first is not None and second is None and op in ("add", "mul"):
            call.put(f"aten.{op}.Tensor", call.ref(1), first)
        else:
            call.put(f"aten.{op}.Tensor", call.ref(0), call.ref(1) if second is None else second)

    return translate


def power(call: Call) -> None:
    """`Pow` with one stored exponent."""
    exponent = call.number(1)
    if exponent is None and (whole := call.reading.seen.constant(call.input(1))) is not None and whole.size == 1:
        exponent = float(whole.reshape(()))
    if exponent is None:
        raise call.refused("its exponent is not one number")
    call.put("aten.pow.Tensor_Scalar", call.ref(0), int(exponent) if exponent == int(exponent) else exponent)


def several(op: str) -> Translator:
    """`Max`, `Min` and `Sum` of two or more tensors, two by two."""

    def translate(call: Call) -> None:
        total = call.ref(0)
        for place in range(1, len(call.node.input) - 1):
            total = call.reading.add(op, [total, call.ref(place)], call.name)
        if len(call.node.input) == 1:
            call.same()
        else:
            call.put(op, total, call.ref(len(call.node.input) - 1))

    return translate


def max_pool(call: Call) -> None:
    """`MaxPool`; what is not padded evenly is padded with minus infinity."""
    strides, dilations, pads, kernel = _windows(call, call.attribute("kernel_shape"))
    x, padding = _padded(call, pads, -np.inf)
    ceil = bool(call.attribute("ceil_mode", 0))
    call.put("aten.max_pool2d.default", x, kernel, strides, padding, dilations, ceil)


def average_pool(call: Call) -> None:
    """`AveragePool`; padded unevenly only where the zeros count."""
    strides, dilations, pads, kernel = _windows(call, call.attribute("kernel_shape"))
    counted = bool(call.attribute("count_include_pad", 0))
    if dilations != [1, 1] or (not counted and pads[:2] != pads[2:]):
        raise call.refused("it is dilated or padded unevenly")
    x, padding = _padded(call, pads)
    ceil = bool(call.attribute("ceil_mode", 0))
    call.put("aten.avg_pool2d.default", x, kernel, strides, padding, ceil, counted)


def global_average(call: Call) -> None:
    """`GlobalAveragePool` of an image."""
    if len(call.shape(0)) != 4:
        raise call.refused("it reads no image")
    call.put("aten.adaptive_avg_pool2d.default", call.ref(0), [1, 1])


def global_max(call: Call) -> None:
    """`GlobalMaxPool`."""
    call.put("aten.amax.default", call.ref(0), list(range(2, len(call.shape(0)))), True)


def reduce(op: str) -> Translator:
    """`ReduceMean`, `ReduceSum`, `ReduceMax`, `ReduceMin` over stored axes."""

    def translate(call: Call) -> None:
        rank = len(call.shape(0))
        axes = call.attribute("axes")
        if call.has(1):
            axes = [int(axis) for axis in call.constant(1, "axes").ravel()]
        if not axes:
            if call.attribute("noop_with_empty_axes", 0):
                call.same()
                return
            axes = list(range(rank))
        axes = sorted(axis % rank for axis in axes)
        if any(call.counts_images(axis) for axis in axes):
            raise call.refused("it reduces over the images")
        call.put(op, call.ref(0), axes, bool(call.attribute("keepdims", 1)))

    return translate


def plain(op: str, *rest: Any) -> Translator:
    """An operator of one tensor and nothing else."""

    def translate(call: Call) -> None:
        call.put(op, call.ref(0), *rest)

    return translate


def gelu(call: Call) -> None:
    """`Gelu`, exact or by tanh."""
    tanh = call.attribute("approximate", "none") == "tanh"
    call.put("aten.gelu.default", call.ref(0), **({"approximate": "tanh"} if tanh else {}))


LAYERS: dict[str, Translator] = {
    "Conv": conv,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": group_norm,
    "Relu": plain("aten.relu.default"),
    "LeakyRelu": lambda call: call.put("aten.leaky_relu.default", call.ref(0), float(call.attribute("alpha", 0.01))),
    "Elu": lambda call: call.put("aten.elu.default", call.ref(0), float(call.attribute("alpha", 1.0))),
    "PRelu": prelu,
    "Clip": clip,
    "Sigmoid": plain("aten.sigmoid.default"),
    "Tanh": plain("aten.tanh.default"),
    "Softplus": plain("aten.softplus.default"),
    "Mish": plain("aten.mish.default"),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": plain("aten.hardswish.default"),
    "Gelu": gelu,
    "Erf": plain("aten.erf.default"),
    "Exp": plain("aten.exp.default"),
    "Log": plain("aten.log.default"),
    "Sqrt": plain("aten.sqrt.default"),
    "Reciprocal": plain("aten.reciprocal.default"),
    "Abs": plain("aten.abs.default"),
    "Neg": plain("aten.neg.default"),
    "Pow": power,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "Add": arithmetic("add"),
    "Sub": arithmetic("sub"),
    "Mul": arithmetic("mul"),
    "Div": arithmetic("div"),
    "Sum": several("aten.add.Tensor"),
    "Max": several("aten.maximum.default"),
    "Min": several("aten.minimum.default"),
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "ReduceMean": reduce("aten.mean.dim"),
    "ReduceSum": reduce("aten.sum.dim_IntList"),
    "ReduceMax": reduce("aten.amax.default"),
    "ReduceMin": reduce("aten.amin.default"),
}
