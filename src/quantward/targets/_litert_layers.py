"""Layers that multiply by stored weights, in the arithmetic that the Plan asks for and a TFLite kernel has.

Three arithmetics: `integer` reads and writes integers, `hybrid` reads floats and rounds each row of them to 8 bits by
itself before it multiplies integers, `float32` widens the weights when the file is loaded. The integers of a weight are
the Plan's own in all three.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from quantward.core.values import Plan, QuantSpec
from quantward.graph.stored import stored_weight, to_integers
from quantward.graph.walk import input_key
from quantward.targets._litert_file import Array, Grid
from quantward.targets._litert_values import CHANNELS_LAST, Sheet, Value, arranged, as_float, in_order, on_grid, refuse

Arithmetic = Literal["integer", "hybrid", "float32"]
Activation = Literal["NONE", "RELU", "RELU_N1_TO_1", "RELU6"]
ACTIVATIONS: dict[Activation, int] = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
SAME, VALID = 0, 1
Inputs = list[Value | int]
TAPS = 25
"""Weights of a depthwise filter up to which XNNPACK has a kernel for it."""


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer of the Plan: its weights, and the grid that its output shall have."""

    plan: Plan
    name: str
    weight: str
    bias: str | None
    want: Grid | None
    activation: Activation = "NONE"

    @property
    def spec(self) -> QuantSpec | None:
        """How the weight is stored."""
        return self.plan.tensors.get(self.weight)


def read(sheet: Sheet, layer: Layer, x: Value) -> tuple[Value, Arithmetic]:
    """What the layer reads, in the form that its arithmetic takes."""
    own, spec = layer.plan.tensors.get(input_key(layer.name)), layer.spec
    if own is not None and not own.dynamic:
        x = on_grid(sheet, x, Grid.of(own), input_key(layer.name))
    if spec is None or spec.format != "integer":
        return as_float(sheet, x), "float32"
    if own is not None and own.dynamic:
        _symmetric(layer, spec)
        return as_float(sheet, x), "hybrid"
    if x.grid is None:
        return x, "float32"
    if layer.want is not None and layer.want.kind == x.grid.kind:
        _symmetric(layer, spec)
        return x, "integer"
    if x.grid.kind == "int16" or np.any(spec.zero_point):
        return as_float(sheet, x), "float32"
    return as_float(sheet, x), "hybrid"


def _symmetric(layer: Layer, spec: QuantSpec) -> None:
    if np.any(spec.zero_point) or not spec.signed:
        raise refuse("weights around zero where a layer multiplies integers", "an affine grid", layer.weight)


