"""What is known of a program before it is lowered, and which of its steps one integer kernel runs together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantward.core.values import Node, QuantSpec
from quantward.graph.archive import Archive
from quantward.graph.network import function
from quantward.graph.walk import CONV, LAYERS, input_key, inputs_of, readers, weight_of
from quantward.runtimes._torch_int8_kernels import NOTHING, Engine, Grid, Post, grid_of

RELU, HARDTANH, ADD = "aten.relu.default", "aten.hardtanh.default", "aten.add.Tensor"
NORM = "aten.batch_norm.default"
CLAMPS = {RELU, HARDTANH, "aten.relu6.default"}


@dataclass(frozen=True, eq=False)
class Facts:
    """A program with what its steps ask about: nodes by name, readers, grids of activations, shapes for one image."""

    archive: Archive
    by_name: Mapping[str, Node]
    read_by: Mapping[str, list[Node]]
    grids: Mapping[str, Grid]
    shapes: Mapping[str, tuple[int, ...]]

    def source(self, layer: Node) -> QuantSpec | None:
        """What an integer layer reads; None for a layer whose weight is left in float."""
        tensors = self.archive.tensors
        if weight_of(layer) not in tensors:
            return None
        return tensors.get(input_key(layer.name), tensors.get(layer.args[0]["node"]))

    def only_reader(self, node: Node) -> Node | None:
        """The node behind one that nothing else reads."""
        users = self.read_by[node.name]
        return users[0] if len(users) == 1 and users[0].op != "output" else None


@dataclass(frozen=True, eq=False)
class Group:
    """A step and what its kernel computes behind it (nothing, where `last` is `first`); `last` names the value."""

    first: Node
    last: Node
    post: Post = NOTHING
    clamp: tuple[float, float] | None = None


def facts_of(archive: Archive) -> Facts:
    """Look through a program once."""
    grids = {
        node.name: grid_of(spec)
        for node in archive.program
        if (spec := archive.tensors.get(node.name)) is not None and not spec.dynamic
    }
    by_name = {node.name: node for node in archive.program}
    return Facts(archive, by_name, readers(archive.program), grids, _shapes(archive))


def groups_of(facts: Facts, engine: Engine, fused: bool) -> dict[str, Group]:
    """Last node -> group: every integer layer with its activation, and sums and normalisations with their ReLU.

    With `fused`, a rounding between the two is left out; without, it keeps them apart.
    """
    found: dict[str, Group] = {}
    for node in facts.archive.program:
        group = None
        if node.op in LAYERS and facts.source(node) is not None:
            group = _from_layer(facts, node, engine, fused)
        elif is_sum(node) or (node.op == NORM and len(facts.shapes.get(node.name, ())) == 4):
            group = _with_relu(facts, node, fused)
        if group is not None:
            found[group.last.name] = group
    return found


def _from_layer(facts: Facts, layer: Node, engine: Engine, fused: bool) -> Group:
    alone, after, source = Group(layer, layer), facts.only_reader(layer), facts.source(layer)
    if after is None or (layer.name in facts.grids and not fused) or (source is not None and source.dynamic):
        return alone
    if after.op in CLAMPS and after.name in facts.grids:
        return Group(layer, after, clamp=ends(after))
    post = _post(after, layer) if engine == "onednn" else None
    return Group(layer, after, post) if post is not None else alone


def _with_relu(facts: Facts, node: Node, fused: bool) -> Group | None:
    after = facts.only_reader(node)
    if after is None or after.op != RELU or (node.name in facts.grids and not fused):
        return None
    whole = after.name in facts.grids and all(name in facts.grids for name in inputs_of(node))
    return Group(node, after, clamp=ends(after)) if whole else None


def is_sum(node: Node) -> bool:
    """Whether a node adds two different activations, without a factor."""
    return node.op == ADD and len(node.args) == 2 and len(set(inputs_of(node))) == 2 and not node.kwargs


def ends(node: Node) -> tuple[float, float]:
    """What a clamp holds its input to."""
    if node.op == HARDTANH:
        given = [float(end) for end in node.args[1:3]]
        return (given[0], given[1]) if len(given) == 2 else (-1.0, 1.0)
    return 0.0, 6.0 if "relu6" in node.op else math.inf


def _post(node: Node, layer: Node) -> Post | None:
    """The activation of a node as oneDNN computes it behind a layer; None for what it does not."""
    if node.op == "aten.silu.default" and layer.op == CONV:
        return Post("swish")
    if node.op == "aten.gelu.default" and layer.op != CONV:
        return Post("gelu", variant=str(node.kwargs.get("approximate", "none")))
    return None


def _shapes(archive: Archive) -> dict[str, tuple[int, ...]]:
    """Node name -> the shape of its value for one image; empty where the program does not run on shapes alone."""
    size = archive.preprocess.size
    values: dict[str, Any] = {}

    def value(item: Any) -> Any:
        if isinstance(item, dict):
            if "node" in item:
                return values[item["node"]]
            if "weight" in item:
                array = archive.arrays[item["weight"]]
                kind = torch.float32 if item["weight"] in archive.tensors else torch.from_numpy(array[:0]).dtype
                return torch.empty(array.shape, dtype=kind, device="meta")
            return getattr(torch, item["dtype"]) if "dtype" in item else float(item["float"])
        return [value(part) for part in item] if isinstance(item, (list, tuple)) else item

    try:
        for node in archive.program:
            if node.op == "input":
                values[node.name] = torch.empty(1, 3, size, size, device="meta")
            elif node.op != "output":
                kwargs = {key: value(item) for key, item in node.kwargs.items()}
                values[node.name] = function(node.op)(*[value(item) for item in node.args], **kwargs)
    except (RuntimeError, NotImplementedError, IndexError):
        return {}
    return {name: tuple(made.shape) for name, made in values.items() if isinstance(made, Tensor)}
