"""Steps that only move values, in float or in integers; permutations leave no trace in the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from quantward.targets._litert_step import Step
from quantward.targets._litert_values import Order, Sheet, Value, as_float, on_grid, refuse, reshaped, same_order

TOGETHER = 4
"""Values that one CONCATENATION joins: XNNPACK leaves larger ones to a slower kernel."""


def concatenate(step: Step) -> Value:
    """CONCATENATION; in integers all parts are first brought onto the grid of the whole."""
    sheet, parts = step.sheet, list(step.args[0])
    axis = int(step.get(1, "dim", 0)) % len(step.shape)
    values = [part for part in parts if isinstance(part, Value)]
    grids = {value.grid for value in values}
    grid = step.want if None not in grids and len(values) == len(parts) else None
    if grid is None and len(grids) == 1 and len(values) == len(parts):
        grid = values[0].grid
    fit = [on_grid(sheet, v, grid, f"{step.name}/part") if grid else as_float(sheet, v) for v in values]
    if len(parts) == 1:
        return fit[0]
    fit = same_order(sheet, fit)
    order, remaining = fit[0].order, iter(fit)
    whole = [next(remaining) if isinstance(part, Value) else _constant(step, part, order) for part in parts]
    return _joined(sheet, whole, axis, step.name)


def _constant(step: Step, part: Any, order: Order) -> Value:
    array = np.asarray(part, np.float32)
    return Value(step.sheet.floats(f"{step.name}/constant", array.transpose(order)), array.shape, order)


def _joined(sheet: Sheet, values: list[Value], axis: int, name: str) -> Value:
    """Values behind each other, a few at a time, beginning with what an earlier concatenation has joined already: a
    densely connected network adds one part to the same parts again and again."""
    names, parts = tuple(value.tensor for value in values), values
    for count in range(len(names), 1, -1):
        if (axis, names[:count]) in sheet.joined:
            parts = [sheet.joined[axis, names[:count]], *values[count:]]
            break
    while len(parts) > 1:
        parts = [_concatenation(sheet, parts[i : i + TOGETHER], axis, name) for i in range(0, len(parts), TOGETHER)]
    sheet.joined[axis, names] = parts[0]
    return parts[0]


def _concatenation(sheet: Sheet, values: list[Value], axis: int, name: str) -> Value:
    if len(values) == 1:
        return values[0]
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    made = sheet.value(name, shape, values[0].order, values[0].grid)
    return sheet.run("CONCATENATION", values, made, axis=values[0].place(axis))


def reshape(step: Step) -> Value:
    """Any operator that only gives the axes other sizes."""
    return reshaped(step.sheet, step.x, step.shape, step.name)


def permute(step: Step) -> Value:
    """Axes in another order: nothing happens in the file."""
    wanted = [int(a) % len(step.shape) for a in step.args[1]]
    return permuted(step.x, wanted)


def transpose(step: Step) -> Value:
    """Two axes change places."""
    axes = list(range(len(step.shape)))
    one, two = (int(a) % len(axes) for a in step.args[1:3])
    axes[one], axes[two] = axes[two], axes[one]
    return permuted(step.x, axes)


def permuted(x: Value, axes: Sequence[int]) -> Value:
    """The value with its axes in another order, without a trace in the file."""
    shape = tuple(x.shape[a] for a in axes)
    return replace(x, shape=shape, order=tuple(list(axes).index(a) for a in x.order))


def slice_(step: Step) -> Value:
    """Some of the entries along one axis."""
    axis, size = int(step.get(1, "dim", 0)) % len(step.shape), 0
    size = step.x.shape[axis]
    start, every = step.get(2, "start", None) or 0, int(step.get(4, "step", 1))
    if every != 1:
        raise refuse("slices of neighbours", f"a step of {every}", step.name)
    start = max(start + size, 0) if start < 0 else min(start, size)
    return _sliced(step.sheet, step.x, axis, start, step.shape[axis], step.name)


def _sliced(sheet: Sheet, x: Value, axis: int, start: int, count: int, name: str) -> Value:
    if count == x.shape[axis]:
        return x
    shape = tuple(count if a == axis else size for a, size in enumerate(x.shape))
    begin = sheet.whole_numbers([start if a == axis else 0 for a in x.order])
    made = sheet.value(name, shape, x.order, x.grid)
    return sheet.run("SLICE", [x, begin, sheet.whole_numbers(made.lies)], made)


def select(step: Step) -> Value:
    """One entry along an axis, which goes away."""
    return _selected(step, step.x, int(step.args[1]) % len(step.x.shape), int(step.args[2]), step.name)


def _selected(step: Step, x: Value, axis: int, index: int, name: str) -> Value:
    one = _sliced(step.sheet, x, axis, index % x.shape[axis], 1, f"{name}/{index}")
    shape = tuple(size for a, size in enumerate(x.shape) if a != axis)
    order = tuple(a - (a > axis) for a in one.order if a != axis)
    made = step.sheet.value(name, shape, order, x.grid)
    return step.sheet.run("RESHAPE", [one, step.sheet.whole_numbers(made.lies)], made)


def unbind(step: Step) -> tuple[Value, ...]:
    """Every entry along an axis by itself."""
    axis = int(step.get(1, "dim", 0)) % len(step.x.shape)
    count = step.x.shape[axis]
    return tuple(_selected(step, step.x, axis, i, f"{step.name}/{i}") for i in range(count))


def parts(step: Step) -> tuple[Value, ...]:
    """Pieces along an axis: torch's split (of given sizes) and chunk (into so many)."""
    axis = int(step.get(2, "dim", 0)) % len(step.x.shape)
    size, given = step.x.shape[axis], step.args[1]
    each = -(-size // int(given)) if "chunk" in step.node.op else given
    sizes = list(each) if isinstance(each, (list, tuple)) else [min(each, size - at) for at in range(0, size, each)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(_sliced(step.sheet, step.x, axis, start, count, f"{step.name}/{i}")
                 for i, (start, count) in enumerate(zip(starts, sizes, strict=True)))  # fmt: skip


def roll(step: Step) -> Value:
    """Entries pushed along axes, those that fall off at one end come back at the other."""
    x, sheet = step.x, step.sheet
    for amount, axis in zip(step.args[1], step.args[2], strict=True):
        axis, size = int(axis) % len(x.shape), x.shape[int(axis)]
        cut = -int(amount) % size
        if cut:
            tail = _sliced(sheet, x, axis, cut, size - cut, f"{step.name}/tail")
            head = _sliced(sheet, x, axis, 0, cut, f"{step.name}/head")
            made = sheet.value(step.name, x.shape, x.order, x.grid)
            x = sheet.run("CONCATENATION", [tail, head], made, axis=x.order.index(axis))
    return x


def pad(step: Step) -> Value:
    """Zeros around the last axes."""
    x, amounts = step.x, [int(a) for a in step.args[1]]
    if step.get(2, "mode", "constant") != "constant" or (step.get(3, "value", None) or 0) != 0 or min(amounts) < 0:
        raise refuse("padding with zeros", f"{step.node.args[1:]}", step.name)
    if not any(amounts):
        return x
    ends = [[0, 0] for _ in x.shape]
    for i in range(len(amounts) // 2):
        ends[-1 - i] = amounts[2 * i : 2 * i + 2]
    made = step.sheet.value(step.name, step.shape, x.order, x.grid)
    return step.sheet.run("PAD", [x, step.sheet.whole_numbers([ends[a] for a in x.order])], made)


def unchanged(step: Step) -> Value:
    """Operators that hand on what they read."""
    if step.shape != step.x.shape:
        raise refuse("a value of unchanged shape", f"{step.x.shape} expanded to {step.shape}", step.name)
    return step.x
