"""Weights alone in 4 bits, activations in float: the smallest file that needs no activation ranges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from quantward.core.contracts import Context
from quantward.core.errors import UsageError
from quantward.core.registry import spelling
from quantward.core.values import FloatArray, Node, Plan, QuantSpec
from quantward.graph.stored import stored_weight
from quantward.graph.walk import bias_of, layers, weight_of
from quantward.quantize._correct import correct_biases
from quantward.quantize._equalise import channel_ranges, streams
from quantward.quantize._grouped import (
    Scaled,
    activation_aware,
    block_of,
    half_quadratic,
    nearest,
    output_error,
    settle_blocks,
)
from quantward.quantize._patterns import kept_layers
from quantward.quantize._rounding import second_moments
from quantward.quantize._specs import weight_spec
from quantward.quantize._static import is_depthwise, require_bits

HALF = QuantSpec("weight", 16, format="float16", source="IEEE 754 binary16")


@dataclass(frozen=True)
class Int4Weights:
    """Weights in `bits` bits with a scale for each run of about `group` of them (0: one a row); all else in half
    precision, arithmetic in float32.

    `method` finds the grid: `rtn` takes the least squared error of each run, symmetric; `hqq` an affine grid with a
    half-quadratic search that forgives a few large errors; `awq` is `rtn` after the input channels that carry most
    have been scaled up as far as the outputs gain. `rounding=adaptive` then rounds weights so that layers, and not
    weights, change least; `correct` takes the mean shift out of the biases. `method=rtn,rounding=nearest,correct=false`
    is what most toolkits write. The first and the last layer have `ends` bits and depthwise convolutions `depthwise`
    bits, one scale a row; `keep` leaves matching layers in half precision. H and means come from `samples` images.
    """

    needs: ClassVar[Literal["images"]] = "images"
    method: Literal["awq", "hqq", "rtn"] = "awq"
    scheme: Literal["affine", "symmetric"] = "affine"
    bits: int = 4
    group: int = 32
    ends: int = 8
    depthwise: int = 8
    rounding: Literal["nearest", "adaptive"] = "adaptive"
    correct: bool = True
    samples: int | None = None
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_bits(self, "bits", "ends", "depthwise")
        if self.group < 0:
            raise UsageError(f"Expected a group of 0 or more weights; got {self.group}. Choose another number.")

    def plan(self, parent: Plan, context: Context) -> Plan:
        """Specs for every weight; `notes` tell the exponent and the relative output error of each layer."""
        every = layers(parent.program)
        kept = kept_layers(parent.program, self.keep)
        wanted = {layer.name: layer for layer in every if layer.name not in kept}
        ends = {every[0].name, every[-1].name}
        low = {name: n for name, n in wanted.items() if name not in ends and not is_depthwise(n)}
        scaled = self._scaled(parent, context, low)
        weights, tensors, errors = dict(scaled.plan.weights), {}, {}
        for name, layer in context.progress(list(wanted.items()), "round"):
            key = weight_of(layer)
            if name not in low:
                bits = self.ends if name in ends else self.depthwise
                tensors[key] = weight_spec(weights[key], bits)
                continue
            whole, tensors[key] = weights[key], self._grid(layer, weights[key])
            if self.rounding == "adaptive":
                weights[key] = settle_blocks(whole, tensors[key], scaled.moments[name])
            if scaled.moments:
                errors[name] = output_error(whole, stored_weight(weights[key], tensors[key]), scaled.moments[name])
        plan = replace(scaled.plan, weights=weights)
        if self.correct:
            plan = correct_biases(scaled.plan, plan, tensors, context.images(self.samples))
        tensors.update(_halves(plan, tensors))
        notes = {**parent.notes, "weights": {"alphas": scaled.alphas, "output_error": errors}}
        return replace(plan, recipe=spelling(self), tensors=tensors, notes=notes)

    def _scaled(self, parent: Plan, context: Context, low: dict[str, Node]) -> Scaled:
        """The network with AWQ's scales folded in, and H of the layers to be rounded, where the method asks for it."""
        if self.method != "awq" and self.rounding == "nearest":
            return Scaled(parent, {}, {})
        key = ("second moments", parent.parent, self.samples, tuple(low))
        moments = context.once(key, lambda: second_moments(parent, low, context.images(self.samples)))
        if self.method != "awq":
            return Scaled(parent, moments, {})
        found = streams(parent.program)
        clamped = [step for stream in found if stream.clamp is not None for step in stream.steps]
        reach = channel_ranges(parent, context.images(self.samples), clamped) if clamped else {}
        return activation_aware(parent, found, moments, reach, self._grid)

    def _grid(self, layer: Node, weight: FloatArray) -> QuantSpec:
        """The grid of one weight, in blocks where its rows are long enough."""
        block = block_of(int(np.prod(weight.shape[1:])), self.group)
        if self.method == "hqq":
            return half_quadratic(weight, self.bits, block)
        return nearest(weight, self.bits, block, self.scheme == "affine")


def _halves(plan: Plan, tensors: dict[str, QuantSpec]) -> dict[str, QuantSpec]:
    """Half precision for all that has no grid and fits into it."""
    limit, biases = float(np.finfo(np.float16).max), {bias_of(layer) for layer in layers(plan.program)}
    return {
        name: replace(HALF, kind="bias") if name in biases else HALF
        for name, array in plan.weights.items()
        if name not in tensors and np.issubdtype(array.dtype, np.floating) and np.abs(array).max(initial=0.0) <= limit
    }
