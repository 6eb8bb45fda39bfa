"""Do the layers that were meant to be integers really run as integers? Read from the runtime's optimised graph."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.contracts import Executed
from quantward.core.values import Plan
from quantward.graph.walk import layers, weight_of


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
        return self.integer / self.meant if self.meant else 1.0


def arithmetic(plan: Plan, executed: Executed) -> Arithmetic:
    """Compare the Plan's integer layers with what the runtime ran."""
    meant = sum(
        1
        for layer in layers(plan.program)
        if (spec := plan.tensors.get(weight_of(layer))) is not None and spec.format == "integer"
    )
    integer = executed.layers.get("int8", 0)
    others = {name: n for name, n in executed.operators.items() if name in ("Conv", "FusedConv", "Gemm", "MatMul")}
    return Arithmetic(sum(executed.layers.values()), integer, meant, others)
