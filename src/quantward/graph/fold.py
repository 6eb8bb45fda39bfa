"""Batch normalisation multiplied into the convolution before it: arithmetic on plain data, whoever read the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from quantward.core.values import FloatArray, Node
from quantward.graph.walk import CONV, inputs_of


def fold_batch_norm(
    program: tuple[Node, ...], weights: Mapping[str, FloatArray]
) -> tuple[tuple[Node, ...], dict[str, FloatArray]]:
    """Multiply each batch normalisation that directly follows a convolution into it: w' = w g / sqrt(v + eps),
    b' = beta + (b - mean) g / sqrt(v + eps), in float64. The convolution gets a bias named like its weight."""
    weights = dict(weights)
    readers = Counter(name for node in program for name in inputs_of(node))
    by_name = {node.name: node for node in program}
    folded: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for norm in program:
        if norm.op != "aten.batch_norm.default":
            continue
        conv = by_name.get(norm.args[0].get("node", ""))
        if conv is None or conv.op != CONV or readers[conv.name] != 1:
            continue
        gamma, beta, mean, variance = (
            weights[ref["weight"]].astype(np.float64) if ref is not None else default
            for ref, default in zip(norm.args[1:5], (1.0, 0.0, 0.0, 1.0), strict=True)
        )
        weight_name = conv.args[1]["weight"]
        weight = weights[weight_name].astype(np.float64)
        had = conv.args[2] if len(conv.args) > 2 else None
        bias = weights[had["weight"]].astype(np.float64) if had else np.zeros(len(weight))
        factor = np.broadcast_to(gamma / np.sqrt(variance + norm.args[7]), (len(weight),))
        bias_name = f"{weight_name.removesuffix('.weight')}.bias"
        weights[weight_name] = (weight * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
        weights[bias_name] = (beta + (bias - mean) * factor).astype(np.float32)
        folded[conv.name] = replace(conv, args=(*conv.args[:2], {"weight": bias_name}, *conv.args[3:]))
        renamed[norm.name] = conv.name
    kept = (folded.get(node.name, node) for node in program if node.name not in renamed)
    return tuple(_redirect(node, renamed) for node in kept), weights


def _redirect(node: Node, renamed: Mapping[str, str]) -> Node:
    def swap(value: Any) -> Any:
        if isinstance(value, dict) and "node" in value:
            return {"node": renamed.get(value["node"], value["node"])}
        if isinstance(value, (list, tuple)):
            return type(value)(swap(item) for item in value)
        return value

    return replace(node, args=swap(node.args), kwargs={key: swap(item) for key, item in node.kwargs.items()})
