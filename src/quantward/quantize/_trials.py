"""One layer at one width, exactly as a recipe would store it, and the error that this makes in the layer's output.

Both rankings of layers start from the same trials: the equalised network, the calibrated range of what the layer
reads, and the weight as it is read back from the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantward.core.contracts import Context
from quantward.core.errors import UsageError
from quantward.core.values import FloatArray, Node, Plan, QuantSpec
from quantward.graph.network import function
from quantward.graph.simulate import round_to_grid
from quantward.graph.stored import stored_weight
from quantward.graph.walk import bias_of, input_key, layers, output_axis, weight_of
from quantward.quantize._placement import quantized_outputs
from quantward.quantize._rounding import second_moments, settle
from quantward.quantize._specs import weight_spec
from quantward.quantize._static import Bits, Static, activations, observed, uniform

OFFER = ("w8a8", "w4a8")
"""Widths that a layer may have where nothing else is asked: the two integer types that deployed weights come in."""


def width(text: str) -> Bits:
    """Bits from their spelling: `w4a8` is 4 bits a weight and 8 an activation.

    >>> width("w4a8")
    Bits(weights=4, activations=8)

    Raises UsageError for anything else, or bits outside 2 to 8.
    """
    match = re.fullmatch(r"w([2-8])a([2-8])", text)
    if match is None:
        raise UsageError(f"Expected a width such as w4a8, with 2 to 8 bits each; got {text!r}. Write w8a8, w4a8, ...")
    return Bits(int(match[1]), int(match[2]))


def widths(texts: Sequence[str]) -> tuple[Bits, ...]:
    """Several widths, most bits first. Raises UsageError for none, or one that is offered twice."""
    found = tuple(width(text) for text in texts)
    if not found or len(set(found)) != len(found):
        raise UsageError(f"Expected different widths to choose from; got {'+'.join(texts) or 'none'}. Name each once.")
    return tuple(sorted(found, key=lambda bits: (-bits.weights, -bits.activations)))


def spelled(bits: Bits) -> str:
    """The spelling that `width` reads.

    >>> spelled(Bits(4, 8))
    'w4a8'
    """
    return f"w{bits.weights}a{bits.activations}"


def stored_bytes(weight: FloatArray, bits: int, per_channel: bool = True) -> int:
    """Bytes of a weight in the file: packed integers and their scales of 4 bytes.

    Files know integers of 4 and of 8 bits only: 3 bits lie in the former, 5 to 7 in the latter. At 2 bits a symmetric
    grid has three values, and five of them go into a byte. The step that widens packed integers again (about 130 bytes
    of graph) is left out: targets differ in it.

    >>> import numpy as np
    >>> [stored_bytes(np.zeros((8, 10), np.float32), bits) for bits in (2, 3, 4, 7)]
    [48, 72, 72, 112]
    """
    together = 5 if bits == 2 else 2 if bits <= 4 else 1
    return -(-weight.size // together) + 4 * (len(weight) if per_channel else 1)


def other_bytes(plan: Plan) -> int:
    """Bytes of everything that no width changes: biases, embeddings, normalisations."""
    chosen = {weight_of(layer) for layer in layers(plan.program)}
    return sum(int(array.nbytes) for name, array in plan.weights.items() if name not in chosen)


@dataclass(frozen=True, eq=False)
class Ground:
    """What all trials share: the equalised float Plan, what each layer's input is rounded with at each number of
    activation bits, and, for adaptive rounding, the second moments of that input."""

    plan: Plan
    how: Static
    sources: Mapping[int, Mapping[str, QuantSpec]]
    moments: Mapping[int, Mapping[str, FloatArray]]


@dataclass(frozen=True, eq=False)
class Trial:
    """One layer at one width: its weight as it is read back, and the grid of what it reads (None: left in float)."""

    layer: Node
    bits: Bits
    weight: Tensor
    source: QuantSpec | None
    bytes: int


def prepare(parent: Plan, context: Context, offer: Iterable[Bits], how: Static) -> Ground:
    """Equalise and calibrate as `static_plan` would; the histograms are shared with it through the Context."""
    shared = quantized_outputs(parent.program)
    plan, histograms = observed(parent, context, shared, how)
    by_name = {layer.name: layer for layer in layers(plan.program)}
    sources: dict[int, dict[str, QuantSpec]] = {}
    moments: dict[int, dict[str, FloatArray]] = {}
    for bits in sorted({bits.activations for bits in offer}):
        tensors = activations(plan, histograms, shared, uniform(plan.program, Bits(8, bits)), how)
        found = {
            name: tensors.get(input_key(name), tensors.get(layer.args[0]["node"])) for name, layer in by_name.items()
        }
        sources[bits] = {name: spec for name, spec in found.items() if spec is not None}
        if how.rounding == "adaptive":
            moments[bits] = second_moments(plan, by_name, context.images(how.samples), tensors)
    return Ground(plan, how, sources, moments)


def try_layer(ground: Ground, layer: Node, bits: Bits) -> Trial:
    """A layer's weight at some width, rounded as the recipe would round it."""
    array, how = ground.plan.weights[weight_of(layer)], ground.how
    spec, rounded = weight_spec(array, bits.weights, how.per_channel), array
    if how.rounding == "adaptive":
        rounded, spec = settle(array, spec, ground.moments[bits.activations][layer.name])
    return Trial(
        layer,
        bits,
        torch.from_numpy(stored_weight(rounded, spec)),
        ground.sources[bits.activations].get(layer.name),
        stored_bytes(array, bits.weights, how.per_channel),
    )


def output_error(trial: Trial, weight: Tensor, x: Tensor) -> Tensor:
    """f(x^; W^) - f(x; W): what a trial changes in its layer's output, before any correction of the bias."""
    layer = trial.layer
    step = function(layer.op)
    rounded = x if trial.source is None else round_to_grid(x, trial.source)
    changed: Tensor = step(rounded, trial.weight, None, *layer.args[3:], **layer.kwargs)
    kept: Tensor = step(x, weight, None, *layer.args[3:], **layer.kwargs)
    return changed - kept


def channel_sums(layer: Node, y: Tensor) -> tuple[Tensor, int]:
    """Sum of a layer's output over all but the channel, in float64, and how many values were added."""
    axis = output_axis(layer) % y.dim()
    dims = [d for d in range(y.dim()) if d != axis]
    return y.double().sum(dims), y.numel() // y.shape[axis]


def corrected(layer: Node, error: Tensor, mean: Tensor | None) -> Tensor:
    """An output error without its mean a channel, which bias correction takes out; None leaves it as it is."""
    if mean is None:
        return error
    return error - mean.to(error.dtype).reshape([-1, 1, 1] if output_axis(layer) == 1 else [-1])


def corrects(ground: Ground, layer: Node) -> bool:
    """Whether the recipe will take the mean error out of this layer's bias."""
    return ground.how.correct and bias_of(layer) is not None
