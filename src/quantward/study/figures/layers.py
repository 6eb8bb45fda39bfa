"""What each layer minds, measured alone and estimated from gradients (A5 of the mission)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from quantward.report._front import ranks_figure
from quantward.report._svg import tag
from quantward.study.record import Record
from quantward.study.sheets import Drawing
from quantward.study.tables.sensitivity import agreement


@dataclass(frozen=True)
class Layers:
    """A drawing for each network: every layer at its estimated and its measured loss."""

    def draw(self, record: Record) -> Sequence[Drawing]:
        found = []
        for one in record.layers:
            name, title = f"layers-{one.data}-{one.backbone}", f"Two rankings of layers: {one.backbone} on {one.data}"
            told = [(str(row.get("layer") or row.get("name")), float(row["fisher"]), float(row["divergence"]))
                    for row in one.facts.get("layers", ())
                    if row.get("fisher") is not None and row.get("divergence") is not None]  # fmt: skip
            if one.failure or not told:
                found.append(Drawing(name, title, Markup(""), absent=one.failure or "No layer has both figures."))
                continue
            content = tag("div", tag("figure", ranks_figure(told)), class_="panels")
            found.append(Drawing(name, title, content, agreement(one), _READ))
        why = "This study asks for no layer sensitivity (`sensitivity: true`)."
        return found or [Drawing("layers", "Layer by layer", Markup(""), absent=why)]


_READ = "a dot a layer; on the dashed line the estimate and the measurement are the same."
