"""Turns the markers of an exported program into stored integers with their scales (ONNX quantize/dequantize pairs).

Written for what integer runtimes fuse: integer initializers (never a float weight followed by a quantizer, which
keeps the file at its old size), int32 biases on the grid input scale x weight scale, and no clamp between a layer
and its quantizer where the quantizer clamps by itself.
"""

from __future__ import annotations

from collections.abc import Container

import onnx
from onnx import helper, numpy_helper

from quantward.core.errors import Unsupported
from quantward.core.values import Plan
from quantward.graph.to_onnx import DOMAIN, OPSET, tapped
from quantward.graph.walk import input_key, layers, weight_of
from quantward.targets._activations import put_input, put_output
from quantward.targets._blocks import COLUMNS, put_blocks, straighten
from quantward.targets._dialect import CPU, Dialect
from quantward.targets._draft import Draft
from quantward.targets._dynamic import make_dynamic
from quantward.targets._weights import multiplied_as_integers, pack, put_weight


def write_qdq(plan: Plan, dialect: Dialect = CPU) -> onnx.ModelProto:
    """The Plan as an ONNX model: input `input` (batch, 3, size, size) float32, output `logits` (batch, classes).

    Raises Unsupported for specs that have no ONNX integer type here.
    """
    integer = multiplied_as_integers(plan)
    _check(plan, integer)
    model = tapped(plan)
    sources = {node.output[0]: node for node in model.graph.node}
    counts = _reader_counts(model)
    draft = Draft()
    draft.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            kind, _, name = _tap_name(node).partition(":")
            if kind == "weight":
                spec = plan.tensors.get(name)
                if dialect.blocks and spec is not None and spec.block is not None:
                    draft.renamed[node.output[0]] = put_blocks(draft, name, plan.weights[name], spec)
                else:
                    put_weight(draft, plan, node.output[0], name, integer.get(name), dialect)
            elif kind == "output":
                put_output(draft, plan.tensors.get(name), node, name, sources, counts, dialect.integer_clips)
            else:
                put_input(draft, plan.tensors.get(input_key(name)), node, name)
        else:
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            draft.nodes.append(copied)
    _settle_names(draft, model)
    straighten(draft)
    _pool_globally(draft)
    _transpose_weights(draft)
    make_dynamic(draft, plan)
    if dialect.packs:
        pack(draft, plan, integer)
    return _finish(draft, model)


def _check(plan: Plan, integer: Container[str]) -> None:
    """Raise Unsupported for widths that no type holds and for dynamic layers that integer operators cannot run."""
    for name, spec in plan.tensors.items():
        if spec.format != "integer" or spec.kind == "bias":
            continue
        if not (2 <= spec.bits <= 8 or (spec.kind == "activation" and spec.bits == 16)):
            raise Unsupported(
                f"Expected weights of 2 to 8 bits and activations of 2 to 8 or 16; {name!r} has {spec.bits}. "
                "Choose another width or the target simulation."
            )
    for layer in layers(plan.program):
        own = plan.tensors.get(input_key(layer.name))
        if own is not None and own.dynamic and (weight_of(layer) not in integer or own.bits != 8 or own.signed):
            raise Unsupported(
                f"Expected 8-bit dynamic activations only in front of integer weights with one scale a row; "
                f"{layer.name!r} has others. Fix the ranges beforehand or choose the target simulation."
            )


def _tap_name(node: onnx.NodeProto) -> str:
    found: str = next(a.s for a in node.attribute if a.name == "name").decode()
    return found


def _reader_counts(model: onnx.ModelProto) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _settle_names(draft: Draft, model: onnx.ModelProto) -> None:
    """Apply the renaming everywhere, and give the graph's output its name back."""
    for output in model.graph.output:
        produced = draft.renamed.get(output.name, output.name)
        if produced != output.name:
            draft.renamed = {k: output.name if v == produced else v for k, v in draft.renamed.items()}
            draft.renamed[produced] = output.name
    for node in draft.nodes:
        node.input[:] = [draft.renamed.get(name, name) for name in node.input]
        node.output[:] = [draft.renamed.get(name, name) for name in node.output]


def _pool_globally(draft: Draft) -> None:
    """Write a mean over both image axes as GlobalAveragePool, which runtimes have as an integer operator."""
    for node in draft.nodes:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in draft.initializers:
            continue
        axes = sorted(int(a) for a in numpy_helper.to_array(draft.initializers[node.input[1]]).ravel())
        keeps = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        if axes in ([-2, -1], [2, 3]) and keeps:
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]
            node.input[:] = node.input[:1]


def _transpose_weights(draft: Draft) -> None:
    """Store a weight the way it is read: a Transpose between a stored weight and a MatMul would keep it in float."""
    producers = {node.output[0]: node for node in draft.nodes}
    gone = []
    for node in draft.nodes:
        source = producers.get(node.input[0]) if node.op_type == "Transpose" else None
        if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in draft.initializers:
            continue
        if source.output[0].endswith(COLUMNS):  # already lies as it is read
            continue
        order = list(next(a.ints for a in node.attribute if a.name == "perm"))
        stored = numpy_helper.to_array(draft.initializers[source.input[0]])
        draft.constant(source.input[0], stored.transpose(order))
        for attribute in source.attribute:
            if attribute.name == "axis":
                attribute.i = order.index(attribute.i)
        source.output[:] = list(node.output)
        gone.append(id(node))
    draft.nodes = [node for node in draft.nodes if id(node) not in gone]


def _finish(draft: Draft, model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what nothing reads; a name belongs to one tensor, stored or made."""
    needed = {output.name for output in model.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(draft.nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    made = {name for node in kept for name in node.output}  # a weight may lie under the name that it is read back by
    initializers = [tensor for name, tensor in draft.initializers.items() if name in needed - made]
    shapes = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    graph = helper.make_graph(
        kept[::-1],
        "quantward",
        [_bare(shapes[v.name]) for v in model.graph.input],
        [_bare(shapes[v.name]) for v in model.graph.output],
        initializers,
    )
    written = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="quantward")
    written.ir_version = 10
    onnx.checker.check_model(written)
    return written


def _bare(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """Name, type and shape alone; the first axis is called `batch`."""
    dims = [d.dim_value if d.HasField("dim_value") else "batch" for d in value.type.tensor_type.shape.dim]
    return helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, dims)
