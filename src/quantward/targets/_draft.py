"""The ONNX file while it is being written: nodes in order, initializers by name, and values that got another name."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


@dataclass
class Draft:
    """Grows while the markers of an exported program are replaced one by one.

    `made` remembers what was already written for a key, so that tensors which share a grid share its nodes.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    made: dict[Hashable, str] = field(default_factory=dict)

    def add(self, op: str, inputs: Iterable[str], output: str, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{op}:{output}", **attributes))
        return output

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> str:
        """Store an array under a name; returns the name."""
        self.initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """An initializer's values."""
        found: np.ndarray[Any, Any] = numpy_helper.to_array(self.initializers[name])
        return found

    def known(self, name: str) -> str:
        """The name that a value of the exported program has by now."""
        return self.renamed.get(name, name)
