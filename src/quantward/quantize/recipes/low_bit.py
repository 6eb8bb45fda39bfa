"""Fewer than 8 bits after training: 4-bit weights with 8-bit activations, or any pair from 2 to 8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from quantward.core.contracts import Context
from quantward.core.registry import spelling
from quantward.core.values import Plan
from quantward.quantize._patterns import kept_layers
from quantward.quantize._static import Bits, Rounding, Static, require_bits, static_plan, uniform


@dataclass(frozen=True)
class LowBit(Static):
    """Calibrated like `int8-static`, with `weights` and `activations` bits a layer.

    The first and the last layer have `ends` bits and depthwise convolutions `depthwise` bits for their weights, since
    both are small and lose most; sums and pools keep 8 bits. Below 8 bits rounding to the nearest loses too much, so
    `rounding` is adaptive by default: layer by layer, each making up for those before it.
    """

    needs: ClassVar[Literal["images"]] = "images"
    rounding: Rounding = "adaptive"
    weights: int = 4
    activations: int = 8
    ends: int = 8
    depthwise: int = 8
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_bits(self, "weights", "activations", "ends", "depthwise")

    def plan(self, parent: Plan, context: Context) -> Plan:
        """Specs for all layers that are not kept."""
        table = uniform(
            parent.program,
            Bits(self.weights, self.activations),
            ends=Bits(self.ends, 8),
            depthwise=Bits(self.depthwise, self.activations),
            kept=kept_layers(parent.program, self.keep),
        )
        return static_plan(parent, context, table, self, spelling(self))
