"""One step of a program on its way into a TFLite file: the node, what it reads, and the grid of its output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quantward.core.values import Node, Plan
from quantward.targets._litert_file import Grid
from quantward.targets._litert_layers import Activation
from quantward.targets._litert_values import Sheet, Value, refuse


@dataclass(frozen=True)
class Step:
    """One node of the program with what it reads: Values that depend on the image, arrays and plain numbers else.
    `want` is the grid of its output in the Plan, `shape` the output's shape, `rounded` whether all readers round."""

    sheet: Sheet
    plan: Plan
    node: Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    want: Grid | None = None
    activation: Activation = "NONE"
    rounded: bool = False

    @property
    def name(self) -> str:
        """The node's own name."""
        return self.node.name

    def get(self, position: int, key: str, default: Any) -> Any:
        """An argument by place or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(key, default)

    @property
    def x(self) -> Value:
        """The first argument, where that is what the step works on."""
        if not isinstance(self.args[0], Value):
            raise refuse("an image-dependent first input", f"a constant in {self.node.op}", self.name)
        return self.args[0]


Lowering = Callable[[Step], "Value | tuple[Value, ...]"]


def pair(given: Any) -> tuple[int, int]:
    """A size for rows and columns, given as one number or two."""
    sizes = [int(given)] * 2 if isinstance(given, (int, float)) else [int(v) for v in given]
    return (sizes[0], sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def activation_of(node: Node) -> Activation | None:
    """The fused activation that a clamp can become."""
    if node.op == "aten.relu.default":
        return "RELU"
    if node.op == "aten.relu6.default":
        return "RELU6"
    if node.op == "aten.hardtanh.default":
        ends = tuple(float(v) for v in (*node.args[1:], *(-1.0, 1.0)[len(node.args) - 1 :]))
        known: dict[tuple[float, ...], Activation] = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
        return known.get(ends)
    return None
