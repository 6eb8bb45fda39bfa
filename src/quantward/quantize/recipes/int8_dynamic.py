"""INT8 weights, and activations whose range is taken from each image as it passes: needs no calibration images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from quantward.core.contracts import Context
from quantward.core.registry import spelling
from quantward.core.values import Plan, QuantSpec
from quantward.graph.walk import CONV, input_key, layers, weight_of
from quantward.quantize._patterns import kept_layers
from quantward.quantize._specs import weight_spec


@dataclass(frozen=True)
class Int8Dynamic:
    """Per-channel symmetric weights; activations unsigned 8 bit on the range of the image at hand.

    The range is that of the whole input tensor, so a batch would change an image's answer: such files run one image
    at a time. `convolutions=false` leaves convolutions in float, which is what most toolkits mean by dynamic.
    """

    needs: ClassVar[Literal["nothing"]] = "nothing"
    convolutions: bool = True
    keep: tuple[str, ...] = ()

    def plan(self, parent: Plan, context: Context) -> Plan:
        """Specs for the weight and the input of every layer that is not kept."""
        kept = kept_layers(parent.program, self.keep)
        tensors: dict[str, QuantSpec] = {}
        for layer in layers(parent.program):
            if layer.name in kept or (layer.op == CONV and not self.convolutions):
                continue
            weight = weight_of(layer)
            tensors[weight] = weight_spec(parent.weights[weight], 8)
            tensors[input_key(layer.name)] = QuantSpec(
                "activation", 8, False, "integer", "affine", dynamic=True, source="range of each image"
            )
        return replace(parent, recipe=spelling(self), tensors=tensors)
