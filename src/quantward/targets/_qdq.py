"""Turns the markers of an exported program into stored integers with their scales (ONNX quantize/dequantize pairs).

Written for what integer runtimes fuse: integer initializers (never a float weight followed by a quantizer, which
keeps the file at its old size), int32 biases on the grid input scale x weight scale, and no clamp between a layer
and its quantizer where the quantizer clamps by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantward.core.errors import Unsupported
from quantward.core.values import Plan, QuantSpec
from quantward.graph.stored import to_integers
from quantward.graph.to_onnx import DOMAIN, OPSET, tapped
from quantward.graph.walk import bias_of, input_key, layers, weight_of

_STORED = {
    ("integer", 8, True): (TensorProto.INT8, np.int8),
    ("integer", 8, False): (TensorProto.UINT8, np.uint8),
    ("integer", 32, True): (TensorProto.INT32, np.int32),
}


@dataclass
class _Draft:
    """The file while it is being written: nodes in order, initializers, and renamed values."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def add(self, op: str, inputs: Iterable[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{op}:{output}", **attributes))
        return output

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> str:
        self.initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name


def write_qdq(plan: Plan) -> onnx.ModelProto:
    """The Plan as an ONNX model: input `input` (batch, 3, size, size) float32, output `logits` (batch, classes).

    Raises Unsupported for specs that have no ONNX integer type here.
    """
    for name, spec in plan.tensors.items():
        if spec.format == "integer" and (spec.format, spec.bits, spec.signed) not in _STORED:
            raise Unsupported(
                f"Expected tensors of 8 bits; {name!r} has {spec.bits}. Choose another target or an 8-bit recipe."
            )
    model = tapped(plan)
    sources = {node.output[0]: node for node in model.graph.node}
    counts = _reader_counts(model)
    draft = _Draft()
    draft.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            kind, _, name = _tap_name(node).partition(":")
            if kind == "weight":
                _put_weight(draft, plan, node, name)
            elif kind == "output":
                _put_output(draft, plan.tensors.get(name), node, name, sources, counts)
            else:
                draft.renamed[node.output[0]] = draft.renamed.get(node.input[0], node.input[0])
        else:
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            draft.nodes.append(copied)
    _settle_names(draft, model)
    _pool_globally(draft)
    _transpose_weights(draft)
    _make_dynamic(draft, plan)
    return _finish(draft, model)


def _tap_name(node: onnx.NodeProto) -> str:
    found: str = next(a.s for a in node.attribute if a.name == "name").decode()
    return found


def _reader_counts(model: onnx.ModelProto) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _put_weight(draft: _Draft, plan: Plan, tap: onnx.NodeProto, name: str) -> None:
    """A marker on a weight becomes an initializer in its stored form, then what reads it back as float."""
    array, spec, output = plan.weights[name], plan.tensors.get(name), tap.output[0]
    if spec is None:
        draft.renamed[output] = draft.constant(name, array.astype(np.float32))
    elif spec.format == "float16":
        half = draft.constant(f"{name}:float16", array.astype(np.float16))
        draft.renamed[output] = draft.add("Cast", [half], name, to=TensorProto.FLOAT)
    else:
        _, dtype = _STORED[spec.format, spec.bits, spec.signed]
        stored = draft.constant(f"{name}:int{spec.bits}", to_integers(array, spec).astype(dtype))
        scale = draft.constant(f"{name}:scale", np.asarray(spec.scale, np.float32))
        zero = draft.constant(f"{name}:zero", np.asarray(spec.zero_point).astype(dtype))
        axis = {} if spec.axis is None else {"axis": spec.axis}
        draft.renamed[output] = draft.add("DequantizeLinear", [stored, scale, zero], name, **axis)


def _put_output(
    draft: _Draft,
    spec: QuantSpec | None,
    tap: onnx.NodeProto,
    name: str,
    sources: Mapping[str, onnx.NodeProto],
    counts: Mapping[str, int],
) -> None:
    """A marker on an activation becomes quantize + dequantize, or vanishes."""
    source = draft.renamed.get(tap.input[0], tap.input[0])
    if spec is None or spec.dynamic:
        draft.renamed[tap.output[0]] = source
        return
    if spec.format != "integer":
        raise Unsupported(f"Expected integer activations; {name!r} is {spec.format}. Use float weights only.")
    producer = sources.get(tap.input[0])
    if producer is not None and counts[tap.input[0]] == 1 and _clamps_by_itself(draft, producer, spec):
        draft.nodes = [node for node in draft.nodes if node.output[0] != tap.input[0]]
        source = draft.renamed.get(producer.input[0], producer.input[0])
    _, dtype = _STORED[spec.format, spec.bits, spec.signed]
    scale = draft.constant(f"{name}:scale", np.asarray(spec.scale, np.float32))
    zero = draft.constant(f"{name}:zero", np.asarray(spec.zero_point).astype(dtype))
    stored = draft.add("QuantizeLinear", [source, scale, zero], f"{name}:quantized")
    draft.renamed[tap.output[0]] = draft.add("DequantizeLinear", [stored, scale, zero], f"{name}:value")


