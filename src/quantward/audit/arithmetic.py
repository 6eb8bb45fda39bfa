"""Do the layers that were meant to be integers really run as integers? Read from the runtime's optimised graph."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.audit.saturation import reads
from quantward.core.contracts import Executed
from quantward.core.values import Node, Plan
from quantward.graph.walk import layers, weight_of

FLOAT = {"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
"""Operators of ONNX Runtime that multiply by a weight in float; other runtimes name kinds, not arithmetics."""


@dataclass(frozen=True)
class Arithmetic:
    """`integer` of `layers` layers run in integers; `meant` of them should. `float_operators` name the rest."""

    layers: int
    integer: int
    meant: int
    float_operators: dict[str, int]

    @property
    def share(self) -> float:
        """Share of the layers meant to be integers that are."""
        return min(self.integer / self.meant, 1.0) if self.meant else 1.0


def arithmetic(plan: Plan, executed: Executed) -> Arithmetic:
    """Compare the Plan's integer layers with what the runtime ran."""
    meant = sum(multiplies_integers(plan, layer) for layer in layers(plan.program))
    integer = executed.layers.get("int8", 0)
    others = {name: n for name, n in executed.operators.items() if name in FLOAT}
    return Arithmetic(sum(executed.layers.values()), integer, meant, others)


def multiplies_integers(plan: Plan, layer: Node) -> bool:
    """Whether both sides of a layer's product are stored as integers; weights alone save bytes, not arithmetic."""
    weight, source = plan.tensors.get(weight_of(layer)), reads(plan, layer)
    return weight is not None and source is not None and weight.format == source.format == "integer"
