"""Applies a recipe to a trained network: leaves its Plan."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from quantward.core.contracts import Context
from quantward.graph.files import load_plan, save_plan
from quantward.runs import plan_of
from quantward.study.steps._images import network_of
from quantward.study.steps._teachers import with_teachers
from quantward.study.values import Workplace
from quantward.workbench import RECIPES, plan_with


@dataclass(frozen=True)
class Plan:
    """A recipe that trains goes on in the step's folder where a kill stopped it."""

    rooms: ClassVar[tuple[str, ...]] = ("core.preprocess", "data", "graph", "quantize", "runs", "study.steps.plan",
                                        "train", "workbench")  # fmt: skip
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "torch")

    def run(self, place: Workplace) -> Mapping[str, Any]:
        asked = place.step.asked
        recipe, seed = asked["recipe"], asked["seed"]
        if RECIPES.make(recipe).needs == "nothing":
            made = plan_with(recipe, load_plan(place.inputs["run"] / "plan"),
                             Context(images=lambda n: iter(()), seed=seed, progress=place.track))  # fmt: skip
        else:
            made = plan_of(network_of(place), recipe, place.folder / "trained", seed=seed,
                           lesson=with_teachers(asked["lesson"], place), track=place.track)  # fmt: skip
        save_plan(made, place.folder / "plan")
        shutil.rmtree(place.folder / "trained", ignore_errors=True)  # what a stopped step would have gone on with
        return {"recipe": made.recipe, "tensors": len(made.tensors)}
