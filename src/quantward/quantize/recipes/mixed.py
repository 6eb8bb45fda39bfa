"""Bits chosen layer by layer: from a table, or the least loss that fits a budget of bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from quantward.core.contracts import Batch, Context
from quantward.core.errors import Refused, UsageError
from quantward.core.registry import spelling
from quantward.core.store import plain
from quantward.core.values import Plan
from quantward.graph.walk import layers, weight_of
from quantward.quantize._sensitivity import By, Sensitivity, sensitivity, solve, table_of
from quantward.quantize._static import Bits, Rounding, Static, static_plan
from quantward.quantize._table import read_table
from quantward.quantize._trials import OFFER, other_bytes, spelled, stored_bytes, widths


@dataclass(frozen=True)
class Mixed(Static):
    """Calibrated like `low-bit`, with bits that differ from layer to layer.

    `table` is a file that says them (`quantward sensitivity` writes such files). `ratio` asks for the table with the
    least predicted loss whose weights, scales and biases take at most that share of the FP32 weights' bytes; `by`
    chooses how the loss is predicted, `fisher` (gradients, seconds) or `one-at-a-time` (measured, minutes), `probe` is
    how many calibration images it is predicted on, and `offer` lists the widths to choose from. The table and the
    ranking it comes from stand in the Plan's notes.
    """

    needs: ClassVar[Literal["images"]] = "images"
    rounding: Rounding = "adaptive"
    table: str | None = None
    ratio: float | None = None
    by: By = "fisher"
    probe: int = 64
    offer: tuple[str, ...] = OFFER

    def __post_init__(self) -> None:
        if (self.table is None) == (self.ratio is None):
            raise UsageError(
                "Expected table=FILE.json or ratio=SHARE for 'mixed', and not both. Write mixed:ratio=0.2."
            )
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UsageError(f"Expected ratio between 0 and 1; got {self.ratio:g}. Write mixed:ratio=0.2.")
        if self.by not in ("fisher", "one-at-a-time"):
            raise UsageError(f"Expected by=fisher or by=one-at-a-time; got {self.by!r}. Use one of these.")
        if self.probe < 1:
            raise UsageError(f"Expected probe of at least 1 image; got {self.probe}. Write probe=64.")
        widths(self.offer)

    def plan(self, parent: Plan, context: Context) -> Plan:
        """Specs for every layer, as the table says.

        Raises Refused for a table that is not one of this network, and for a ratio that nothing on offer fits.
        """
        if self.table is not None:
            table, told = read_table(Path(self.table), parent.program), _told(parent, self)
        else:
            table, told = self._chosen(parent, context)
        made = static_plan(parent, context, table, self, spelling(self))
        told["bytes"] = other_bytes(parent) + sum(
            stored_bytes(parent.weights[weight_of(layer)], table[layer.name].weights, self.per_channel)
            for layer in layers(parent.program)
        )
        told["layers"] = {name: spelled(bits) for name, bits in table.items()}
        return replace(made, notes={**made.notes, "mixed": told})

    def _chosen(self, parent: Plan, context: Context) -> tuple[dict[str, Bits], dict[str, Any]]:
        """The best table within the budget, and what it was chosen by."""
        assert self.ratio is not None
        found = self._ranked(parent, context)
        front, names = solve(found, self.by)
        budget = self.ratio * found.float_bytes
        point = front.best(budget)
        if point is None:
            least = -(-1000 * int(front.bytes.min()) // found.float_bytes) / 1000
            raise Refused(
                f"Expected a ratio of at least {least:g}, the least for {'+'.join(self.offer)}; got {self.ratio:g}. "
                f"Write ratio={least:g} or offer fewer bits."
            )
        told = _told(parent, self) | {
            "by": self.by,
            "images": found.images,
            "budget": int(budget),
            "predicted": float(front.loss[point]),
            "exact": front.exact,
            "costs": plain(found.costs),
            "correlations": plain(found.correlations),
        }
        return table_of(front, point, names, found.offer), told

    def _ranked(self, parent: Plan, context: Context) -> Sensitivity:
        """The sensitivities, computed once for all budgets that share the Context."""
        offer = widths(self.offer)
        batches = _probe(context, self.probe)
        options = tuple(getattr(self, name) for name in Static.__dataclass_fields__)
        folder = None if context.folder is None else context.folder / "sensitivity"
        return context.once(
            ("sensitivity", parent.parent, options, offer, self.by, self.probe),
            lambda: sensitivity(parent, context, offer, self, batches, measure=self.by == "one-at-a-time",
                                folder=folder, track=context.progress),
        )  # fmt: skip


def _told(parent: Plan, recipe: Mixed) -> dict[str, Any]:
    return {
        "from": "table" if recipe.table is not None else "ratio",
        "float_bytes": sum(int(array.nbytes) for array in parent.weights.values()),
    }


def _probe(context: Context, count: int) -> list[Batch]:
    """The images that layers are judged on: `count` of those that calibrate, or all where there are fewer."""
    try:
        return list(context.images(count))
    except UsageError:
        return list(context.images(None))
