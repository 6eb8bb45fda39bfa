"""Sums, products, clamps and functions of each entry as TFLite operators.

A step whose inputs and output are on grids runs in integers where TFLite has such a kernel, and in float32 otherwise;
what the Plan stores in integers is rounded behind it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from quantward.targets._litert_file import Grid
from quantward.targets._litert_layers import ACTIVATIONS, Activation
from quantward.targets._litert_step import Lowering, Step, activation_of
from quantward.targets._litert_values import (
    Sheet,
    Value,
    arranged,
    as_float,
    on_grid,
    refuse,
    reshaped,
    same_order,
)

SIGMOID = {"int8": Grid("int8", 1 / 256, -128, 127), "int16": Grid("int16", 1 / 32768, 0, 32767)}
"""The grids that TFLite prescribes for what a sigmoid writes."""


def binary(op: str) -> Lowering:
    """ADD, SUB or MUL of two values, or of a value and a constant."""

    def lower(step: Step) -> Value:
        if step.kwargs.get("alpha", 1) != 1:
            raise refuse("sums of two equal shares", f"alpha={step.kwargs['alpha']}", step.name)
        sheet, pair = step.sheet, list(step.args[:2])
        rank = len(step.shape)
        values = [item for item in pair if isinstance(item, Value)]
        integer = len(values) == 2 and step.want is not None and all(v.grid is not None for v in values)
        if not integer:
            pair = [as_float(sheet, item) if isinstance(item, Value) else item for item in pair]
        pair = [_of_rank(sheet, item, rank, step.name) if isinstance(item, Value) else item for item in pair]
        order = max((item for item in pair if isinstance(item, Value)), key=lambda v: math.prod(v.shape)).order
        inputs: list[Value | int] = []
        for item in pair:
            if isinstance(item, Value):
                inputs.append(arranged(sheet, item, order))
            else:
                array = np.asarray(item, np.float32)
                array = array.reshape((1,) * (rank - array.ndim) + array.shape) if array.ndim else array
                inputs.append(sheet.floats(f"{step.name}/constant", array.transpose(order) if array.ndim else array))
        made = sheet.value(step.name, step.shape, order, step.want.whole if integer and step.want else None)
        return sheet.run(op, inputs, made, fusedActivationFunction=ACTIVATIONS[step.activation])

    return lower


def _of_rank(sheet: Sheet, value: Value, rank: int, name: str) -> Value:
    lacking = rank - len(value.shape)
    return reshaped(sheet, value, (1,) * lacking + value.shape, f"{name}/raised") if lacking else value


def divide(step: Step) -> Value:
    """Division by a constant."""
    if isinstance(step.args[1], Value):
        raise refuse("division by a constant", "a computed divisor", step.name)
    return binary("MUL")(replace(step, args=(step.args[0], 1.0 / np.asarray(step.args[1], np.float64))))  # type: ignore[return-value]


def clamp(step: Step) -> Value:
    """ReLU and its kin; on a grid that holds nothing outside the clamp's range only a rounding is left."""
    kind, x, sheet = activation_of(step.node), step.x, step.sheet
    if kind is None:
        raise refuse("a clamp to 0, to 0 and 6 or to -1 and 1", f"{step.node.args[1:]}", step.name)
    grid = step.want.whole if x.grid is not None and step.want is not None else None
    if grid is not None and grid.clips_negatives and kind in _needless(grid):
        return on_grid(sheet, x, grid, step.name)
    if grid is None:
        x = as_float(sheet, x)
    return sheet.run(kind, [x], sheet.value(step.name, x.shape, x.order, grid))


def extreme(op: str) -> Lowering:
    """MAXIMUM or MINIMUM of two values, or of a value and a constant; on a grid where both sides are on one and the
    result is wanted on it: what is rounded keeps its order."""

    def lower(step: Step) -> Value:
        sheet, x = step.sheet, step.x
        other, grid = step.args[1], None if step.want is None else step.want.whole
        if isinstance(other, Value):
            if x.grid is None or grid is None or other.grid != x.grid or x.grid.whole != grid:
                x, other, grid = as_float(sheet, x), as_float(sheet, other), None
            x, other = same_order(sheet, [_of_rank(sheet, v, len(step.shape), step.name) for v in (x, other)])
            return sheet.run(op, [x, other], sheet.value(step.name, step.shape, x.order, grid))
        if x.grid is None or grid is None or x.grid.whole != grid:
            x, grid = as_float(sheet, x), None
        array = np.asarray(other, np.float64)
        array = array.reshape((1,) * (len(step.shape) - array.ndim) + array.shape).transpose(x.order)
        if grid is None:
            ends = sheet.floats(f"{step.name}/ends", array)
        else:
            level = np.clip(np.rint(array / grid.scale) + grid.zero, grid.low, grid.top)
            ends = sheet.draft.constant(f"{step.name}/ends", level, grid.kind, np.asarray(grid.scale),
                                        np.asarray(grid.zero))  # fmt: skip
        return sheet.run(op, [x, ends], sheet.value(step.name, step.shape, x.order, grid))

    return lower


def _needless(grid: Grid) -> set[Activation]:
    """Clamps from 0 on that do nothing which the ends of the grid do not."""
    return {"RELU", "RELU6"} if grid.scale * (grid.top - grid.zero) <= 6 else {"RELU"}


def function(op: str, **options: Any) -> Lowering:
    """A function of each entry, in float32."""

    def lower(step: Step) -> Value:
        x = as_float(step.sheet, step.x)
        return step.sheet.run(op, [x], step.sheet.value(step.name, x.shape, x.order), **options)

    return lower


def sigmoid(step: Step) -> Value:
    """LOGISTIC; in integers, on the grid that TFLite prescribes, where all that read it round anyway."""
    x, sheet = step.x, step.sheet
    if x.grid is not None and (step.want is not None or step.rounded):
        made = sheet.value(step.name, x.shape, x.order, SIGMOID[x.grid.kind])
        return sheet.run("LOGISTIC", [x], made)
    return function("LOGISTIC")(step)  # type: ignore[return-value]


def silu(step: Step) -> Value:
    """x sigmoid(x), for which TFLite has no operator of its own."""
    gate = sigmoid(replace(step, node=replace(step.node, name=f"{step.name}/gate")))
    return binary("MUL")(replace(step, args=(step.x, gate)))  # type: ignore[return-value]


def gelu(step: Step) -> Value:
    """GELU, exact or by its tanh approximation as the Plan says; in integers a table of 256 values."""
    x, sheet = step.x, step.sheet
    options = {"approximate": step.kwargs.get("approximate", "none") == "tanh"}
    if x.grid is not None and step.want is not None and x.grid.kind == step.want.kind == "int8":
        return sheet.run("GELU", [x], sheet.value(step.name, x.shape, x.order, step.want.whole), **options)
    return function("GELU", **options)(step)  # type: ignore[return-value]
