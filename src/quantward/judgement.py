"""Every candidate of a search on some images: predicted, audited, compared with FP32, and judged by the gates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from quantward.audit.capped import IMAGES
from quantward.audit.channels import IMAGES as CHANNEL_IMAGES
from quantward.audit.child import executed_apart
from quantward.audit.equivalence import Agreement, agreement
from quantward.audit.facts import channels_of, of_file, of_older_machines, of_other_runtimes
from quantward.audit.signatures import signatures, told, worst_activations
from quantward.candidates import Search, Work, on_select, predictions, simulated
from quantward.core.contracts import Batch
from quantward.core.errors import QuantwardError, Refused, UsageError, suggestion
from quantward.core.store import read_json, write_json
from quantward.core.values import Dataset, Efficiency, Entry, ImageArray, IntArray, Predictions
from quantward.evaluate import assess, evaluate, judge, measured
from quantward.graph.files import load_plan
from quantward.workbench import network_inputs, open_session


def judge_all(
    work: Work,
    order: Sequence[str],
    indices: IntArray,
    dataset: Dataset,
    pixels: ImageArray,
    role: str,
    costs: Mapping[str, Efficiency],
    exported: Agreement,
) -> tuple[Entry, ...]:
    """A row for each recipe, the baseline first; a failure is a row with its reason."""
    search = work.search
    own = role == "test"
    attributes = {
        name: tuple(dataset.attributes[name][i] for i in indices)
        for name in search.subgroups
        if own or name in dataset.attributes
    }
    rows: list[Entry] = []
    for recipe in work.track(order, f"judge on {role} images"):
        row = Entry(name=recipe, recipe=recipe, runtime=search.runtime)
        try:
            if recipe in work.failures:
                raise Refused(work.failures[recipe])
            said = predictions(work, recipe, indices, dataset, pixels, role)
            facts = _audit(work, recipe, exported, costs, said, rows[0].predictions if rows else said) if own else {}
            row = replace(row, predictions=said, efficiency=costs.get(recipe), audit=facts)
            if own:
                row = replace(row, select=on_select(work, recipe), attributes=attributes)
            if recipe == "fp32":
                row = replace(row, evaluation=evaluate(said, replicates=search.replicates, seed=search.seed))
            else:
                row = _judged(row, rows[0], search, attributes)
        except QuantwardError as error:
            row = replace(row, failure=str(error), audit=row.audit or (_signs(work, recipe) if own else {}))
            if recipe == "fp32":
                raise
        rows.append(row)
    return tuple(rows)


def require_attributes(dataset: Dataset, names: Sequence[str]) -> None:
    """Raises UsageError where `names` holds no attribute of the dataset, before anything was made for it."""
    unknown = [name for name in names if name not in dataset.attributes]
    if unknown:
        raise UsageError(
            f"Expected subgroups out of the attributes {', '.join(dataset.attributes) or '(none)'} of {dataset.name}; "
            f"got {unknown[0]!r}. {suggestion(unknown[0], dataset.attributes)}"
        )


def _judged(row: Entry, baseline: Entry, search: Search, attributes: Mapping[str, Sequence[str]]) -> Entry:
    """The row with its evaluation, its comparison to the baseline and its verdict."""
    assert row.predictions is not None and baseline.predictions is not None and baseline.evaluation is not None
    comparison, _, evaluation = assess(
        baseline.predictions,
        row.predictions,
        replicates=search.replicates,
        seed=search.seed,
        select=None if baseline.select is None or row.select is None else (baseline.select, row.select),
        attributes=attributes,
    )
    if row.efficiency is not None and baseline.efficiency is not None:
        comparison = measured(comparison, baseline.efficiency, row.efficiency)
    verdict = judge(
        comparison,
        baseline.evaluation,
        evaluation,
        search.gates,
        baseline_efficiency=baseline.efficiency,
        candidate_efficiency=row.efficiency,
        audit=row.audit,
    )
    return replace(row, evaluation=evaluation, comparison=comparison, verdict=verdict)


def _audit(
    work: Work,
    recipe: str,
    exported: Agreement,
    costs: Mapping[str, Efficiency],
    said: Predictions,
    baseline: Predictions | None,
) -> dict[str, Any]:
    """Is the file what its Plan says? Agreement with the simulation on the test images, integer layers, bytes, answers
    on older machines, and the signatures of whatever went wrong."""
    made, search = work.made[recipe], work.search
    variant, plan = made.variant, load_plan(made.plan)
    facts: dict[str, Any] = {"file": variant.path.relative_to(work.folder).as_posix()}
    if recipe == "fp32":
        facts["agreement"], facts["agreement_images"] = exported.top1, exported.n
        facts["largest_logit_difference"] = exported.worst
    else:
        path = made.plan / f"agreement.{search.runtime.replace(':', '-')}.{variant.sha256[:16]}.json"
        if not path.exists():
            found = agreement(
                open_session(simulated(made), "torch-float", search.threads),
                open_session(variant, search.runtime, search.threads),
                work.track(network_inputs(work.pixels, work.fold.test, plan.preprocess), f"audit {recipe}"),
            )
            write_json(path, found)
        found_again = read_json(path)
        facts["agreement"], facts["agreement_images"] = found_again["top1"], found_again["n"]
        facts["largest_logit_difference"] = found_again["worst"]
        facts["mean_logit_difference"] = found_again["mean"]
    executed, _ = executed_apart(variant, search.runtime)
    facts.update(of_file(plan, variant, executed))
    if recipe == "fp32":
        return facts
    facts.update(of_other_runtimes(plan, variant, search.runtime, made.plan))
    least = float(search.gates.document()["gates"].get("agreement", {}).get("limit", 0.99))
    older, held = of_older_machines(plan, variant, lambda: _spread(work, IMAGES), least, search.threads, made.plan)
    channels = channels_of(plan, lambda: _some_calibration(work), made.plan)
    signs = signatures(
        plan,
        load_plan(work.made["fp32"].plan),
        channels=channels,
        predictions=said,
        baseline=baseline,
        efficiency=costs.get(recipe),
        baseline_efficiency=costs.get("fp32"),
        variant=variant,
        executed=executed,
        capped=held,
        agreement=least,
    )
    return {**facts, **older, "activations": worst_activations(plan, channels), "signatures": [*map(told, signs)]}


def _signs(work: Work, recipe: str) -> dict[str, Any]:
    """Why a candidate that could not be measured may have failed: what its Plan shows by itself."""
    if recipe not in work.made or recipe == "fp32":
        return {}
    made = work.made[recipe]
    plan = load_plan(made.plan)
    channels = channels_of(plan, lambda: _some_calibration(work), made.plan)
    found = signatures(plan, load_plan(work.made["fp32"].plan), channels=channels, variant=made.variant)
    return {"activations": worst_activations(plan, channels), "signatures": [*map(told, found)]}


def _some_calibration(work: Work) -> Iterator[Batch]:
    return work.context.images(min(CHANNEL_IMAGES, len(work.fold.calibrate)))


def _spread(work: Work, n: int) -> Batch:
    """At most n `select` images as network inputs, evenly spaced so that no class is left out by its place: what is
    seen on them may guide the choice of a candidate, which nothing seen on the test images may."""
    images = np.asarray(work.fold.select)
    chosen = images[np.unique(np.linspace(0, len(images) - 1, min(n, len(images))).astype(np.int64))]
    return np.concatenate(list(network_inputs(work.pixels, chosen, work.made["fp32"].variant.preprocess)))
