"""The list of calls while it grows, and the slots in which its values lie.

A value may be held in three forms: quantized, the floats it stands for, and the floats it was rounded from (`raw`). A
form is made when a step first asks for it, so that no value is rounded or read back in vain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from quantward.graph.walk import CONV
from quantward.runtimes._torch_int8_groups import Facts
from quantward.runtimes._torch_int8_kernels import Grid, Kernel

Form = Literal["raw", "float", "quantized"]
Values = list[Any]
Call = Callable[[Values], Any]


class Step(NamedTuple):
    """One call: what it runs, the slot of its result, and slots (while the list grows: those it reads; then: those
    that no later step reads)."""

    operator: str
    call: Call
    out: int
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Steps:
    """The calls in order, on as many values as there are `slots`. `layers` counts the arithmetic of layers."""

    steps: tuple[Step, ...]
    slots: int
    source: int
    result: int
    layers: Mapping[str, int]

    @property
    def operators(self) -> dict[str, int]:
        """How often each operator runs for one batch."""
        return dict(Counter(step.operator for step in self.steps))

    def __call__(self, images: Tensor) -> Tensor:
        """(n, 3, size, size) float32 -> logits (n, classes)."""
        values: Values = [None] * self.slots
        values[self.source] = images
        for _, call, out, done in self.steps:
            values[out] = call(values)
            for slot in done:
                values[slot] = None
        result: Tensor = values[self.result]
        return result


@dataclass
class Draft:
    """Steps in the order they were asked for, and where each form of each value lies."""

    facts: Facts
    forms: dict[tuple[str, Form | Grid], int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    layers: Counter[str] = field(default_factory=Counter)
    count: int = 0

    def slot(self) -> int:
        """A new place for a value."""
        self.count += 1
        return self.count - 1

    def call(self, operator: str, call: Call, reads: list[int], name: str, form: Form | Grid | None = None) -> int:
        """Append a call on all values; its result is `name` in a form (as computed where none is given)."""
        out = self.forms[name, form or "raw"] = self.slot()
        self.steps.append(Step(operator, call, out, tuple(reads)))
        return out

    def emit(self, operator: str, kernel: Kernel, reads: list[int], name: str, form: Form | Grid | None = None) -> int:
        """Append a call of the tensors in some slots."""
        if len(reads) == 1:
            (only,) = reads
            return self.call(operator, lambda values: kernel(values[only]), reads, name, form)
        if len(reads) == 2:
            first, second = reads
            return self.call(operator, lambda values: kernel(values[first], values[second]), reads, name, form)
        return self.call(operator, lambda values: kernel(*[values[slot] for slot in reads]), reads, name, form)

    def has(self, name: str, form: Form) -> bool:
        """Whether a value already lies in a form."""
        return (name, form) in self.forms

    def find(self, name: str, form: Form | Grid) -> int:
        """The slot of a value in a form, or rounded to a grid; made now where it is not there yet."""
        grid = self.facts.grids.get(name)
        if form == grid:
            form = "quantized"
        if form == "float" and grid is None:
            form = "raw"
        if (name, form) in self.forms:
            return self.forms[name, form]
        if form == "quantized" and grid is not None:
            return self._quantize(self.forms[name, "raw"], grid, name, "quantized")
        if form == "float":
            return self.emit("dequantize", Tensor.dequantize, [self.find(name, "quantized")], name, "float")
        if isinstance(form, Grid):
            return self._quantize(self.find(name, "float"), form, name, form)
        raise KeyError(name)

    def rounded(self, name: str, grid: Grid) -> int:
        """The slot of a value as floats that lie on a grid."""
        if self.facts.grids.get(name) == grid:
            return self.find(name, "float")
        stored = self.find(name, grid)
        return self.emit("dequantize", Tensor.dequantize, [stored], f"{name}:rounded:{self.count}")

    def _quantize(self, slot: int, grid: Grid, name: str, form: Form | Grid) -> int:
        image = any(node.op == CONV for node in self.facts.read_by.get(name, ()))
        scale, zero = grid

        def kernel(x: Tensor) -> Tensor:
            if image:  # what integer convolutions read; nothing to do for all but the first
                x = x.contiguous(memory_format=torch.channels_last)
            return torch.quantize_per_tensor(x, scale, zero, torch.quint8)

        return self.emit("quantize", kernel, [slot], name, form)

    def finish(self, source: int, result: int) -> Steps:
        """The steps, each with the slots that no later one reads: memory that is still warm is used again."""
        seen, done = {result}, []
        for step in reversed(self.steps):
            last = tuple(slot for slot in dict.fromkeys((*step.slots, step.out)) if slot not in seen)
            seen.update(last)
            done.append(step._replace(slots=last))
        return Steps(tuple(done[::-1]), self.count, source, result, dict(self.layers))
