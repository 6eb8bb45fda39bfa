"""Layers whose input range is found at run time: quantize, integer product, rescale, bias.

Written out as integer operators, because runtimes only fuse quantize/dequantize pairs whose scales are constants.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from quantward.core.values import Node, Plan
from quantward.graph.walk import bias_of, input_key, layers, weight_of
from quantward.targets._draft import Draft
from quantward.targets._weights import stored_name


def make_dynamic(draft: Draft, plan: Plan) -> None:
    """Rewrite layers whose input range is found at run time: DynamicQuantizeLinear, integer product, rescale, bias."""
    wanted = {
        stored_name(weight_of(layer), plan.tensors[weight_of(layer)]): layer
        for layer in layers(plan.program)
        if (spec := plan.tensors.get(input_key(layer.name))) is not None and spec.dynamic
    }
    producers = {node.output[0]: node for node in draft.nodes}
    written: list[onnx.NodeProto] = []
    quantized: dict[str, tuple[str, str, str]] = {}
    for node in draft.nodes:
        source = producers.get(node.input[1]) if len(node.input) > 1 else None
        layer = wanted.get(source.input[0]) if source is not None and source.op_type == "DequantizeLinear" else None
        if layer is None or source is None or node.op_type not in ("Conv", "Gemm", "MatMul"):
            written.append(node)
            continue
        x = node.input[0]
        if x not in quantized:
            names = (f"{x}:dynamic", f"{x}:dynamic-scale", f"{x}:dynamic-zero")
            written.append(helper.make_node("DynamicQuantizeLinear", [x], list(names), name=f"quantize:{x}"))
            quantized[x] = names
        written += _integer_layer(draft, plan, node, layer, quantized[x])
    draft.nodes = written


def _integer_layer(
    draft: Draft, plan: Plan, node: onnx.NodeProto, layer: Node, x: tuple[str, str, str]
) -> list[onnx.NodeProto]:
    """y = (q_x - z_x) * q_w in int32, then times s_x s_w, plus the float bias."""
    name, output, bias = layer.name, node.output[0], bias_of(layer)
    spec = plan.tensors[weight_of(layer)]
    stored = stored_name(weight_of(layer), spec)
    weight = draft.array(stored)
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
