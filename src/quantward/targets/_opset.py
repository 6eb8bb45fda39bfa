"""The oldest opset in which a finished file says the same: devices in the field read no newer one.

An export comes in one opset for all, and a Jetson with an older JetPack reads older ones only. Most operators did not
change in between or only took more types; a few are told in other words (`ReduceMean`, `Gelu`). What cannot be told
keeps the file at the opset that it needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

GREW = {
    "Add", "AveragePool", "Cast", "Constant", "DequantizeLinear", "Div", "Expand", "Flatten", "GatherND", "Identity",
    "MaxPool", "Mul", "Pad", "QuantizeLinear", "Relu", "Reshape", "Shape", "Size", "Split", "Squeeze", "Sub",
    "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators whose newer versions only took more types, inputs or attributes: a node without these says the same."""

PADS = {b"constant", b"reflect", b"edge"}
"""The modes of Pad before opset 19."""


def oldest(model: onnx.ModelProto, floor: int) -> onnx.ModelProto:
    """The same model at the lowest opset from `floor` up to its own that can express it, checked by ONNX.

    Only the default domain is touched. A model that is at or below `floor` comes back as it is.
    """
    own = next(entry.version for entry in model.opset_import if entry.domain == "")
    for opset in range(floor, own):
        told = _told(model, own, opset)
        if told is not None:
            return told
    return model


def _told(model: onnx.ModelProto, own: int, opset: int) -> onnx.ModelProto | None:
    """The model in an older opset, None where a node needs a newer one."""
    written = onnx.ModelProto()
    written.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.domain or _version(node.op_type, own) == _version(node.op_type, opset):
            nodes.append(node)
        elif node.op_type == "ReduceMean" and opset < 18 and node.input[1:2] and node.input[1] in constants:
            nodes.append(_with_axes(node, constants))
        elif node.op_type == "Gelu" and _attributes(node).get("approximate", b"none") == b"none":
            nodes += _gelu(node, written)
        elif node.op_type in GREW and _fits(node, opset):
            nodes.append(node)
        else:
            return None
    del written.graph.node[:]
    written.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in written.graph.initializer if tensor.name in read]
    del written.graph.initializer[:]
    written.graph.initializer.extend(kept)
    del written.opset_import[:]
    written.opset_import.append(helper.make_opsetid("", opset))
    written.ir_version = helper.find_min_ir_version_for(written.opset_import)
    try:
        onnx.checker.check_model(written, full_check=True)
    except Exception:  # ONNX's checker and its shape inference raise types of their own; all mean: not in this opset
        return None
    return written


def _version(op: str, opset: int) -> int | None:
    """The opset in which the operator got the form it has at `opset`; None where there is none yet."""
    try:
        found: int = defs.get_schema(op, opset).since_version
    except defs.SchemaError:
        return None
    return found


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _fits(node: onnx.NodeProto, opset: int) -> bool:
    """Whether a node of an operator that only grew has nothing that came after `opset`."""
    schema, has = defs.get_schema(node.op_type, opset), _attributes(node)
    if node.op_type == "Pad" and opset < 19 and has.get("mode", b"constant") not in PADS:
        return False
    return len(node.input) <= schema.max_input and set(has) <= set(schema.attributes)


def _with_axes(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> onnx.NodeProto:
    """ReduceMean with its axes as an attribute, where opset 18 made them an input."""
    axes = [int(a) for a in np.ravel(numpy_helper.to_array(constants[node.input[1]]))]
    keeps = int(_attributes(node).get("keepdims", 1))
    return helper.make_node("ReduceMean", [node.input[0]], list(node.output), name=node.name, axes=axes, keepdims=keeps)


def _gelu(node: onnx.NodeProto, model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """x (1 + erf(x / sqrt(2))) / 2, which fusers know as GELU, where opset 20 made it an operator."""
    x, y = node.input[0], node.output[0]
    held = {tensor.name for tensor in model.graph.initializer}
    for name, value in (("gelu:root", math.sqrt(2.0)), ("gelu:one", 1.0), ("gelu:half", 0.5)):
        if name not in held:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    steps = (
        ("Div", [x, "gelu:root"], f"{y}:scaled"),
        ("Erf", [f"{y}:scaled"], f"{y}:erf"),
        ("Add", [f"{y}:erf", "gelu:one"], f"{y}:raised"),
        ("Mul", [x, f"{y}:raised"], f"{y}:product"),
        ("Mul", [f"{y}:product", "gelu:half"], y),
    )
    return [helper.make_node(op, inputs, [output], name=f"{op}:{output}") for op, inputs, output in steps]
