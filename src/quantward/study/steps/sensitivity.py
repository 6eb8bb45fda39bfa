"""Which layers mind fewer bits: one at a time and by gradients, with the rank correlation of the two."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from quantward.core.errors import UsageError
from quantward.core.store import plain, write_json
from quantward.study.steps._images import network_of
from quantward.study.values import Workplace
from quantward.workbench import RECIPES, cached, calibration, in_model_order, network_inputs

SAMPLES = 64
"""Calibration images that layers are judged on."""


@dataclass(frozen=True)
class Sensitivity:
    """The recipe says how values are rounded and to how many bits; every layer but one stays float."""

    rooms: ClassVar[tuple[str, ...]] = ("core.preprocess", "data", "graph", "quantize", "study.steps.sensitivity")
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "torch")

    def run(self, place: Workplace) -> Mapping[str, Any]:
        from quantward.quantize._sensitivity import sensitivity
        from quantward.quantize._static import Static

        asked, opened = place.step.asked, network_of(place)
        recipe = RECIPES.make(asked["recipe"])
        if not isinstance(recipe, Static):
            raise UsageError(
                f"Expected a recipe with ranges fixed beforehand for sensitivity, such as int8-static; got "
                f"{asked['recipe']!r}. Name one."
            )
        how = Static(**{one.name: getattr(recipe, one.name) for one in fields(Static)})
        parent, dataset = opened.plan, in_model_order(opened.dataset, opened.plan.classes)
        pixels = cached(dataset, parent.preprocess, place.track)
        context = calibration(pixels, opened.fold, parent.preprocess, seed=asked["seed"], track=place.track)
        order = np.random.default_rng(asked["seed"]).permutation(np.asarray(opened.fold.calibrate))
        rows = np.sort(order[:SAMPLES])
        found = sensitivity(parent, context, _offer(recipe), how,
                            list(network_inputs(pixels, rows, parent.preprocess)),
                            labels=np.asarray(dataset.labels)[rows], folder=place.folder / "parts",
                            track=place.track)  # fmt: skip
        shutil.rmtree(place.folder / "parts")  # what a stopped step would have gone on with
        write_json(place.folder / "sensitivity.json", found)
        return {
            "images": found.images,
            "layers": plain(found.costs),
            "spearman": plain(found.correlations[0]) if found.correlations else None,
        }


def _offer(recipe: Any) -> Any:
    """The width that the recipe gives its layers."""
    from quantward.quantize._static import Bits

    weights = 7 if getattr(recipe, "reduce_range", False) else getattr(recipe, "weights", 8)
    return (Bits(weights, getattr(recipe, "activations", 8)),)