def convolution(sheet: Sheet, layer: Layer, x: Value, shape: tuple[int, ...], stride: tuple[int, int],
                padding: tuple[int, int], dilation: tuple[int, int], groups: int) -> Value:  # fmt: skip
    """CONV_2D, or DEPTHWISE_CONV_2D where each filter reads one channel; writes (n, channels, rows, columns)."""
    x, arithmetic = read(sheet, layer, arranged(sheet, x, CHANNELS_LAST))
    weight = layer.plan.weights[layer.weight]
    depthwise = groups > 1 and weight.shape[1] == 1
    rows, columns = weight.shape[2:]
    if depthwise and rows * columns > TAPS >= rows and stride == dilation == (1, 1):
        return _in_strips(sheet, layer, as_float(sheet, x), shape, padding, weight.shape[0] // groups)
    x, edges = padded(sheet, layer.name, x, shape, weight.shape[2:], stride, padding, dilation)
    stored = _weight(sheet, layer, arithmetic, (1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
    made = sheet.value(layer.name, shape, CHANNELS_LAST, _written(layer, arithmetic))
    options: dict[str, Any] = {
        "padding": edges,
        "strideH": stride[0],
        "strideW": stride[1],
        "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1],
        "fusedActivationFunction": ACTIVATIONS[layer.activation],
    }
    if depthwise:
        options["depthMultiplier"] = weight.shape[0] // groups
    inputs: Inputs = [x, stored, _bias(sheet, layer, arithmetic, x)]
    op = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    return sheet.run(op, inputs, made, _kernel(sheet, layer, arithmetic, x), **options)


def _in_strips(sheet: Sheet, layer: Layer, x: Value, shape: tuple[int, ...], padding: tuple[int, int],
               multiplier: int) -> Value:  # fmt: skip
    """A depthwise convolution with a large window as the sum of some with few columns each, in float32, since partial
    sums have no grid: on 7 x 7 windows an eighth of the time that XNNPACK takes for the whole, in floats or not."""
    rows, columns = layer.plan.weights[layer.weight].shape[2:]
    x, _ = padded(sheet, layer.name, x, shape, (rows, columns), (1, 1), padding, (1, 1), explicit=True)
    width, found = TAPS // rows, None
    for start in range(0, columns, width):
        part = slice(start, min(start + width, columns))
        seen = (*x.shape[:3], shape[3] + part.stop - part.start - 1)
        begin = sheet.whole_numbers([0, 0, start, 0])
        strip = sheet.value(f"{layer.name}/strip", seen, CHANNELS_LAST)
        sheet.run("SLICE", [x, begin, sheet.whole_numbers(strip.lies)], strip)
        stored = _weight(sheet, layer, "float32", (1, 2, 3, 0), part)
        bias = _bias(sheet, layer if start == 0 else replace(layer, bias=None), "float32", strip)
        made = sheet.value(f"{layer.name}/sum", shape, CHANNELS_LAST)
        sheet.run("DEPTHWISE_CONV_2D", [strip, stored, bias], made, padding=VALID, strideH=1, strideW=1,
                  dilationHFactor=1, dilationWFactor=1, depthMultiplier=multiplier)  # fmt: skip
        if found is not None:
            clamp = ACTIVATIONS[layer.activation] if part.stop == columns else 0
            both = sheet.value(layer.name, shape, CHANNELS_LAST)
            made = sheet.run("ADD", [found, made], both, fusedActivationFunction=clamp)
        found = made
    assert found is not None
    return found


def linear(sheet: Sheet, layer: Layer, x: Value, shape: tuple[int, ...]) -> Value:
    """FULLY_CONNECTED over the last axis; the axes before it may lie in any order."""
    last = len(x.shape) - 1
    x, arithmetic = read(sheet, layer, x if x.order[-1] == last else in_order(sheet, x))
    stored = _weight(sheet, layer, arithmetic, (0, 1))
    made = sheet.value(layer.name, shape, x.order, _written(layer, arithmetic))
    options: dict[str, Any] = {
        "fusedActivationFunction": ACTIVATIONS[layer.activation],
        "keepNumDims": last > 1,
        "asymmetricQuantizeInputs": arithmetic == "hybrid",
    }
    inputs: Inputs = [x, stored, _bias(sheet, layer, arithmetic, x)]
    return sheet.run("FULLY_CONNECTED", inputs, made, _kernel(sheet, layer, arithmetic, x), **options)


def per_channel(sheet: Sheet, name: str, x: Value, factor: Array, shift: Array, want: Grid | None,
                activation: Activation) -> Value:  # fmt: skip
    """factor x + shift with one pair a channel, as a depthwise convolution with a single weight: one rounding, and the
    kernel that every runtime has. In integers the weight is -127, 0 or 127, so its scale holds the factor exactly."""
    x = arranged(sheet, x, CHANNELS_LAST)
    factor, shift = np.asarray(factor, np.float64), np.asarray(shift, np.float64)
    options: dict[str, Any] = {"padding": VALID, "strideH": 1, "strideW": 1, "dilationHFactor": 1,
                               "dilationWFactor": 1, "depthMultiplier": 1,
                               "fusedActivationFunction": ACTIVATIONS[activation]}  # fmt: skip
    flat = (1, 1, 1, len(factor))
    if x.grid is None or want is None or x.grid.kind != want.kind:
        x = as_float(sheet, x)
        inputs: Inputs = [x, sheet.floats(f"{name}/factor", factor.reshape(flat)), sheet.floats(f"{name}/shift", shift)]
        return sheet.run("DEPTHWISE_CONV_2D", inputs, sheet.value(name, x.shape, x.order), **options)
    step = np.maximum(np.abs(factor) / 127, np.abs(shift) / (x.grid.scale * 2.0**30))
    scale = np.where(step > 0, step, 2.0**-24).astype(np.float32)
    whole = np.rint(factor / scale)
    weight = sheet.draft.constant(f"{name}/factor", whole.reshape(flat), "int8", scale, axis=3)
    inputs = [x, weight, _whole_bias(sheet, f"{name}/shift", shift, x.grid, scale)]
    made = sheet.value(name, x.shape, x.order, want.whole)
    return sheet.run("DEPTHWISE_CONV_2D", inputs, made, x.grid.kind, **options)


def padded(sheet: Sheet, name: str, x: Value, shape: tuple[int, ...], kernel: tuple[int, ...],
           stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int],
           least: bool = False, explicit: bool = False) -> tuple[Value, int]:  # fmt: skip
    """The input of a window operator (channels last) and TFLite's word for its edges.

    TFLite's SAME puts an odd row of padding behind the image, torch in front of it as well; where the two differ, or
    where it has to be `explicit`, the zeros (or with `least` the smallest values) are written out.
    """
    ends = []
    for axis in (0, 1):
        size, out, step, front = x.shape[2 + axis], shape[2 + axis], stride[axis], padding[axis]
        reach = (out - 1) * step + (kernel[axis] - 1) * dilation[axis] + 1
        ends.append((front, max(reach - size - front, 0), out == -(-size // step), max(reach - size, 0) // 2))
    if not any(front or back for front, back, *_ in ends):
        return x, VALID
    if not explicit and all(fits and front == before for front, _, fits, before in ends):
        return x, SAME
    grown = (*x.shape[:2], *(x.shape[2 + axis] + ends[axis][0] + ends[axis][1] for axis in (0, 1)))
    made = sheet.value(f"{name}/padded", grown, CHANNELS_LAST, x.grid)
    amounts = sheet.whole_numbers([[0, 0], list(ends[0][:2]), list(ends[1][:2]), [0, 0]])
    if not least or (x.grid is not None and x.grid.clips_negatives):
        return sheet.run("PAD", [x, amounts], made), VALID
    if x.grid is None:
        lowest = sheet.draft.constant("lowest", np.asarray(np.finfo(np.float32).min), "float32")
    else:
        lowest = sheet.level(f"{name}/lowest", x.grid.low, x.grid)
    return sheet.run("PADV2", [x, amounts, lowest], made), VALID


def _written(layer: Layer, arithmetic: Arithmetic) -> Grid | None:
    return layer.want.whole if layer.want is not None and arithmetic == "integer" else None


def _kernel(sheet: Sheet, layer: Layer, arithmetic: Arithmetic, x: Value) -> str:
    """What the operator's version depends on."""
    if arithmetic != "float32" and sheet.pack and layer.spec is not None and layer.spec.bits <= 4:
        return "int4"
    return x.grid.kind if arithmetic == "integer" and x.grid is not None else arithmetic


def _weight(sheet: Sheet, layer: Layer, arithmetic: Arithmetic, axes: tuple[int, ...],
            columns: slice = slice(None)) -> int:  # fmt: skip
    """The weight (some `columns` of it) with its axes as the kernel reads them; its integers are the Plan's, moved down
    where unsigned."""
    array, spec = layer.plan.weights[layer.weight], layer.spec
    if spec is None or spec.format == "float16":
        whole = array if spec is None else stored_weight(array, spec)
        return sheet.floats(layer.weight, whole[..., columns].transpose(axes))
    spec, name = _by_row(layer, spec), layer.weight
    kind = "int4" if spec.bits <= 4 and sheet.pack else "int8"
    shift = 0 if spec.signed else 8 if spec.bits <= 4 else 128
    integers = (to_integers(array, spec) - shift)[..., columns].transpose(axes)
    zero = np.asarray(spec.zero_point, np.int64) - shift
    axis = 0 if spec.axis is None else axes.index(spec.axis)
    stored = sheet.draft.constant(name, integers, kind, np.asarray(spec.scale), zero, axis)
    return stored if arithmetic != "float32" else sheet.widened(name, stored, integers.shape, kind)


def _by_row(layer: Layer, spec: QuantSpec) -> QuantSpec:
    """The spec with one scale a row, or one in all.

    Raises Unsupported for weights that TFLite has no type for: scales for blocks of a row, or along another axis.
    """
    if spec.bits > 8:
        raise refuse("weights of 2 to 8 bits", f"{spec.bits}", layer.weight)
    if spec.block is not None and np.shape(spec.scale)[1] == 1:
        return replace(spec, block=None, axis=0, scale=np.asarray(spec.scale)[:, 0],
                       zero_point=np.asarray(spec.zero_point)[:, 0])  # fmt: skip
    if spec.block is not None or spec.axis not in (None, 0):
        raise refuse("one scale a row of weights", "scales for blocks of a row (group=0 has one a row)", layer.weight)
    return spec


def _bias(sheet: Sheet, layer: Layer, arithmetic: Arithmetic, x: Value) -> int:
    """The bias as the kernel adds it: on the grid input scale x weight scale, or in float32; zeros where none is."""
    weight, name = layer.plan.weights[layer.weight], layer.bias or f"{layer.name}/bias"
    bias = layer.plan.weights[layer.bias] if layer.bias else np.zeros(len(weight), np.float32)
    spec = layer.plan.tensors.get(layer.bias) if layer.bias else None
    if arithmetic != "integer" or x.grid is None or layer.spec is None:
        return sheet.floats(name, bias if spec is None else stored_weight(bias, spec))
    return _whole_bias(sheet, name, bias, x.grid, np.asarray(layer.spec.scale, np.float32))


def _whole_bias(sheet: Sheet, name: str, bias: Array, grid: Grid, weight_scale: Array) -> int:
    scale = np.float32(grid.scale) * np.atleast_1d(weight_scale)
    integers = np.rint(np.asarray(bias, np.float64) / scale.astype(np.float64))
    kind = "int32" if grid.kind == "int8" else "int64"
    limit = float(np.iinfo(kind).max) if kind == "int32" else 2.0**62
    return sheet.draft.constant(name, np.clip(integers, -limit, limit), kind, scale)
