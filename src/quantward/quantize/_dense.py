"""Dense blocks in integers from end to end: every feature map is rounded once, onto one grid for the whole block.

A dense block joins all feature maps before each layer and normalises them anew for each, so a file that stores what
layers read computes the same joining, scaling and clamping in float again and again: 42 % of the time of an INT8
DenseNet-121 on OpenVINO. Two identities take the float arithmetic away.

A normalisation and its ReLU are a clamp of each channel, and what is left of them is linear:

    max(a x + b, 0) = a max(x, -b / a) + b   for a > 0,      a min(x, -b / a) + b   for a < 0,

and a and b go into the layer that reads it, as it does not pad. What only such layers read can be moved and stretched
channel by channel, x' = (x - m) s, in the layer that writes it and back in those that read it. With m and s each
channel fills one grid that all parts share and that begins at 0: concatenations copy bytes, clamps keep the grid, and
OpenVINO and ONNX Runtime do both in 8 bits. A zero point other than 0 would cost OpenVINO a pass in float.

The float network computes what it did, except in channels that no calibration image switched on: they are left off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quantward.core.contracts import Batch
from quantward.core.values import FloatArray, Node, Plan
from quantward.graph.network import Network
from quantward.graph.walk import bias_of, weight_of
from quantward.quantize._dense_blocks import MAXIMUM, MINIMUM, Block, Reading, blocks, means_first
from quantward.quantize._observers import Histogram

LIMIT = 64.0
"""Largest stretch: a channel without a range to speak of would only have its noise raised."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """y = a x + b of each channel, before the ReLU; `end` = -b / a is where that clamps."""

    a: Numbers
    b: Numbers

    @property
    def end(self) -> Numbers:
        """Where the line crosses 0; infinite for channels that do not depend on x."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.a == 0, np.inf, -self.b / self.a)


def joined(plan: Plan, batches: Iterable[Batch], strength: float = 1.0) -> Plan:
    """The float Plan with every dense block on channels of one range that begin at 0, and clamps for normalisations.

    `strength` (0 to 1) is how far channels are stretched to the widest one of the block. A Plan without dense blocks
    comes back as it is.
    """
    program = means_first(plan.program, plan.weights)
    found = blocks(program)
    if not found:
        return plan
    plan = replace(plan, program=program)
    ends = channel_ends(plan, batches, {part for block in found for part in block.parts})
    weights, changed, gone = dict(plan.weights), dict[str, Node](), set[str]()
    taken: dict[str, Node] = {}
    for block in found:
        lines = {reading.norm.name: _line(reading.norm, plan.weights) for reading in block.readings}
        moved = _moves(block, lines, ends, strength)
        for name, part in block.parts.items():
            taken[part.writer.name] = _rewrite(taken.get(part.writer.name, part.writer), weights, *moved[name])
        for reading in block.readings:
            shift, stretch = (np.concatenate([moved[part][k] for part in block.wholes[reading.source]]) for k in (0, 1))
            reach = [np.concatenate([ends[part][k] for part in block.wholes[reading.source]]) for k in (0, 1)]
            line = _awake(lines[reading.norm.name], *reach)
            for layer in reading.layers:
                taken[layer.name] = _take_in(taken.get(layer.name, layer), weights, line, shift, stretch)
            changed.update(_clamps(reading, weights, (line.end - shift) * stretch, line.a))
            gone |= {reading.norm.name, reading.act.name}
            for ref in reading.norm.args[1:5]:
                weights.pop(ref["weight"], None)
    kept = (node for node in program if node.name not in gone or node.name in changed)
    written = {**taken, **changed}
    return replace(plan, program=tuple(written.get(node.name, node) for node in kept), weights=weights)


def from_zero(histogram: Histogram) -> Histogram:
    """The histogram with all values below 0 counted as 0: no reader of a block tells them apart."""
    counts, middle = histogram.counts.copy(), len(histogram.counts) // 2
    counts[middle] += counts[:middle].sum()
    counts[:middle] = 0.0
    return replace(histogram, counts=counts, low=max(histogram.low, 0.0), high=max(histogram.high, 0.0))


