"""What flows through a TFLite file: tensors in float or integers, whose axes may lie in another order than the Plan's.

The Plan's images are (n, channels, rows, columns), TFLite's kernels want channels last. So each value remembers in
which order its axes lie; a permutation of the Plan only changes that memory, and axes are really moved where a reader
needs them otherwise. In the same way a value is turned into floats or onto another grid only where it is read so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from quantward.core.errors import Unsupported
from quantward.targets._litert_file import Array, Draft, Grid

Order = tuple[int, ...]
CHANNELS_LAST: Order = (0, 2, 3, 1)


@dataclass(frozen=True)
class Value:
    """A tensor of the file that depends on the image. `shape` is as the Plan sees it, axis k in the file is the Plan's
    axis `order[k]`; `grid` is None for float32."""

    tensor: int
    shape: tuple[int, ...]
    order: Order
    grid: Grid | None = None

    @property
    def lies(self) -> tuple[int, ...]:
        """The shape in the file."""
        return tuple(self.shape[axis] for axis in self.order)

    def place(self, axis: int) -> int:
        """Where the Plan's axis (negative ones count from the end) lies in the file."""
        return self.order.index(axis % len(self.shape))


@dataclass
class Sheet:
    """A file in the making: which other forms of its tensors it already has (`made`), which of them lie behind each
    other in one (`joined`). `half` says that constants which half precision holds exactly are to be stored so, `pack`
    that integers of 4 bits lie two in a byte."""

    half: bool = False
    pack: bool = True
    draft: Draft = field(default_factory=Draft)
    made: dict[Any, int] = field(default_factory=dict)
    joined: dict[Any, Value] = field(default_factory=dict)

    def value(self, name: str, shape: Sequence[int], order: Order | None = None, grid: Grid | None = None) -> Value:
        """A new tensor that an operator will write."""
        shape, order = tuple(shape), tuple(range(len(shape))) if order is None else order
        return Value(self.draft.tensor(name, tuple(shape[a] for a in order), grid), shape, order, grid)

    def run(self, op: str, inputs: Sequence[Value | int], output: Value, arithmetic: str | None = None,
            **options: Any) -> Value:  # fmt: skip
        """Append an operator that writes `output`; returns it."""
        numbers = [item.tensor if isinstance(item, Value) else item for item in inputs]
        first = next((item.grid for item in inputs if isinstance(item, Value)), None)
        self.draft.add(op, numbers, [output.tensor], arithmetic or (first.kind if first else "float32"), **options)
        return output

    def floats(self, name: str, array: Array) -> int:
        """A float constant; in half precision, with the step that widens it, where the file is one of halves."""
        array = np.asarray(array, np.float32)
        if self.half and array.size > 1:
            with np.errstate(over="ignore"):
                halved = array.astype(np.float16)
            if np.array_equal(halved.astype(np.float32), array):
                return self.widened(name, self.draft.constant(name, halved, "float16"), array.shape, "float16")
        return self.draft.constant(name, array, "float32")

    def widened(self, name: str, stored: int, shape: tuple[int, ...], kind: str) -> int:
        """A stored constant read back as float32, which the runtime does once, when it loads the file."""
        if stored not in self.made:
            self.made[stored] = self.draft.tensor(f"{name};float32", shape)
            self.draft.add("DEQUANTIZE", [stored], [self.made[stored]], kind)
        return self.made[stored]

    def level(self, name: str, stored: int, grid: Grid) -> int:
        """One integer of a grid as a constant."""
        return self.draft.constant(name, np.asarray(stored), grid.kind, np.asarray(grid.scale), np.asarray(grid.zero))

    def whole_numbers(self, numbers: Sequence[Any]) -> int:
        """A constant of shapes, axes or ends."""
        array = np.asarray(numbers, np.int32)
        return self.draft.constant(f"numbers/{'x'.join(map(str, array.ravel()))}", array, "int32")


def as_float(sheet: Sheet, value: Value) -> Value:
    """The value in float32."""
    if value.grid is None:
        return value
    key = (value.tensor, "float32")
    if key not in sheet.made:
        made = sheet.value(f"{value.tensor}/float32", value.shape, value.order)
        sheet.made[key] = sheet.run("DEQUANTIZE", [value], made).tensor
    return replace(value, tensor=sheet.made[key], grid=None)


