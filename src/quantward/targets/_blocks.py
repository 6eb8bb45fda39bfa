"""INT4 weights of linear layers in blocks, as accelerators read them: (inputs, outputs), blocks along the inputs.

A weight-only kernel multiplies x by a matrix that it unpacks on the way, and wants that matrix ready to stand on the
right: y = x W with W (K, N) INT4 and a scale for each block of K and each of the N outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from quantward.core.values import QuantSpec
from quantward.graph.stored import to_integers
from quantward.targets._draft import Draft
from quantward.targets._weights import four_bits, stored_name

COLUMNS = ":columns"
"""What the name of a weight that lies as (inputs, outputs) ends with."""


def put_blocks(draft: Draft, name: str, array: npt.NDArray[Any], spec: QuantSpec) -> str:
    """The weight (outputs, inputs) as INT4 (inputs, outputs) behind a blocked DequantizeLinear, then turned back.

    The zero points are left out: they are all 0, and the type is that of the weight. `straighten` takes out the turn.
    """
    stored = stored_name(name, spec)
    draft.initializers[stored] = four_bits(stored, to_integers(array, spec).T, True)
    scale = draft.constant(f"{name}:scale", np.asarray(spec.scale, np.float32).T)
    value = draft.add("DequantizeLinear", [stored, scale], f"{name}{COLUMNS}", axis=0, block_size=spec.block)
    return draft.add("Transpose", [value], name, perm=[1, 0])


def straighten(draft: Draft) -> None:
    """Let every reader of a turned weight read it as it lies: two turns cancel, and Gemm(transB) is MatMul and Add."""
    turns = {
        node.output[0]: node.input[0]
        for node in draft.nodes
        if node.op_type == "Transpose" and node.input[0].endswith(COLUMNS)
    }
    again = {
        node.output[0]: turns[node.input[0]]
        for node in draft.nodes
        if node.op_type == "Transpose" and node.input[0] in turns
    }
    nodes: list[onnx.NodeProto] = []
    for node in draft.nodes:
        if node.output[0] in again:
            continue
        node.input[:] = [again.get(name, name) for name in node.input]
        if node.op_type == "Gemm" and node.input[1] in turns:
            nodes += _as_product(node, turns[node.input[1]])
        else:
            nodes.append(node)
    read = {name for node in nodes for name in node.input}
    draft.nodes = [node for node in nodes if node.output[0] not in turns or node.output[0] in read]


def _as_product(node: onnx.NodeProto, weight: str) -> list[onnx.NodeProto]:
    product = node.output[0] if len(node.input) < 3 else f"{node.output[0]}:product"
    made = [helper.make_node("MatMul", [node.input[0], weight], [product], name=f"MatMul:{product}")]
    if len(node.input) > 2:
        made.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"Add:{node.output[0]}"))
    return made
