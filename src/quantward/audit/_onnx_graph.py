"""An ONNX graph to ask questions of: who makes a value, who reads it, and what is constant. Any file, ours or not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused

MOVES = {"Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that only move values, so that a quantizer may stand on either side of them."""


@dataclass(frozen=True)
class Step:
    """One node: its name (or that of its output), operator, inputs, outputs and attributes."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Graph:
    """The steps of a file in order, its constants as ONNX tensors, its inputs and outputs by name, and its opset."""

    steps: tuple[Step, ...]
    constants: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int

    @cached_property
    def makers(self) -> dict[str, Step]:
        """Value -> the step that makes it."""
        return {name: step for step in self.steps for name in step.outputs}

    @cached_property
    def readers(self) -> dict[str, list[Step]]:
        """Value -> the steps that read it."""
        found: dict[str, list[Step]] = defaultdict(list)
        for step in self.steps:
            for name in dict.fromkeys(step.inputs):
                found[name].append(step)
        return found

    def kind(self, name: str) -> str | None:
        """The ONNX type of a constant (`INT8`, `FLOAT`, ...), None for what is computed."""
        import onnx

        if name not in self.constants:
            return None
        found: str = onnx.TensorProto.DataType.Name(self.constants[name].data_type)
        return found

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a constant."""
        return tuple(self.constants[name].dims) if name in self.constants else None

    def array(self, name: str) -> npt.NDArray[Any] | None:
        """A constant's values; narrow floats and 4-bit integers come as float32."""
        from onnx import numpy_helper

        if name not in self.constants:
            return None
        values: npt.NDArray[Any] = numpy_helper.to_array(self.constants[name])
        return values if values.dtype.kind in "iufb" else values.astype(np.float32)

    def origin(self, name: str) -> str:
        """The value that reaches `name` through steps that only move values."""
        step = self.makers.get(name)
        while step is not None and step.op in MOVES and step.inputs:
            name = step.inputs[0]
            step = self.makers.get(name)
        return name


def read_graph(path: Path) -> Graph:
    """Read a file's main graph; Constant nodes count as constants.

    Raises Refused for what is no ONNX file, and for one whose weights lie outside its folder.
    """
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf, ONNX and the file system raise types of their own
        first = str(error).strip().partition("\n")[0]
        raise Refused(f"Expected an ONNX file at {path}; reading it said: {first}. Write the file anew.") from None
    constants: dict[str, Any] = {tensor.name: tensor for tensor in model.graph.initializer}
    steps = []
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = attributes["value"]
            continue
        domain = "" if node.domain == "ai.onnx" else node.domain
        steps.append(Step(node.name or (node.output[0] if node.output else node.op_type), node.op_type, domain,
                          tuple(node.input), tuple(node.output), attributes))  # fmt: skip
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    fed = tuple(value.name for value in model.graph.input if value.name not in constants)
    return Graph(tuple(steps), constants, fed, tuple(value.name for value in model.graph.output), opset)