def on_grid(sheet: Sheet, value: Value, grid: Grid | None, name: str) -> Value:
    """The value rounded to a grid (itself where there is none); what was finer or coarser is rounded anew."""
    if grid is None or value.grid == grid:
        return value
    if value.grid != grid.whole:
        key = (value.tensor, grid.whole)
        if key not in sheet.made:
            made = sheet.value(f"{name}/stored", value.shape, value.order, grid.whole)
            sheet.made[key] = sheet.run("QUANTIZE", [value], made).tensor
        value = replace(value, tensor=sheet.made[key], grid=grid.whole)
    if grid == grid.whole:
        return value
    key = (value.tensor, grid)
    if key not in sheet.made:
        top = sheet.level(f"{name}/top", grid.top, grid)
        made = sheet.value(f"{name}/narrow", value.shape, value.order, grid.whole)
        sheet.made[key] = sheet.run("MINIMUM", [value, top], made).tensor
    return replace(value, tensor=sheet.made[key], grid=grid)


def arranged(sheet: Sheet, value: Value, order: Order) -> Value:
    """The value with its axes in another order; nothing moves where only axes of length 1 change their place."""
    if value.order == order:
        return value
    key = (value.tensor, value.shape, order)
    if key not in sheet.made:
        made = sheet.value(f"{value.tensor}/arranged", value.shape, order, value.grid)
        if [a for a in order if value.shape[a] > 1] == [a for a in value.order if value.shape[a] > 1]:
            sheet.run("RESHAPE", [value, sheet.whole_numbers(made.lies)], made)
        else:
            moved = [value.order.index(axis) for axis in order]
            sheet.run("TRANSPOSE", [value, sheet.whole_numbers(moved)], made)
        sheet.made[key] = made.tensor
    return replace(value, tensor=sheet.made[key], order=order)


def in_order(sheet: Sheet, value: Value) -> Value:
    """The value with its axes as the Plan has them."""
    return arranged(sheet, value, tuple(range(len(value.shape))))


def reshaped(sheet: Sheet, value: Value, shape: Sequence[int], name: str) -> Value:
    """The value in another shape, without moving its axes where the new shape only splits and joins neighbours."""
    shape = tuple(shape)
    if shape == value.shape:
        return value
    order = carried_order(value.shape, value.order, shape)
    if order is None:
        value, order = in_order(sheet, value), tuple(range(len(shape)))
    made = sheet.value(name, shape, order, value.grid)
    return sheet.run("RESHAPE", [value, sheet.whole_numbers(made.lies)], made)


def carried_order(shape: Sequence[int], order: Order, into: Sequence[int]) -> Order | None:
    """The order of the axes of `into` when a tensor of `shape`, whose axes lie in `order`, is reshaped as it lies; None
    where that would mix up its entries.

    >>> carried_order((1, 8, 4, 4), (0, 2, 3, 1), (1, 8, 16))  # channels last stay last
    (0, 2, 1)
    >>> carried_order((1, 8, 4, 4), (0, 2, 3, 1), (1, 128)) is None
    True
    """
    groups, i, j = [], 0, 0
    while i < len(shape) or j < len(into):
        old, new = list(range(i, min(i + 1, len(shape)))), list(range(j, min(j + 1, len(into))))
        while (left := _size(shape, old)) != (right := _size(into, new)):
            grows, limit = (old, len(shape)) if left < right else (new, len(into))
            following = (i if grows is old else j) + len(grows)
            if following >= limit:
                return None
            grows.append(following)
        groups.append(([axis for axis in old if shape[axis] > 1], new))
        i, j = i + len(old), j + len(new)
    lies = [axis for axis in order if shape[axis] > 1]
    found: list[tuple[float, list[int]]] = []
    at = -1.0
    for old, new in groups:
        if old:
            at = float(lies.index(old[0]))
            if lies[int(at) : int(at) + len(old)] != old:
                return None
        found.append((at, new))
    return tuple(axis for _, new in sorted(found, key=lambda group: group[0]) for axis in new)


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in axes)


def same_order(sheet: Sheet, values: Sequence[Value]) -> list[Value]:
    """Values of one rank with their axes in the order of the first."""
    return [arranged(sheet, value, values[0].order) for value in values]


def refuse(expected: str, got: str, name: str) -> Unsupported:
    """The error for a step that has no counterpart."""
    return Unsupported(f"Expected {expected} for litert; {name!r} has {got}. Use another target or recipe.")
