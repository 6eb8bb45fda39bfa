"""A part of a program, fed with what the steps before it computed: the unchanged beginning of a network runs once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from quantward.core.values import Node, Plan, QuantSpec
from quantward.graph.network import Network
from quantward.graph.simulate import round_to_grid
from quantward.graph.walk import input_key, inputs_of, weights_of


def live(program: tuple[Node, ...], position: int) -> list[str]:
    """Names computed before `position` and read from there on: all that has to be kept to go on later."""
    before = {node.name for node in program[:position]}
    read = dict.fromkeys(name for node in program[position:] for name in inputs_of(node))
    return [name for name in read if name in before]


class Stretch:
    """The steps [start, stop) of a Plan. Called with the values that are live at `start` it returns those that are
    live at `stop`; behind the last step that is the single value `output`, the logits.

    Weights are taken as they are; `tensors` say which activations are rounded on their way (none by default).
    """

    def __init__(self, plan: Plan, start: int, stop: int, tensors: Mapping[str, QuantSpec] | None = None) -> None:
        self.tensors = tensors or {}
        inside = plan.program[start:stop]
        read = {name for node in inside for name in inputs_of(node)}
        self.fed = [name for name in live(plan.program, start) if name in read]
        self.kept = live(plan.program, stop)
        own = {node.name for node in inside}
        self.made = [name for name in self.kept if name in own]
        program = tuple(Node(name, "input") for name in self.fed) + inside
        if not inside or inside[-1].op != "output":
            program += (Node("output", "output", ([{"node": name} for name in self.made],)),)
        weights = {name: plan.weights[name] for node in inside for name in weights_of(node)}
        self.values: dict[str, Any] = {}
        part = replace(plan, program=program, weights=weights)
        self.network = Network(part, on_output=self._output, on_input=self._input).eval()

    def _output(self, name: str, tensor: Tensor) -> Any:
        if name in self.fed:
            return self.values[name]
        spec = self.tensors.get(name)
        return tensor if spec is None else round_to_grid(tensor, spec)

    def _input(self, name: str, tensor: Tensor) -> Tensor:
        spec = self.tensors.get(input_key(name))
        return tensor if spec is None else round_to_grid(tensor, spec)

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        """Run the steps; `values` may hold more than is needed and is left as it is."""
        self.values = values
        found: Any = self.network(values.get("input", torch.empty(0)))
        self.values = {}
        if isinstance(found, Tensor):
            return {"output": found}
        made = dict(zip(self.made, found, strict=True))
        return {name: made.get(name, values.get(name)) for name in self.kept}
