"""Clamped values moved so that 0 lies in their middle: a signed grid around 0 then loses no bit to a ReLU6.

What leaves a ReLU6 lies in [0, 6] and uses half of a signed grid. A clamp commutes with a shift, clip(y, a, b) - c =
clip(y - c, a - c, b - c), so c can be taken from the bias of the layer before and given back by that of the layer
behind, b' = b + c sum_k w_k: the same function in float, at no cost, and all 256 levels. A layer that pads would
have to pad with -c and not with 0, so only values that unpadded layers read are moved (those before the 1 x 1
convolutions).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from quantward.core.values import FloatArray, Node, Plan, QuantSpec, with_weights
from quantward.graph.stored import stored_weight
from quantward.graph.walk import CONV, LAYERS, bias_of, inputs_of, layers, readers, weight_of

CLAMPS = {"aten.hardtanh.default": (-1.0, 1.0), "aten.relu6.default": (0.0, 6.0)}
"""Clamps with two ends, and the ends that they have where none are given."""


def centred(plan: Plan, integer: Container[str], middle: Callable[[str], float]) -> tuple[Plan, dict[str, float]]:
    """The same function with every clamp that may be moved around `middle(clamp)`, and clamp -> the shift c taken out.

    A clamp may be moved where a layer with a bias feeds it alone, and every reader is a layer in `integer` with a bias
    and without padding.
    """
    read_by, by_name = readers(plan.program), {node.name: node for node in plan.program}
    shifts: dict[str, float] = {}
    weights = {name: array.copy() for name, array in plan.weights.items() if array.ndim == 1}
    for node in plan.program:
        if node.op not in CLAMPS or not _may_move(node, by_name, read_by, integer):
            continue
        shift = middle(node.name)
        before = bias_of(by_name[inputs_of(node)[0]])
        assert before is not None
        weights[before] = (weights[before] - shift).astype(np.float32)
        for layer in read_by[node.name]:
            behind = bias_of(layer)
            assert behind is not None
            weights[behind] = given_back(weights[behind], plan.weights[weight_of(layer)], shift)
        shifts[node.name] = shift
    moved = tuple(_moved(node, shifts.get(node.name, 0.0)) for node in plan.program)
    return with_weights(plan, weights, program=moved), shifts


def given_back(bias: FloatArray, weight: FloatArray, shift: float) -> FloatArray:
    """b + c sum_k w_k, (outputs,)."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    return np.asarray(bias + shift * rows.sum(1), np.float32)


def settled(plan: Plan, before: Plan, tensors: Mapping[str, QuantSpec], shifts: Mapping[str, float]) -> Plan:
    """The plan whose biases give back what its stored weights take out, and not what those of `before` did."""
    changed: dict[str, FloatArray] = {}
    for layer in layers(plan.program):
        shift, spec = shifts.get(inputs_of(layer)[0], 0.0), tensors.get(weight_of(layer))
        bias = bias_of(layer)
        if shift and spec is not None and bias is not None:
            error = stored_weight(plan.weights[weight_of(layer)], spec) - before.weights[weight_of(layer)]
            changed[bias] = given_back(plan.weights[bias], error, shift)
    return with_weights(plan, changed)


def shifted(notes: Mapping[str, Mapping[str, Any]], shifts: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """What was told of each tensor's range, moved with the tensor."""
    ends = ("low", "high", "inner_low", "inner_high")
    return {
        name: {key: value - shifts.get(name, 0.0) if key in ends else value for key, value in told.items()}
        for name, told in notes.items()
    }


def _may_move(
    node: Node, by_name: Mapping[str, Node], read_by: Mapping[str, list[Node]], integer: Container[str]
) -> bool:
    source = by_name[inputs_of(node)[0]]
    if source.op not in LAYERS or bias_of(source) is None or len(read_by[source.name]) != 1:
        return False
    users = read_by[node.name]
    return bool(users) and all(
        user.op in LAYERS
        and user.name in integer
        and user.args[0].get("node") == node.name
        and bias_of(user) is not None
        and not _pads(user)
        for user in users
    )


def _pads(layer: Node) -> bool:
    """Whether a convolution reads beyond the edge of its input."""
    padding: Any = layer.args[4] if layer.op == CONV and len(layer.args) > 4 else layer.kwargs.get("padding", 0)
    if isinstance(padding, str):
        return padding != "valid"
    return bool(np.any(np.asarray(padding)))


def _ends(node: Node) -> tuple[float, float]:
    low, high = CLAMPS[node.op]
    given = [float(item) for item in node.args[1:3]]
    return (given[0] if given else low), (given[1] if len(given) > 1 else high)


def _moved(node: Node, shift: float) -> Node:
    if shift == 0.0:
        return node
    low, high = _ends(node)
    return replace(node, op="aten.hardtanh.default", args=(node.args[0], low - shift, high - shift))
