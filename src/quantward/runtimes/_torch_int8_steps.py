"""A program as a list of calls: what runs as an integer kernel, what that computes on the way, and what stays float.

Everything is decided when the file is opened, so that a call only walks a list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from quantward.core.values import Node, QuantSpec
from quantward.graph.archive import Archive
from quantward.graph.network import function
from quantward.graph.walk import LAYERS, input_key, inputs_of
from quantward.runtimes._torch_int8_groups import CLAMPS, Facts, Group, ends, facts_of, groups_of, is_sum
from quantward.runtimes._torch_int8_kernels import (
    NOTHING,
    Engine,
    Grid,
    Kernel,
    Layer,
    able,
    dynamic,
    graded,
    grid_of,
    layer_of,
    plain,
    pointwise,
    to_floats,
    to_quantized,
)
from quantward.runtimes._torch_int8_values import Call, Draft, Steps

MOVES = {"aten.flatten.using_ints", "aten.reshape.default", "aten.permute.default", "aten.transpose.int",
         "aten.unsqueeze.default", "aten.squeeze.dim", "aten.slice.Tensor", "aten.select.int"}  # fmt: skip
"""Operators that only move values; quantized tensors go through them as they are."""
POOLS = {"aten.max_pool2d.default", "aten.adaptive_avg_pool2d.default", "aten.avg_pool2d.default"}
PRODUCTS = {"aten.matmul.default": 1, "aten.bmm.default": 1, "aten.scaled_dot_product_attention.default": 2,
            "aten.conv2d.padding": 1, "aten.conv1d.default": 1, "aten.addmm.default": 1}  # fmt: skip
"""Operators that multiply and that no recipe quantizes, with how many products each stands for: torch multiplies two
activations as floats."""


def steps_of(archive: Archive, engine: Engine, fused: bool) -> Steps:
    """The program for one engine. With `fused`, a rounding between two operators that one kernel runs is left out."""
    facts = facts_of(archive)
    weights = {
        name: torch.from_numpy(array) for name, array in archive.arrays.items() if name not in archive.tensors
    }  # fmt: skip
    lowering = _Lowering(facts, engine, Draft(facts), weights)
    groups = groups_of(facts, engine, fused)
    within = {group.first.name for group in groups.values() if group.first is not group.last}
    source = result = 0
    for node in archive.program:
        if node.op == "output":
            result = lowering.draft.find(node.args[0]["node"], "float")
        elif node.op == "input":
            source = lowering.draft.forms[node.name, "raw"] = lowering.draft.slot()
        elif node.name in groups:
            lowering.group(groups[node.name])
        elif node.name not in within:
            lowering.step(node)
    return lowering.draft.finish(source, result)


@dataclass(frozen=True)
class _Lowering:
    """What every step needs to know while the program is walked."""

    facts: Facts
    engine: Engine
    draft: Draft
    weights: dict[str, Tensor]

    def group(self, group: Group) -> None:
        """A step with what its kernel computes behind it."""
        if group.first.op in LAYERS:
            self._layer(group)
        else:
            self._with_relu(group)

    def step(self, node: Node) -> None:
        """A node on its own: with an integer kernel where there is one for its grids, else as floats."""
        if not self._integer_step(node):
            self._float_step(node)

    # Layers

    def _layer(self, group: Group) -> None:
        node, spec = group.first, self.facts.source(group.first)
        assert spec is not None
        layer = layer_of(self.facts.archive, node)
        out = self.facts.grids.get(group.last.name)
        engines: tuple[Engine, ...] = (self.engine, "onednn")
        engine = next((e for e in engines if able(e, layer, spec.dynamic or out is None, spec.dynamic)), None)
        self.draft.layers["float32" if engine is None else "int8"] += 1
        if engine is None:
            self._float_layer(group, layer, spec)
        elif spec.dynamic:
            read = self.draft.find(node.args[0]["node"], "float")
            self.draft.emit(f"{engine}.{_kind(layer)}_dynamic", dynamic(layer, engine), [read], node.name)
        else:
            self._static_layer(group, layer, engine, grid_of(spec), out)

    def _static_layer(self, group: Group, layer: Layer, engine: Engine, source: Grid, out: Grid | None) -> None:
        read, name, clamp = group.first.args[0]["node"], group.last.name, group.clamp
        operator, form = f"{engine}.{_kind(layer)}", None if out is None else "quantized"
        if out is not None and group.post == NOTHING:
            relu = clamp is not None and clamp[0] == 0.0 and out.zero > 0
            kernel = _clamped(to_quantized(layer, engine, relu, out), clamp, out, relu)
            operator += "_relu" * (clamp is not None)
        elif engine == "onednn":
            kernel = pointwise(layer, source, group.post, out, self.facts.shapes.get(read))
            operator += f"_{group.post.name}" * (group.post != NOTHING)
        else:  # the kernel rounds what it reads by itself
            kernel, operator = to_floats(layer, engine, source), f"{operator}_to_float"
            raw = self.draft.has(read, "raw") and self.facts.grids.get(read, source) == source
            self.draft.emit(operator, kernel, [self.draft.find(read, "raw" if raw else "float")], name)
            return
        self.draft.emit(operator, kernel, [self.draft.find(read, source)], name, "quantized" if form else None)

    def _float_layer(self, group: Group, layer: Layer, spec: QuantSpec) -> None:
        """A layer that no kernel at hand runs exactly: its stored weights times the rounded input, as floats."""
        node, weight, bias = group.first, layer.floats(), layer.bias
        read = node.args[0]["node"]
        slot = self.draft.find(read, "float") if spec.dynamic else self.draft.rounded(read, grid_of(spec))
        if layer.conv:
            weight, geometry = weight.contiguous(memory_format=torch.channels_last), layer.geometry
            kernel: Kernel = lambda x: torch.conv2d(x, weight, bias, *geometry)  # noqa: E731
        else:
            kernel = lambda x: torch.nn.functional.linear(x, weight, bias)  # noqa: E731
        self.draft.emit(f"float.{_kind(layer)}", kernel, [slot], node.name)
        if group.last is not node:
            self.step(group.last)

    # Everything else

    def _with_relu(self, group: Group) -> None:
        """A sum or batch normalisation with its ReLU, in one kernel."""
        node, name = group.first, group.last.name
        scale, zero = self.facts.grids[name]
        reads = [self.draft.find(read, "quantized") for read in inputs_of(node)]
        if is_sum(node):
            add = torch.ops.quantized.add_relu.default
            self.draft.emit("quantized.add_relu", lambda a, b: add(a, b, scale, zero), reads, name, "quantized")
            return
        given = [None if item is None else self.weights[item["weight"]] for item in node.args[1:5]]
        eps, norm = node.args[7], torch.ops.quantized.batch_norm2d_relu.default
        self.draft.emit("quantized.batch_norm_relu", lambda x: norm(x, *given, eps, scale, zero), reads, name,
                        "quantized")  # fmt: skip

    def _integer_step(self, node: Node) -> bool:
        """Append the integer kernel of a node whose inputs and output all have grids; False where there is none."""
        out, read = self.facts.grids.get(node.name), inputs_of(node)
        if out is None or not read or not all(self.draft.has(name, "quantized") for name in read):
            return False
        kernel = self._integer_kernel(node, out, all(self.facts.grids[name] == out for name in read))
        if kernel is None:
            return False
        reads = [self.draft.find(name, "quantized") for name in read]
        self.draft.emit(f"quantized.{_short(node)}", kernel, reads, node.name, "quantized")
        return True

    def _integer_kernel(self, node: Node, out: Grid, same: bool) -> Kernel | None:
        """The kernel of a node between grids; many exist only where input and output are on the `same` grid."""
        ops, (scale, zero), count = torch.ops.quantized, out, len(inputs_of(node))
        if is_sum(node):
            return lambda a, b: ops.add.default(a, b, scale, zero)
        if node.op == "aten.mul.Tensor" and count == 2:
            return lambda a, b: ops.mul.default(a, b, scale, zero)
        if node.op == "aten.cat.default" and count == len(node.args[0]):
            dim = node.args[1] if len(node.args) > 1 else 0
            if same:
                return lambda *parts: torch.cat(parts, dim)
            return lambda *parts: ops.cat.default(list(parts), dim, scale, zero)
        if same and node.op in CLAMPS:
            low, high = _integer_ends(ends(node), out)
            return lambda x: graded(plain(x).clamp(low, high), out)
        if same and node.op in MOVES | POOLS and count == 1:
            op, rest = function(node.op), [self._constant(item) for item in node.args[1:]]
            kwargs = {key: self._constant(item) for key, item in node.kwargs.items()}
            return lambda x: op(x, *rest, **kwargs)
        return None

    def _float_step(self, node: Node) -> None:
        reads: list[int] = []
        args = [self._reader(item, reads, self._moves_raw(node)) for item in node.args]
        if node.op in LAYERS:  # kept in float, but what it reads may have a grid of its own
            own = self.facts.archive.tensors.get(input_key(node.name))
            if own is not None and not own.dynamic:
                reads.append(self.draft.rounded(node.args[0]["node"], grid_of(own)))
                args[0] = itemgetter(reads[-1])
        if node.op in LAYERS or node.op in PRODUCTS:
            self.draft.layers["float32"] += PRODUCTS.get(node.op, 1)
        kwargs = {key: self._reader(item, reads) for key, item in node.kwargs.items()}
        op = function(node.op)

        def call(values: list[Any]) -> Any:
            return op(*[read(values) for read in args], **{key: read(values) for key, read in kwargs.items()})

        self.draft.call(_short(node), call, reads, node.name)

    def _moves_raw(self, node: Node) -> bool:
        """Whether a step moves values that will be rounded to the same grid behind it, so that once is enough."""
        if node.op not in MOVES or len(read := inputs_of(node)) != 1:
            return False
        same = node.name in self.facts.grids and self.facts.grids.get(read[0]) == self.facts.grids[node.name]
        return same and self.draft.has(read[0], "raw")

    def _reader(self, item: Any, reads: list[int], raw: bool = False) -> Call:
        """How a step finds an argument among the values; the slots it takes them from are added to `reads`."""
        if isinstance(item, dict) and "node" in item:
            reads.append(self.draft.find(item["node"], "raw" if raw else "float"))
            return itemgetter(reads[-1])
        if isinstance(item, (list, tuple)):
            parts = [self._reader(part, reads) for part in item]
            return lambda values: [part(values) for part in parts]
        constant = self._constant(item)
        return lambda values: constant

    def _constant(self, item: Any) -> Any:
        if isinstance(item, dict):
            if "weight" in item:
                return self.weights[item["weight"]]
            return getattr(torch, item["dtype"]) if "dtype" in item else float(item["float"])
        return [self._constant(part) for part in item] if isinstance(item, (list, tuple)) else item


def _clamped(kernel: Kernel, clamp: tuple[float, float] | None, out: Grid, relu: bool) -> Kernel:
    """The kernel, with a clamp of integers behind it where neither the type nor the kernel already holds the ends."""
    if clamp is None:
        return kernel
    low, high = _integer_ends(clamp, out)
    if (low == 0 or relu) and high == 255:
        return kernel
    return lambda x: graded(plain(kernel(x)).clamp_(low, high), out)


def _integer_ends(ends: tuple[float, float], grid: Grid) -> tuple[int, int]:
    """What the ends of a clamp are on a grid. The clamp runs on plain bytes: qnnpack's own mixes up the layouts of its
    input and its output (torch 2.14)."""
    low, high = ends
    return max(grid.holds(low), 0), 255 if math.isinf(high) else min(grid.holds(high), 255)


def _kind(layer: Layer) -> str:
    return "conv2d" if layer.conv else "linear"


def _short(node: Node) -> str:
    """An operator's bare name."""
    return node.op.split(".")[1] if "." in node.op else node.op
