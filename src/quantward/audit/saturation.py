"""Which layers could compute wrongly on a processor without VNNI? A proof from the weights alone; nothing has to run.

Before VNNI, x86 multiplies bytes with `vpmaddubsw`: two products of an unsigned activation and a signed weight are
added into 16 bits, and a sum beyond -32768 ... 32767 is cut off silently. Whether that can happen is decided by the
stored weights and the highest stored activation: 255 x 127 fits, 255 x (127 + 127) = 64770 does not, and with weights
of 7 bits 255 x (63 + 63) = 32130 always does.
Source: Intel 64 and IA-32 Architectures Software Developer's Manual, PMADDUBSW; oneDNN, "Nuances of int8 computations".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.values import Node, Plan, QuantSpec
from quantward.graph.stored import to_integers
from quantward.graph.walk import input_key, inputs_of, layers, weight_of

HIGHEST, LOWEST = 32767, -32768
"""What a 16-bit sum can hold."""

SHOWN = 5
"""Layers named in the facts: the worst ones say what to do, the whole list is in the Plan."""


@dataclass(frozen=True)
class Pairs:
    """One layer: how many pairs of neighbouring weights it has, how many of them can overflow, and the largest sums.

    `worst` is the sum with the largest absolute value over neighbours along the input channels, in the order in which
    they are stored; `anywhere` the same over any two weights of a filter, whatever order a kernel takes them in.
    """

    layer: str
    pairs: int
    possible: int
    worst: int
    anywhere: int

    @property
    def share(self) -> float:
        """Share of the neighbouring pairs whose sum can overflow."""
        return self.possible / self.pairs if self.pairs else 0.0


def saturating_pairs(weights: npt.NDArray[np.int64], top: int) -> tuple[int, int, int, int]:
    """(pairs, pairs that can overflow, worst sum, worst sum of any two) of stored weights (outputs, inputs, ...).

    Activations lie in 0 ... `top`, so a pair's extremes are top * (max(w1, 0) + max(w2, 0)) and
    top * (min(w1, 0) + min(w2, 0)). Pairs are inputs (0, 1), (2, 3), ... at each kernel position; an odd last input has
    no partner and cannot overflow.

    >>> saturating_pairs(np.array([[127, 1], [127, 2], [-127, 127]]), 255)
    (3, 1, 32895, 32895)
    >>> saturating_pairs(np.full((4, 6), 63), 255)
    (12, 0, 32130, 32130)
    """
    count = weights.shape[1] // 2
    even, odd = weights[:, 0 : 2 * count : 2], weights[:, 1 : 2 * count : 2]
    high = top * (np.maximum(even, 0) + np.maximum(odd, 0))
    low = top * (np.minimum(even, 0) + np.minimum(odd, 0))
    possible = int(((high > HIGHEST) | (low < LOWEST)).sum())
    rows = np.sort(weights.reshape(len(weights), -1), axis=1)
    above, below = top * np.maximum(rows[:, -2:], 0).sum(1), top * np.minimum(rows[:, :2], 0).sum(1)
    return int(even.size), possible, _largest(high, low), _largest(above, below)


def _largest(high: npt.NDArray[np.int64], low: npt.NDArray[np.int64]) -> int:
    top, bottom = int(high.max(initial=0)), int(low.min(initial=0))
    return top if top >= -bottom else bottom


def saturation(plan: Plan) -> tuple[Pairs, ...]:
    """Every layer that multiplies unsigned stored activations with signed stored weights, the worst first.

    Layers in float, with weights alone in integers, or with signed activations (whose kernels widen first) are
    left out.
    """
    found = []
    for layer in layers(plan.program):
        weight, source = plan.tensors.get(weight_of(layer)), reads(plan, layer)
        if weight is None or source is None or not _bytes(weight, source):
            continue
        numbers = saturating_pairs(to_integers(plan.weights[weight_of(layer)], weight), source.high)
        found.append(Pairs(layer.name, *numbers))
    return tuple(sorted(found, key=lambda one: (-one.share, -abs(one.worst), one.layer)))


def reads(plan: Plan, layer: Node) -> QuantSpec | None:
    """The spec of what a layer multiplies its weight with, None where that stays in float."""
    own = plan.tensors.get(input_key(layer.name))
    return own if own is not None else plan.tensors.get(inputs_of(layer)[0])


def _bytes(weight: QuantSpec, source: QuantSpec) -> bool:
    integers = weight.format == source.format == "integer" and weight.block is None
    return integers and weight.signed and not source.signed and weight.bits <= 8 and source.bits <= 8


def facts(found: tuple[Pairs, ...]) -> dict[str, Any]:
    """The proof as plain data for the audit; empty where no layer multiplies bytes."""
    if not found:
        return {}
    pairs, possible = sum(one.pairs for one in found), sum(one.possible for one in found)
    by_layer: Mapping[str, float] = {one.layer: round(one.share, 4) for one in found[:SHOWN] if one.possible}
    return {
        "layers": len(found),
        "possible_layers": sum(one.possible > 0 for one in found),
        "possible_pairs": possible,
        "share": possible / pairs if pairs else 0.0,
        "worst": max((one.worst for one in found), key=abs),
        "limit": HIGHEST,
        "never_in_any_order": all(LOWEST <= one.anywhere <= HIGHEST for one in found),
        "worst_layers": by_layer,
    }
