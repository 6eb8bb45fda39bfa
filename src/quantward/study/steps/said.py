"""Runs a deployed file on the images it has never seen: leaves its predictions, and whether it is what it claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from quantward.audit.child import executed_apart
from quantward.audit.equivalence import Agreement, agreement, require_equal
from quantward.audit.facts import of_file
from quantward.core.contracts import Session
from quantward.core.values import Dataset, IntArray, Plan, Predictions, Variant
from quantward.evaluate.metrics import OVERALL, overall, undefined
from quantward.evaluate.predictions import save
from quantward.graph.files import load_plan
from quantward.study.steps._images import external_of, network_of
from quantward.study.values import Workplace
from quantward.workbench import (
    cached,
    in_model_order,
    network_inputs,
    open_session,
    open_variant,
    predictions_of,
    whole,
)

SAID = "predictions.csv"
AUDITED = ("agreement", "largest_logit_difference", "mean_logit_difference", "integer_share", "integer_layers", "bytes",
           "bytes_promised", "stored_as")  # fmt: skip
"""What tables may ask of the audit; the rest stands in the file's own dossier where somebody searches."""


@dataclass(frozen=True)
class Said:
    """FP32 files that do not compute what PyTorch does are refused: what is measured on them would be the export."""

    rooms: ClassVar[tuple[str, ...]] = ("audit", "core.apart", "core.preprocess", "core.worker", "data", "graph",
                                        "runtimes", "study.steps.said", "workbench")  # fmt: skip
    libraries: ClassVar[tuple[str, ...]] = ("ai-edge-litert", "numpy", "onnxruntime", "openvino", "torch")

    def run(self, place: Workplace) -> Mapping[str, Any]:
        asked = place.step.asked
        plan = load_plan(place.inputs["plan"] / "plan")
        variant = open_variant(place.inputs["file"] / place.facts["file"]["file"])
        dataset, rows = _images(place, plan)
        pixels = cached(dataset, plan.preprocess, place.track)
        with _open(variant, asked["runtime"], asked["threads"]) as session:
            said = predictions_of(session, dataset, rows, pixels, plan.preprocess, plan.recipe, place.track)
            save(said, place.folder / SAID)
            facts = {"n": len(said), "metrics": metrics_of(said), "bytes": variant.bytes, "sha256": variant.sha256,
                     "recipe": plan.recipe}  # fmt: skip
            if asked["images"] == "external":
                return facts
            simulated = replace(variant, format="plan", path=place.inputs["plan"] / "plan", max_batch=None)
            with _open(simulated, "torch-float", asked["threads"]) as promised:
                inputs = network_inputs(pixels, rows, plan.preprocess)
                found = agreement(promised, session, place.track(inputs, "compare with the simulation"))
        return {**facts, **_audit(plan, variant, found, asked["runtime"])}


def metrics_of(said: Predictions) -> dict[str, float | None]:
    """Every metric of some predictions, None where it does not exist."""
    probabilities = np.asarray(said.probabilities)
    return {name: None if undefined(name, said) else overall(name, said.truth, probabilities) for name in OVERALL}


def _images(place: Workplace, plan: Plan) -> tuple[Dataset, IntArray]:
    """The images that the step is asked about, with labels in the network's order."""
    if place.step.asked["images"] == "external":
        outside = in_model_order(external_of(place), plan.classes)
        return outside, whole(outside)
    opened = network_of(place)
    return in_model_order(opened.dataset, plan.classes), np.asarray(opened.fold.test)


def _audit(plan: Plan, variant: Variant, found: Agreement, runtime: str) -> dict[str, Any]:
    if plan.recipe == "fp32":
        require_equal(found, f"the FP32 file on {runtime}")
    executed, _ = executed_apart(variant, runtime)
    facts = {
        "agreement": found.top1,
        "largest_logit_difference": found.worst,
        "mean_logit_difference": found.mean,
        **of_file(plan, variant, executed),
    }
    if not facts.get("integer_meant"):
        facts.pop("integer_share", None)  # of no layer that was to run in integers, no share did
    return {name: facts[name] for name in AUDITED if name in facts}


@contextmanager
def _open(variant: Variant, runtime: str, threads: int) -> Iterator[Session]:
    """A session, closed at the end where it is one that holds a process."""
    session = open_session(variant, runtime, threads)
    try:
        yield session
    finally:
        close = getattr(session, "close", None)
        if close is not None:
            close()