def channel_ends(plan: Plan, batches: Iterable[Batch], names: Iterable[str]) -> dict[str, tuple[Numbers, Numbers]]:
    """Smallest and largest value of each channel (axis 1) of the named steps over some images."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    wanted = set(names)

    def on_output(name: str, tensor: Tensor) -> Tensor:
        if name in wanted:
            low, high = tensor.amin((0, 2, 3)), tensor.amax((0, 2, 3))
            if name in found:
                low, high = torch.minimum(low, found[name][0]), torch.maximum(high, found[name][1])
            found[name] = (low, high)
        return tensor

    network = Network(plan, on_output=on_output).eval()
    with torch.inference_mode():
        for batch in batches:
            network(torch.from_numpy(batch))
    return {name: (low.double().numpy(), high.double().numpy()) for name, (low, high) in found.items()}


def _line(norm: Node, weights: Mapping[str, FloatArray]) -> Affine:
    gamma, beta, mean, variance = (weights[ref["weight"]].astype(np.float64) for ref in norm.args[1:5])
    a = gamma / np.sqrt(variance + norm.args[7])
    return Affine(a, beta - mean * a)


def _awake(line: Affine, low: Numbers, high: Numbers) -> Affine:
    """The line without the channels that are 0 behind the ReLU for all of [low, high], and with those that do not
    depend on x as the constant they are."""
    off = np.where(line.a > 0, line.end >= high, line.end <= low)
    constant = line.a == 0
    return Affine(np.where(off, 0.0, line.a), np.where(constant, np.maximum(line.b, 0.0), np.where(off, 0.0, line.b)))


def _places(block: Block, sizes: Mapping[str, int]) -> dict[str, dict[str, list[int]]]:
    """Concatenation -> part -> where its channels begin in it."""
    found: dict[str, dict[str, list[int]]] = {}
    for whole, parts in block.wholes.items():
        at, begins = 0, dict[str, list[int]]()
        for part in parts:
            begins.setdefault(part, []).append(at)
            at += sizes[part]
        found[whole] = begins
    return found


def _moves(
    block: Block, lines: Mapping[str, Affine], ends: Mapping[str, tuple[Numbers, Numbers]], strength: float
) -> dict[str, tuple[Numbers, Numbers]]:
    """Part -> (m, s): each channel's grid covers what at least one of its readers tells apart."""
    places = _places(block, {name: len(low) for name, (low, _) in ends.items()})
    spans: dict[str, tuple[Numbers, Numbers]] = {}
    for name, part in block.parts.items():
        low, high = ends[name]
        least, most = np.full_like(low, np.inf), np.full_like(low, -np.inf)
        for reading in block.readings:
            line = lines[reading.norm.name]
            for at in places[reading.source].get(name, ()):
                cut = slice(at, at + len(low))
                bottom, top = _told_apart(_awake(Affine(line.a[cut], line.b[cut]), low, high), low, high)
                least, most = np.minimum(least, bottom), np.maximum(most, top)
        seen = least < most
        bottom = np.zeros_like(low) if part.clamped else np.where(seen, least, low)
        spans[name] = (bottom, np.where(seen, most - bottom, 0.0))
    widest = max((float(width.max()) for _, width in spans.values()), default=0.0)
    return {
        name: (bottom, np.minimum(np.where(width > 0, widest / np.maximum(width, 1e-12), 1.0), LIMIT) ** strength)
        for name, (bottom, width) in spans.items()
    }


def _told_apart(line: Affine, low: Numbers, high: Numbers) -> tuple[Numbers, Numbers]:
    """The part of [low, high] on which the clamped line is not constant; (inf, -inf) for channels without."""
    bottom = np.where(line.a > 0, np.maximum(line.end, low), np.where(line.a < 0, low, np.inf))
    top = np.where(line.a > 0, high, np.where(line.a < 0, np.minimum(line.end, high), -np.inf))
    return bottom, top


def _rewrite(conv: Node, weights: dict[str, FloatArray], shift: Numbers, stretch: Numbers) -> Node:
    """The convolution that writes (x - m) s: w s, (b - m) s."""
    name = weight_of(conv)
    old = bias_of(conv)
    bias = weights[old].astype(np.float64) if old is not None else np.zeros(len(shift))
    weights[name] = (weights[name].astype(np.float64) * stretch.reshape(-1, 1, 1, 1)).astype(np.float32)
    return _with_bias(conv, weights, (bias - shift) * stretch)


def _take_in(layer: Node, weights: dict[str, FloatArray], line: Affine, shift: Numbers, stretch: Numbers) -> Node:
    """The layer that reads the clamped x' and computes W (a (x' / s + m) + b): w a / s, and W (a m + b) in the bias."""
    name, old = weight_of(layer), bias_of(layer)
    weight = weights[name].astype(np.float64)
    shape = (1, -1, *([1] * (weight.ndim - 2)))
    constant = (weight * (line.a * shift + line.b).reshape(shape)).reshape(len(weight), -1).sum(1)
    weights[name] = (weight * (line.a / stretch).reshape(shape)).astype(np.float32)
    return _with_bias(layer, weights, constant + (0.0 if old is None else weights[old].astype(np.float64)))


def _with_bias(layer: Node, weights: dict[str, FloatArray], bias: Numbers) -> Node:
    name = bias_of(layer) or f"{weight_of(layer).removesuffix('.weight')}.bias"
    weights[name] = bias.astype(np.float32)
    return replace(layer, args=(*layer.args[:2], {"weight": name}, *layer.args[3:]))


def _clamps(reading: Reading, weights: dict[str, FloatArray], end: Numbers, a: Numbers) -> dict[str, Node]:
    """max(x', t) where the line rises and min(x', t) where it falls; the last one has the name of the ReLU."""
    far = np.finfo(np.float32).max
    steps: list[tuple[str, str, Numbers]] = []
    if np.any(a < 0):
        steps.append((MINIMUM, "ceiling", np.where(a < 0, end, far)))
    if np.any(a > 0) or not steps:
        steps.append((MAXIMUM, "floor", np.where(a > 0, end, -far)))
    names = [reading.norm.name, reading.act.name][-len(steps) :]
    made: dict[str, Node] = {}
    source = reading.source
    for name, (op, word, values) in zip(names, steps, strict=True):
        key = f"{reading.norm.name}.{word}"
        weights[key] = np.clip(values, -far, far).astype(np.float32).reshape(-1, 1, 1)
        made[name] = Node(name, op, ({"node": source}, {"weight": key}))
        source = name
    return made
