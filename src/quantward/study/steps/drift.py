"""Does a smaller network still look where FP32 looked? Leaves how far its maps drift."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from quantward.core.contracts import Context
from quantward.core.store import write_json
from quantward.explaining import drift_of
from quantward.graph.files import load_plan
from quantward.study.steps._images import network_of
from quantward.study.values import Workplace
from quantward.workbench import plan_with


@dataclass(frozen=True)
class Drift:
    """Maps of the first fold's network, on test images that are evenly spaced."""

    rooms: ClassVar[tuple[str, ...]] = ("core.preprocess", "data", "explain", "explaining", "graph",
                                        "study.steps.drift")  # fmt: skip
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "onnxruntime", "torch")

    def run(self, place: Workplace) -> Mapping[str, Any]:
        asked, opened = place.step.asked, network_of(place)
        base = plan_with("fp32", opened.plan, Context(images=lambda n: iter(()), seed=asked["seed"]))
        plan = load_plan(place.inputs["plan"] / "plan")
        record, _ = drift_of(opened, Path(place.step.places["data"]), [("fp32", base), (plan.recipe, plan)],
                             place.folder, method=asked["method"], images=asked["images"], seed=asked["seed"],
                             track=place.track)  # fmt: skip
        shutil.rmtree(place.folder / "files")  # those that were measured are kept by the steps that made them
        write_json(place.folder / "drift.json", record)
        found = record["candidates"][0]
        measures = {name: {"mean": one["value"], "low": one["low"], "high": one["high"], "n": one["n"]}
                    for name, one in found["measures"].items()}  # fmt: skip
        return {"measures": measures, "images": record["images"], "changed": found["changed"]}