def _clamps_by_itself(draft: _Draft, producer: onnx.NodeProto, spec: QuantSpec) -> bool:
    """Whether a quantizer's own range lies inside that of the ReLU or Clip before it, so that the latter can go."""
    low = float((spec.low - spec.zero_point) * spec.scale)
    high = float((spec.high - spec.zero_point) * spec.scale)
    if producer.op_type == "Relu":
        return low >= 0.0
    if producer.op_type != "Clip":
        return False
    bounds = [
        float(numpy_helper.to_array(draft.initializers[name])) if name in draft.initializers else None
        for name in producer.input[1:3]
    ]
    if len(bounds) < 2 or bounds[0] is None or bounds[1] is None:
        return False
    return low >= bounds[0] and high <= bounds[1] * (1 + 1e-6)


def _settle_names(draft: _Draft, model: onnx.ModelProto) -> None:
    """Apply the renaming everywhere, and give the graph's output its name back."""
    for output in model.graph.output:
        produced = draft.renamed.get(output.name, output.name)
        if produced != output.name:
            draft.renamed = {k: output.name if v == produced else v for k, v in draft.renamed.items()}
            draft.renamed[produced] = output.name
    for node in draft.nodes:
        node.input[:] = [draft.renamed.get(name, name) for name in node.input]
        node.output[:] = [draft.renamed.get(name, name) for name in node.output]


def _pool_globally(draft: _Draft) -> None:
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


def _transpose_weights(draft: _Draft) -> None:
    """Store a weight the way it is read: a Transpose between a stored weight and a MatMul would keep it in float."""
    producers = {node.output[0]: node for node in draft.nodes}
    gone = []
    for node in draft.nodes:
        source = producers.get(node.input[0]) if node.op_type == "Transpose" else None
        if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in draft.initializers:
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


def _make_dynamic(draft: _Draft, plan: Plan) -> None:
    """Rewrite layers whose input range is found at run time: DynamicQuantizeLinear, integer product, rescale, bias."""
    wanted = {
        weight_of(layer): layer
        for layer in layers(plan.program)
        if (spec := plan.tensors.get(input_key(layer.name))) is not None and spec.dynamic
    }
    producers = {node.output[0]: node for node in draft.nodes}
    written: list[onnx.NodeProto] = []
    quantized: dict[str, tuple[str, str, str]] = {}
    for node in draft.nodes:
        source = producers.get(node.input[1]) if len(node.input) > 1 else None
        layer = wanted.get(source.output[0]) if source is not None and source.op_type == "DequantizeLinear" else None
        if layer is None or source is None or node.op_type not in ("Conv", "Gemm", "MatMul"):
            written.append(node)
            continue
        x = node.input[0]
        if x not in quantized:
            names = (f"{x}:dynamic", f"{x}:dynamic-scale", f"{x}:dynamic-zero")
            written.append(helper.make_node("DynamicQuantizeLinear", [x], list(names), name=f"quantize:{x}"))
            quantized[x] = names
        written += _integer_layer(draft, plan, node, layer.name, source.input[0], quantized[x], bias_of(layer))
    draft.nodes = written


def _integer_layer(
    draft: _Draft,
    plan: Plan,
    node: onnx.NodeProto,
    layer: str,
    stored: str,
    x: tuple[str, str, str],
    bias: str | None,
) -> list[onnx.NodeProto]:
    """y = (q_x - z_x) * q_w in int32, then times s_x s_w, plus the float bias."""
    name, output = layer, node.output[0]
    weight = numpy_helper.to_array(draft.initializers[stored])
    spec = plan.tensors[next(w for w in (f"{layer}.weight", stored.rpartition(":")[0]) if w in plan.tensors)]
    shape = (1, -1, 1, 1) if node.op_type == "Conv" else (1, -1)
    scale = draft.constant(f"{name}:weight-scale", np.asarray(spec.scale, np.float32).reshape(shape))
    zero = draft.constant(f"{name}:weight-zero", np.zeros((), weight.dtype))
    if node.op_type == "Gemm":
        if next((a.i for a in node.attribute if a.name == "transB"), 0):
            draft.constant(stored, weight.T)
        product = helper.make_node("MatMulInteger", [x[0], stored, x[2], zero], [f"{name}:sum"])
    elif node.op_type == "MatMul":
        product = helper.make_node("MatMulInteger", [x[0], stored, x[2], zero], [f"{name}:sum"])
    else:
        product = helper.make_node("ConvInteger", [x[0], stored, x[2], zero], [f"{name}:sum"])
        product.attribute.extend(node.attribute)
    with_bias = bias is not None and node.op_type != "MatMul"
    rescaled = f"{name}:rescaled" if with_bias else output
    nodes = [
        product,
        helper.make_node("Cast", [f"{name}:sum"], [f"{name}:float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [x[1], scale], [f"{name}:scale-product"]),
        helper.make_node("Mul", [f"{name}:float", f"{name}:scale-product"], [rescaled]),
    ]
    if with_bias and bias is not None:
        shaped = draft.constant(f"{bias}:shaped", plan.weights[bias].astype(np.float32).reshape(shape))
        nodes.append(helper.make_node("Add", [rescaled, shaped], [output]))
    for made in nodes:
        made.name = f"{made.op_type}:{made.output[0]}"
    return nodes


def _finish(draft: _Draft, model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what nothing reads and every note of the exporter (its metadata can outweigh an INT8 network)."""
    needed = {output.name for output in model.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(draft.nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    for node in kept:
        del node.metadata_props[:]
        node.doc_string = ""
    initializers = [tensor for name, tensor in draft.initializers.items() if name in needed]
    for tensor in initializers:
        del tensor.metadata_props[:]
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
