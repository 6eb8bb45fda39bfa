"""Per-channel ranges for activations that only have one scale: channels are rescaled before quantization, and back.

One scale for a whole activation tensor is set by its largest channel; the small ones are left with a few levels. Where
the steps between two layers commute with a positive factor a channel, the factor can be multiplied into the layer that
writes the channel and divided out of the layers that read it: the float network computes what it did, and every
channel uses the whole range. The idea is cross-layer equalisation (Nagel et al., "Data-free quantization", ICCV 2019,
section 4.1) with two differences. Ranges are those of activations, not of weights, because activations are where INT8
loses. And a ReLU6 is no obstacle: a channel that stays below 6 is raised until its largest calibration value is 6, so
that the clamp does for each channel what a calibrator does for a tensor. Whole residual streams are rescaled as one.
Behind a LayerNorm, whose affine weights take the factors, this is SmoothQuant (Xiao et al., ICML 2023).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quantward.core.contracts import Batch
from quantward.core.values import FloatArray, Node, Plan
from quantward.graph.network import Network
from quantward.graph.walk import CONV, LAYER_NORM, LAYERS, LINEAR, bias_of, inputs_of, weight_of

SCALING = {
    "aten.relu.default",
    "aten.hardtanh.default",
    "aten.add.Tensor",
    "aten.max_pool2d.default",
    "aten.avg_pool2d.default",
    "aten.adaptive_avg_pool2d.default",
    "aten.mean.dim",
    "aten.flatten.using_ints",
}
"""Steps that keep channels apart and commute with a positive factor a channel (a ReLU6 within its clamp)."""

LIMIT = 64.0
"""Largest factor: a dead channel has no range to speak of, and raising it would only raise its noise."""

Factors = npt.NDArray[np.float64]


@dataclass
class Stream:
    """Steps whose channels are tied together, the layers that write them and those that read them."""

    steps: list[str] = field(default_factory=list)
    writers: list[Node] = field(default_factory=list)
    readers: list[Node] = field(default_factory=list)
    clamp: float | None = None

    @property
    def normed(self) -> bool:
        """Whether a LayerNorm writes it: channels are then the last axis."""
        return any(writer.op == LAYER_NORM for writer in self.writers)


def streams(program: tuple[Node, ...]) -> list[Stream]:
    """The sets of tensors that can be rescaled channel by channel without changing what the network computes.

    A set that touches the network's input or output, or a step that does not commute with scaling, is left out.
    """
    by_name = {node.name: node for node in program}
    parent = {node.name: node.name for node in program}

    def top(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    blocked: set[str] = set()
    for node in program:
        if node.op in LAYERS:
            continue
        if node.op == LAYER_NORM and _affine(node):
            blocked.update(inputs_of(node))
        elif node.op in SCALING and _commutes(node, by_name):
            for name in inputs_of(node):
                parent[top(name)] = top(node.name)
        else:
            blocked.update([node.name, *inputs_of(node)])
    found: dict[str, Stream] = {}
    for node in program:
        stream = found.setdefault(top(node.name), Stream())
        stream.steps.append(node.name)
        if node.op == LAYER_NORM:
            stream.writers.append(node)
        if node.op in LAYERS:
            stream.writers.append(node)
            found.setdefault(top(node.args[0]["node"]), Stream()).readers.append(node)
        if node.op == "aten.hardtanh.default":
            high = float(node.args[2])
            stream.clamp = high if stream.clamp is None else min(stream.clamp, high)
    closed = {top(name) for name in blocked}
    return [
        stream
        for name, stream in found.items()
        if name not in closed
        and stream.writers
        and stream.readers
        and all(_simple(n) for n in stream.readers)
        and (not stream.normed or (len(stream.steps) == 1 and all(n.op == LINEAR for n in stream.readers)))
    ]


def _affine(norm: Node) -> bool:
    """Whether a LayerNorm has a weight and a bias over the last axis, which can take factors."""
    refs = norm.args[2:4]
    return len(refs) == 2 and all(isinstance(ref, dict) for ref in refs) and len(norm.args[1]) == 1


def _commutes(node: Node, by_name: dict[str, Node]) -> bool:
    if node.op == "aten.hardtanh.default":
        return float(node.args[1]) == 0.0 and isinstance(node.args[2], (int, float))
    if node.op == "aten.add.Tensor":
        return all(isinstance(item, dict) and "node" in item for item in node.args) and not node.kwargs
    if node.op == "aten.mean.dim":
        return [int(d) for d in node.args[1]] in ([2, 3], [-2, -1], [-1, -2])
    if node.op == "aten.flatten.using_ints":
        pooled = by_name[inputs_of(node)[0]]
        return pooled.op == "aten.adaptive_avg_pool2d.default" and list(pooled.args[1]) == [1, 1]
    return True


def _simple(layer: Node) -> bool:
    """A reader whose input channels can be told apart: dense, depthwise or linear."""
    return layer.op == LINEAR or _groups(layer) == 1 or _depthwise(layer)


def _groups(layer: Node) -> int:
    return int(layer.args[6]) if layer.op == CONV and len(layer.args) > 6 else 1


def _depthwise(layer: Node) -> bool:
    return layer.op == CONV and _groups(layer) > 1


def channel_ranges(plan: Plan, batches: Iterable[Batch], names: Iterable[str]) -> dict[str, FloatArray]:
    """Largest |value| of each channel of the named steps over some images, after the float network has run once."""
    wanted: dict[str, Any] = dict.fromkeys(names)
    normed = {node.name for node in plan.program if node.op == LAYER_NORM}

    def on_output(name: str, tensor: Tensor) -> Tensor:
        if name in wanted:
            last = name in normed
            dims = tuple(range(tensor.dim() - 1)) if last else (0, *range(2, tensor.dim()))
            reach = tensor.abs().amax(dims)
            wanted[name] = reach if wanted[name] is None else torch.maximum(wanted[name], reach)
        return tensor

    network = Network(plan, on_output=on_output).eval()
    with torch.inference_mode():
        for batch in batches:
            network(torch.from_numpy(batch))
    return {name: value.double().numpy() for name, value in wanted.items()}


def equalise(plan: Plan, batches: Iterable[Batch], stored: Iterable[str], strength: float = 1.0) -> Plan:
    """Rescale every stream of the float Plan; `stored` names the steps that will be quantized.

    `strength` 1 gives every channel the full range; less trades activation rounding for weight rounding in dense
    readers, and behind a LayerNorm is SmoothQuant's exponent (Xiao et al., ICML 2023, eq. 4). Depthwise readers have
    no such trade.
    """
    found = streams(plan.program)
    kept = set(stored)
    ranges = channel_ranges(plan, batches, [n for stream in found for n in stream.steps if n in kept])
    weights = dict(plan.weights)
    for stream in found:
        measured = [ranges[name] for name in stream.steps if name in ranges]
        if not measured or len({len(m) for m in measured}) != 1:
            continue
        if stream.normed:
            factors = _smooth(measured[0], [weights[weight_of(reader)] for reader in stream.readers], strength)
        else:
            power = 1.0 if all(_depthwise(reader) for reader in stream.readers) else strength
            factors = _factors(measured, stream.clamp, power)
        for layer in stream.writers:
            scale_outputs(weights, layer, factors)
        for layer in stream.readers:
            scale_inputs(weights, layer, factors)
    return replace(plan, weights=weights)


def _factors(measured: list[FloatArray], clamp: float | None, power: float) -> Factors:
    """How much to raise each channel: geometric mean over the stream's tensors of (largest range / channel's range)."""
    gains = [np.minimum(m.max() / np.maximum(m, 1e-12), LIMIT) for m in measured]
    factors = np.exp(np.mean(np.log(np.maximum(gains, 1.0)), axis=0)) ** power
    if clamp is not None:
        room = clamp / np.maximum(np.max(measured, axis=0), 1e-12)
        factors = np.clip(np.minimum(np.minimum(room, LIMIT) ** power, room), 1.0, None)
    return np.asarray(factors, np.float64)


def _smooth(reach: FloatArray, read: list[FloatArray], strength: float) -> Factors:
    """max |W_j|^(1 - strength) / max |X_j|^strength of each channel, their geometric mean 1: difficulty moves from
    the activations to the weights that read them (Xiao et al., ICML 2023, eq. 4)."""
    weight = np.max([np.abs(w).max(axis=0) for w in read], axis=0)
    factors = np.maximum(weight, 1e-6) ** (1 - strength) / np.maximum(reach, 1e-6) ** strength
    factors = factors / np.exp(np.log(factors).mean())
    return np.asarray(np.clip(factors, 1 / LIMIT, LIMIT), np.float64)


def scale_outputs(weights: dict[str, FloatArray], layer: Node, factors: Factors) -> None:
    """Multiply a layer's output channels, or a LayerNorm's affine weights."""
    if layer.op == LAYER_NORM:
        for ref in layer.args[2:4]:
            weights[ref["weight"]] = (weights[ref["weight"]].astype(np.float64) * factors).astype(np.float32)
        return
    name, bias = weight_of(layer), bias_of(layer)
    weight = weights[name].astype(np.float64)
    weights[name] = (weight * factors.reshape(-1, *([1] * (weight.ndim - 1)))).astype(np.float32)
    if bias is not None:
        weights[bias] = (weights[bias].astype(np.float64) * factors).astype(np.float32)


def scale_inputs(weights: dict[str, FloatArray], layer: Node, factors: Factors) -> None:
    """Divide a layer's input channels; a depthwise layer's k-th filter reads channel k alone."""
    name = weight_of(layer)
    weight = weights[name].astype(np.float64)
    if _depthwise(layer):
        per_filter = np.repeat(factors, len(weight) // len(factors))
        weights[name] = (weight / per_filter.reshape(-1, 1, 1, 1)).astype(np.float32)
    else:
        weights[name] = (weight / factors.reshape(1, -1, *([1] * (weight.ndim - 2)))).astype(np.float32)
