"""Layers by what they mind: each alone in fewer bits, and how far the gradients' estimate agrees (A5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.core.values import Estimate
from quantward.report._words import ABSENT, number
from quantward.study.measures import Measure
from quantward.study.record import Layers, Record
from quantward.study.sheets import Cell, Sheet, cell, text


@dataclass(frozen=True)
class Sensitivity:
    """A sheet for each network, its `most` sensitive layers first."""

    most: int = 20

    def sheets(self, record: Record) -> Sequence[Sheet]:
        found = [self._sheet(one) for one in record.layers]
        why = "This study asks for no layer sensitivity (`sensitivity: true`)."
        return found or [Sheet("sensitivity", "Layer by layer", (), (), absent=why)]

    def _sheet(self, one: Layers) -> Sheet:
        name, title = f"sensitivity-{one.data}-{one.backbone}", f"Layer by layer: {one.backbone} on {one.data}"
        if one.failure:
            return Sheet(name, title, (), (), absent=one.failure)
        layers = sorted(one.facts["layers"], key=lambda row: -(row.get("divergence") or row.get("fisher") or 0.0))
        rows = tuple(_row(layer) for layer in layers[: self.most])
        rest = f" The {len(layers) - self.most} layers that mind least are left out." * (len(layers) > self.most)
        return Sheet(name, title, _COLUMNS,
                     rows, f"One layer at a time in fewer bits, all others in float. {agreement(one)}{rest}",
                     absent="" if rows else "No layer can be stored in fewer bits.", named=2)  # fmt: skip


def agreement(one: Layers) -> str:
    """How far the ranking by gradients and the measured one agree."""
    found = one.facts.get("spearman")
    if isinstance(found, dict):
        value, low, high = (found.get(key) for key in ("value", "low", "high"))
    else:
        value, low, high = found, None, None
    if value is None:
        return "The rank correlation of both orders is undefined."
    bounds = "" if low is None or high is None else f" ({number(low, 2)} to {number(high, 2)})"
    return f"Rank correlation of the measured and the estimated order: {number(value, 2)}{bounds}."


_COLUMNS = ("layer", "bits", "measured, nats", "estimated, nats", "accuracy, points", "changed, %")


def _row(layer: dict[str, object]) -> tuple[Cell, ...]:
    bits = layer.get("bits")
    width = f"w{bits['weights']}a{bits['activations']}" if isinstance(bits, dict) else str(bits or ABSENT)
    return (text(layer.get("layer") or layer.get("name")), text(width), _nats(layer.get("divergence")),
            _nats(layer.get("fisher")), cell(Measure("", "", "points"), _estimate(layer.get("accuracy"))),
            cell(Measure("", "", "rate", "lower"), _estimate(layer.get("changed"))))  # fmt: skip


def _nats(value: object) -> Cell:
    """Losses of layers differ by a factor of thousands: three significant digits."""
    if not isinstance(value, (int, float)):
        return Cell(ABSENT, why="not measured")
    return Cell(f"{value:.2e}".replace("e-", "e−"), value=float(value))


def _estimate(value: object) -> Estimate:
    return Estimate(float(value)) if isinstance(value, (int, float)) else Estimate(None, reason="not measured")
