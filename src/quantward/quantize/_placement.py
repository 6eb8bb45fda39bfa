"""Which activations get a quantizer: everything an integer operator reads or writes, nothing else.

A tensor between a layer and the ReLU that fuses with it is never stored, so it gets none. Reshapes and the like
hand the grid of their input on. Linear layers of transformers write float (their readers are LayerNorm, Softmax and
residual sums, which stay float); convolutions write integers, and in networks without LayerNorm sums do too.

A concatenation gets a joint grid even where only float steps read it. Without one, behind parts that each have a grid
of their own, OpenVINO 2026.4 computes a batch normalisation wrongly and says nothing: half the logits' spread off in
DenseNet-121. With one it dies compiling parts, Concat, grid, scale and shift of each channel, grid. Storing neither the
parts nor the whole (`_signed.stored_for_readers`) is right in both cases; rewriting the block so that all of it has one
grid and no scale and shift is left (`_dense.joined`) is right as well, and fastest.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantward.core.values import Node
from quantward.graph.walk import CONV, LAYER_NORM, LAYERS, inputs_of, readers
from quantward.quantize._dense_blocks import shared_grids

FUSED = {"aten.relu.default", "aten.hardtanh.default", "aten.relu6.default"}
"""Clamps that run inside the layer's own kernel and that its output quantizer can replace."""

PASSING = {
    "aten.flatten.using_ints",
    "aten.reshape.default",
    "aten.permute.default",
    "aten.transpose.int",
    "aten.max_pool2d.default",
    "aten.unsqueeze.default",
    "aten.squeeze.dim",
    "aten.slice.Tensor",
    "aten.select.int",
    "aten.pixel_shuffle.default",
}
"""Operators that only move values: output on the same grid as their input."""

SUMS = {"aten.add.Tensor", "aten.cat.default"}
POOLS = {"aten.adaptive_avg_pool2d.default", "aten.avg_pool2d.default", "aten.mean.dim"}
PRODUCTS = {"aten.matmul.default", "aten.bmm.default"}


def quantized_outputs(program: tuple[Node, ...]) -> dict[str, str]:
    """Node name -> name of the node whose range it shares (itself, except behind operators that only move values).

    The network's own output is left in float: rounding logits would cost accuracy and save nothing. So is what does
    not depend on the image (tables of positions): runtimes compute it once, and OpenVINO cannot add it from a grid.
    """
    by_name = {node.name: node for node in program}
    read_by = readers(program)
    integer_sums = not any(node.op == LAYER_NORM for node in program)
    stored: set[str] = set()
    for node in program:
        if node.op in LAYERS:
            stored.add(node.args[0]["node"])
            if node.op == CONV:
                stored.add(_after_fusion(node, read_by))
        elif node.op in PRODUCTS:
            stored.update(inputs_of(node))
        elif integer_sums and node.op in SUMS | POOLS:
            stored.add(node.name)
            stored.update(inputs_of(node))
    shared: dict[str, str] = {}
    joint = shared_grids(program)
    stored |= joint.keys()
    for name in [node.name for node in program]:
        if name in stored:
            source = _behind_moves(by_name[name], by_name)
            shared[name] = source
            step = by_name[name]
            while step.name != source:
                shared[step.name] = source
                step = by_name[inputs_of(step)[0]]
            shared[source] = source
    shared.update(joint)
    final, alive = set(inputs_of(program[-1])), _alive(program)
    return {name: source for name, source in shared.items() if name in alive and not _only_output(name, final, read_by)}


def _alive(program: tuple[Node, ...]) -> set[str]:
    """The nodes that depend on the image."""
    found: set[str] = set()
    for node in program:
        if node.op == "input" or found & set(inputs_of(node)):
            found.add(node.name)
    return found


def _after_fusion(layer: Node, read_by: Mapping[str, list[Node]]) -> str:
    """The node that a layer's kernel really writes: the clamp behind it where it has no other reader."""
    users = read_by[layer.name]
    return users[0].name if len(users) == 1 and users[0].op in FUSED else layer.name


def _behind_moves(node: Node, by_name: Mapping[str, Node]) -> str:
    while node.op in PASSING:
        node = by_name[inputs_of(node)[0]]
    return node.name


def _only_output(name: str, final: set[str], read_by: Mapping[str, list[Node]]) -> bool:
    return name in final or all(user.op == "output" for user in read_by[name])
