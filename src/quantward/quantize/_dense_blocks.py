"""Where a program has dense blocks: concatenations of one another's parts that only normalisations read.

Plain questions about the program, apart from the arithmetic of `_dense`: a block has to be found before it is
rewritten, when normalisations read it, and after, when clamps of channels do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from quantward.core.values import FloatArray, Node
from quantward.graph.walk import CONV, LINEAR, inputs_of, readers, weight_of

CAT, NORM, RELU = "aten.cat.default", "aten.batch_norm.default", "aten.relu.default"
MAXIMUM, MINIMUM = "aten.maximum.default", "aten.minimum.default"
POOL, MEAN = "aten.max_pool2d.default", "aten.avg_pool2d.default"
MEANS = {MEAN, "aten.adaptive_avg_pool2d.default", "aten.mean.dim"}
FLATTEN = "aten.flatten.using_ints"


@dataclass(frozen=True)
class Part:
    """One part of a block: the convolution that makes it, the steps between (last first), whether one is a ReLU."""

    writer: Node
    steps: tuple[Node, ...]

    @property
    def clamped(self) -> bool:
        """Whether nothing below 0 can be in it, and 0 has to stay where it is."""
        return any(step.op == RELU for step in self.steps)


@dataclass(frozen=True)
class Reading:
    """A normalisation of the concatenation `source`, its ReLU, and the layers behind, straight or through means."""

    norm: Node
    act: Node
    source: str
    layers: tuple[Node, ...]


@dataclass
class Block:
    """Concatenations that share parts: its parts by name, the parts of each concatenation in order, and what reads."""

    parts: dict[str, Part] = field(default_factory=dict)
    wholes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)


def clamps_channels(node: Node) -> bool:
    """Whether a step is the maximum or the minimum of a value and a stored weight."""
    return node.op in (MAXIMUM, MINIMUM) and isinstance(node.args[1], Mapping) and "weight" in node.args[1]


def blocks(program: tuple[Node, ...]) -> list[Block]:
    """The dense blocks of a program: concatenations of channels, one of which holds all parts of the others, whose
    parts each come from a convolution (through pools and a ReLU at most) and go nowhere else, and which are read only
    by normalisations with a ReLU in front of layers that do not pad."""
    by_name, read_by = {node.name: node for node in program}, readers(program)
    found: list[Block] = []
    for cats in _families(program):
        block = Block()
        if all(_enter(cat, block, by_name, read_by) for cat in cats):
            found.append(block)
    return [block for block in found if any(set(whole) == set(block.parts) for whole in block.wholes.values())]


def shared_grids(program: tuple[Node, ...]) -> dict[str, str]:
    """Every tensor of a block whose concatenations only clamps of channels read -> the widest of its concatenations.

    The range of that one is the range of all: of the parts, with what stands between them and their convolution, of
    the concatenations and of the clamps.
    """
    by_name, read_by = {node.name: node for node in program}, readers(program)
    found: dict[str, str] = {}
    for cats in _families(program):
        users = [user for cat in cats for user in read_by[cat.name] if user.op != CAT]
        if not users or not all(map(clamps_channels, users)):
            continue
        names = [cat.name for cat in cats]
        widest, most = names[-1], 0
        for cat in cats:
            leaves = _leaves(cat, by_name)
            if len(leaves) > most:
                widest, most = cat.name, len(leaves)
            for leaf in leaves:
                part = _part(by_name[leaf], by_name, read_by)
                names += [leaf] if part is None else _stored(part)
        while users:
            names += [user.name for user in users]
            users = [behind for user in users for behind in read_by[user.name] if clamps_channels(behind)]
        found.update(dict.fromkeys(names, widest))
    return found


def means_first(program: tuple[Node, ...], weights: Mapping[str, FloatArray]) -> tuple[Node, ...]:
    """The program in which a part is averaged before its convolution and not after, where that looks at one place at a
    time: the same numbers for a fraction of the products, and no mean is taken of what a grid has clipped."""
    by_name, read_by = {node.name: node for node in program}, readers(program)
    changed: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for pool in program:
        if (
            pool.op != MEAN
            or pads(pool)
            or len(pool.args) > 4
            or pool.kwargs
            or not all(map(_plain, read_by[pool.name]))
        ):
            continue
        conv = by_name[inputs_of(pool)[0]]
        if conv.op == CONV and _looks_at_one_place(conv, weights) and len(read_by[conv.name]) == 1:
            changed[conv.name] = replace(pool, args=(conv.args[0], *pool.args[1:]))
            changed[pool.name] = replace(conv, args=({"node": pool.name}, *conv.args[1:]))
            renamed[pool.name] = conv.name
    return tuple(
        replace(node, args=([{"node": renamed.get(name, name)} for name in inputs_of(node)], *node.args[1:]))
        if _plain(node)
        else changed.get(node.name, node)
        for node in program
    )


def _plain(node: Node) -> bool:
    """Whether a step joins channels of other steps, and nothing else."""
    if node.op != CAT or node.args[1:] != (1,):
        return False
    return all(isinstance(item, Mapping) and "node" in item for item in node.args[0])


def _looks_at_one_place(conv: Node, weights: Mapping[str, FloatArray]) -> bool:
    strides = conv.args[3] if len(conv.args) > 3 else 1
    return weights[weight_of(conv)].shape[2:] == (1, 1) and not pads(conv) and bool(np.all(np.asarray(strides) == 1))


def _families(program: tuple[Node, ...]) -> list[list[Node]]:
    """The concatenations, those with a part in common together."""
    top: dict[str, str] = {}

    def root(name: str) -> str:
        while top.setdefault(name, name) != name:
            name = top[name]
        return name

    cats = [node for node in program if node.op == CAT]
    for cat in cats:
        for part in inputs_of(cat):
            top[root(part)] = root(cat.name)
    found: dict[str, list[Node]] = {}
    for cat in cats:
        found.setdefault(root(cat.name), []).append(cat)
    return list(found.values())


def _enter(cat: Node, block: Block, by_name: Mapping[str, Node], read_by: Mapping[str, list[Node]]) -> bool:
    """Put a concatenation into its block; False where it cannot be one of a dense block."""
    if not _plain(cat):
        return False
    leaves = _leaves(cat, by_name)
    for leaf in leaves:
        part = block.parts.get(leaf) or _part(by_name[leaf], by_name, read_by)
        if part is None or any(user.op != CAT for user in read_by[leaf]):
            return False
        block.parts[leaf] = part
    block.wholes[cat.name] = leaves
    for user in read_by[cat.name]:
        if user.op == CAT:
            continue
        reading = _reading(user, cat.name, read_by)
        if reading is None:
            return False
        block.readings.append(reading)
    return True


def _leaves(cat: Node, by_name: Mapping[str, Node]) -> tuple[str, ...]:
    """The parts of a concatenation in order; one that it joins to more is told by its own parts."""
    found: list[str] = []
    for name in inputs_of(cat):
        found += _leaves(by_name[name], by_name) if by_name[name].op == CAT else (name,)
    return tuple(found)


def _part(node: Node, by_name: Mapping[str, Node], read_by: Mapping[str, list[Node]]) -> Part | None:
    """The convolution behind a part, through pools and a ReLU; None where there is none."""
    steps: list[Node] = []
    while node.op != CONV:
        if node.op not in (POOL, RELU):  # both may come after a clamp as well as before it; a mean may not
            return None
        steps.append(node)
        node = by_name[inputs_of(node)[0]]
        if len(read_by[node.name]) != 1:
            return None
    return Part(node, tuple(steps))


def _stored(part: Part) -> list[str]:
    """Part, steps and convolution by name, but for a convolution whose ReLU runs in its kernel."""
    fused = bool(part.steps) and part.steps[-1].op == RELU
    return [step.name for step in part.steps] + ([] if fused else [part.writer.name])


def _reading(norm: Node, source: str, read_by: Mapping[str, list[Node]]) -> Reading | None:
    users = read_by[norm.name]
    if norm.op != NORM or len(users) != 1 or users[0].op != RELU:
        return None
    if not all(isinstance(ref, Mapping) and "weight" in ref for ref in norm.args[1:5]):
        return None
    layers = _layers_behind(users[0], read_by)
    return Reading(norm, users[0], source, layers) if layers else None


def _layers_behind(node: Node, read_by: Mapping[str, list[Node]], pooled: bool = False) -> tuple[Node, ...]:
    """The layers that read a value, straight or through means over the image; none where anything else does."""
    found: list[Node] = []
    for user in read_by[node.name]:
        if (user.op == LINEAR and pooled) or (user.op == CONV and not pads(user) and _whole(user)):
            found.append(user)
        elif (user.op in MEANS and not pads(user)) or (user.op == FLATTEN and pooled):
            behind = _layers_behind(user, read_by, pooled=True)
            if not behind:
                return ()
            found += behind
        else:
            return ()
    return tuple(found)


def pads(node: Node) -> bool:
    """Whether a convolution or a pool reads beyond the edge of its input."""
    place = {CONV: 4, MEAN: 3}.get(node.op)
    if place is None:
        return False
    given: Any = node.args[place] if len(node.args) > place else node.kwargs.get("padding", 0)
    return given != "valid" if isinstance(given, str) else bool(np.any(np.asarray(given)))


def _whole(conv: Node) -> bool:
    """Whether every filter reads every channel."""
    return len(conv.args) <= 6 or int(conv.args[6]) == 1
