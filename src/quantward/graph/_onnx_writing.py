"""An ONNX graph with markers while it is being written step by step: operators in order, arrays, and who is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantward.core.values import Plan

DOMAIN = "quantward"
LARGEST = np.iinfo(np.int64).max


@dataclass
class Writing:
    """The file while it grows: `values` maps a step to its tensor, `ranks` to its number of axes."""

    plan: Plan
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    arrays: list[onnx.TensorProto] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    tapped: dict[str, str] = field(default_factory=dict)
    sizes: set[str] = field(default_factory=set)

    def put(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append an operator; returns the name of its output."""
        output = f"value:{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def tap(self, value: str, name: str) -> str:
        """A marker behind a value."""
        output = f"tap:{name}"
        self.nodes.append(helper.make_node("Tap", [value], [output], domain=DOMAIN))
        self.nodes[-1].attribute.append(helper.make_attribute("name", name))
        return output

    def constant(self, array: Any, kind: Any = np.float32) -> str:
        """A stored array."""
        name = f"constant:{len(self.arrays)}"
        self.arrays.append(numpy_helper.from_array(np.asarray(array, kind), name))
        return name

    def value(self, item: Any) -> str:
        """The tensor of an argument: a step, a weight behind its marker, or a number."""
        if not isinstance(item, dict):
            return self.constant(item)
        if "node" in item:
            return self.values[item["node"]]
        if "float" in item:
            return self.constant(float(item["float"]))
        name = item["weight"]
        if name not in self.tapped:
            array = self.plan.weights[name]
            if np.issubdtype(array.dtype, np.floating):
                self.tapped[name] = self.tap(name, f"weight:{name}")
            else:
                self.tapped[name] = self.constant(array, array.dtype)
        return self.tapped[name]

    def rank(self, item: Any) -> int:
        """How many axes an argument has."""
        if not isinstance(item, dict) or "float" in item:
            return 0
        return self.ranks[item["node"]] if "node" in item else self.plan.weights[item["weight"]].ndim

    def numbers(self, values: Sequence[int]) -> str:
        """Stored integers, as axes, places and sizes are given."""
        return self.constant([min(int(value), LARGEST) for value in values], np.int64)

    def shape(self, sizes: Sequence[Any]) -> str:
        """Sizes, some of which are steps that count images."""
        if not any(isinstance(size, dict) for size in sizes):
            return self.numbers(sizes)
        parts = [self.values[size["node"]] if isinstance(size, dict) else self.numbers([size]) for size in sizes]
        return self.put("Concat", parts, axis=0)
