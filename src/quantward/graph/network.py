"""A Plan's program as a torch module: runs node by node and lets a caller touch every tensor on its way.

Three hooks (weights, outputs, and the input of each layer) are enough for calibration, fake quantization, bias
correction, export and gradients, so each of these is a function over the same network instead of a rewritten graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quantward.core.errors import Unsupported
from quantward.core.values import Node, Plan
from quantward.graph.walk import LAYERS, inputs_of

Hook = Callable[[str, Tensor], Tensor]


class Network(nn.Module):
    """The program of a Plan with its float weights as parameters; `tensors` of the Plan are not looked at here.

    `on_weight(weight name, tensor)`, `on_output(node name, tensor)` and `on_input(layer name, tensor)` (the first
    argument of a convolution or linear layer) may replace what flows; all default to nothing.
    """

    def __init__(
        self,
        plan: Plan,
        on_weight: Hook | None = None,
        on_output: Hook | None = None,
        on_input: Hook | None = None,
    ) -> None:
        super().__init__()
        self.program = plan.program
        self.keys = {name: name.replace(".", "/") for name in plan.weights}
        for name, array in plan.weights.items():
            tensor = torch.from_numpy(np.asarray(array, order="C").copy())
            if tensor.is_floating_point():
                self.register_parameter(self.keys[name], nn.Parameter(tensor))
            else:
                self.register_buffer(self.keys[name], tensor)
        self.on_weight = on_weight
        self.on_output = on_output
        self.on_input = on_input
        self.last_use = _last_uses(plan.program)

    def weight(self, name: str) -> Tensor:
        """One weight by its name in the Plan."""
        found: Tensor = getattr(self, self.keys[name])
        return found

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, size, size) -> logits (n, classes)."""
        values: dict[str, Any] = {}
        for position, node in enumerate(self.program):
            if node.op == "output":
                result: Tensor = self._value(node.args[0], values)
                return result
            if node.op == "input":
                value: Any = images
            else:
                args = [self._value(item, values) for item in node.args]
                kwargs = {key: self._value(item, values) for key, item in node.kwargs.items()}
                if self.on_input is not None and node.op in LAYERS:
                    args[0] = self.on_input(node.name, args[0])
                value = function(node.op)(*args, **kwargs)
            if self.on_output is not None and isinstance(value, Tensor):
                value = self.on_output(node.name, value)
            values[node.name] = value
            for name in self.last_use.get(position, ()):
                del values[name]
        raise Unsupported("Expected a program that ends with an output; this one does not. Capture it again.")

    def _value(self, item: Any, values: dict[str, Any]) -> Any:
        if isinstance(item, dict):
            if "node" in item:
                return values[item["node"]]
            if "weight" in item:
                tensor = self.weight(item["weight"])
                return tensor if self.on_weight is None else self.on_weight(item["weight"], tensor)
            if "dtype" in item:
                return getattr(torch, item["dtype"])
            if "float" in item:
                return float(item["float"])
        if isinstance(item, (list, tuple)):
            return [self._value(part, values) for part in item]
        return item


@cache
def function(op: str) -> Callable[..., Any]:
    """The callable behind an operator name such as `aten.conv2d.default` or `operator.getitem`.

    Raises Unsupported for a name that is neither; nothing else can be reached from a Plan file.
    """
    space, _, rest = op.partition(".")
    try:
        if space == "operator":
            found: Callable[..., Any] = {"getitem": operator.getitem, "mul": operator.mul, "add": operator.add,
                                         "sub": operator.sub, "floordiv": operator.floordiv}[rest]  # fmt: skip
            return found
        if space == "aten":
            base, _, overload = rest.partition(".")
            found = getattr(getattr(torch.ops.aten, base), overload)
            return found
    except (KeyError, AttributeError):
        pass
    raise Unsupported(f"Expected an aten or arithmetic operator; got {op!r}. Check where the Plan comes from.")


def _last_uses(program: tuple[Node, ...]) -> dict[int, list[str]]:
    """Position -> names not read after it, so that activations are freed as soon as possible."""
    last: dict[str, int] = {}
    for position, node in enumerate(program):
        last[node.name] = position
        for name in inputs_of(node):
            last[name] = position
    uses: dict[int, list[str]] = {}
    for name, position in last.items():
        uses.setdefault(position, []).append(name)
    return uses
