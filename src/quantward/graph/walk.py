"""Questions about a program: who reads what, which weight belongs to which step. Plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantward.core.values import Node

CONV = "aten.conv2d.default"
LINEAR = "aten.linear.default"
SQUASHING = {
    "aten.relu.default",
    "aten.silu.default",
    "aten.gelu.default",
    "aten.sigmoid.default",
    "aten.hardswish.default",
    "aten.hardsigmoid.default",
}
"""Functions that flatten part of their input, so that a range may leave that part out at no loss."""

LAYER_NORM = "aten.layer_norm.default"
LAYERS = (CONV, LINEAR)
"""Operators that multiply by a stored weight; nearly all bytes and nearly all time of a classifier are theirs."""


def _leaves(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        if key in value:
            yield value[key]
        elif not {"node", "weight", "dtype", "float"} & set(value):
            for item in value.values():
                yield from _leaves(item, key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item, key)


def weights_of(node: Node) -> list[str]:
    """Names of the weights a node reads, in order."""
    return list(_leaves((node.args, node.kwargs), "weight"))


def inputs_of(node: Node) -> list[str]:
    """Names of the nodes a node reads, in order.

    >>> inputs_of(Node("sum", "aten.add.Tensor", ({"node": "a"}, {"node": "b"})))
    ['a', 'b']
    """
    return list(_leaves((node.args, node.kwargs), "node"))


def readers(program: tuple[Node, ...]) -> dict[str, list[Node]]:
    """Node name -> the nodes that read it, in order of the program."""
    found: dict[str, list[Node]] = {node.name: [] for node in program}
    for node in program:
        for name in inputs_of(node):
            found[name].append(node)
    return found


def layers(program: tuple[Node, ...]) -> list[Node]:
    """The convolutions and linear layers, in order."""
    return [node for node in program if node.op in LAYERS]


def weight_of(layer: Node) -> str:
    """Name of a layer's weight."""
    name: str = layer.args[1]["weight"]
    return name


def bias_of(layer: Node) -> str | None:
    """Name of a layer's bias, or None."""
    if len(layer.args) > 2 and layer.args[2] is not None:
        name: str = layer.args[2]["weight"]
        return name
    return None


def output_axis(layer: Node) -> int:
    """The axis of a layer's output channels: 1 for convolutions, the last for linear layers, whatever they read."""
    return 1 if layer.op == CONV else -1


def input_key(layer: str) -> str:
    """The key of a spec for what one layer reads, while other readers of the same tensor see it unrounded."""
    return f"{layer}:input"
