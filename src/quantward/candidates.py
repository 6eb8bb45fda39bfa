"""The candidates of a search: made, timed, run, compared and audited. What is done stays in the search's folder.

A killed search goes on where it was: a file is taken up again when it still has its hash, predictions when this very
file has already seen these very images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantward import __version__
from quantward.audit.arithmetic import arithmetic
from quantward.audit.equivalence import Agreement, agreement, require_equal
from quantward.audit.size import size
from quantward.core.contracts import Context
from quantward.core.errors import QuantwardError, Refused, UsageError, suggestion
from quantward.core.progress import Track
from quantward.core.store import digest_text, read_json, write_json
from quantward.core.values import Dataset, Efficiency, Entry, Fold, ImageArray, IntArray, Plan, Predictions, Variant
from quantward.evaluate import Gates, assess, bench, evaluate, judge, measured, priced
from quantward.evaluate.predictions import load, save
from quantward.graph.files import load_plan, save_plan
from quantward.workbench import (
    RUNTIMES,
    network_inputs,
    open_session,
    open_variant,
    plan_with,
    predictions_of,
    write_with,
)


@dataclass(frozen=True)
class Step:
    """One step of the ladder: candidates of the same precision, of which `select` images choose one."""

    precision: str
    recipes: tuple[str, ...]


CALIBRATORS = ("max", "percentile", "mse", "entropy")


LADDER = (
    Step("FP16", ("fp16",)),
    Step("INT8", ("int8-dynamic", *(f"int8-static:calibrator={name}" for name in CALIBRATORS))),
)


@dataclass(frozen=True)
class Search:
    """What a search was asked: everything that decides its result, and nothing that does not."""

    gates: Gates
    ladder: tuple[Step, ...] = LADDER
    target: str = "onnx-cpu"
    runtime: str = "onnxruntime"
    threads: int = 1
    replicates: int = 10_000
    seed: int = 0
    discordance: float = 0.04
    subgroups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """One recipe carried out: its Plan's folder and its deployed file."""

    plan: Path
    variant: Variant


@dataclass
class Work:
    """The images at hand and the folder that keeps what was done, so that a killed search goes on."""

    search: Search
    dataset: Dataset
    fold: Fold
    pixels: ImageArray
    folder: Path
    track: Track
    context: Context
    made: dict[str, Made] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def make(work: Work, recipe: str, parent: Plan) -> Made:
    """Plan and deployed file of one recipe: taken from the folder where they are already there and whole."""
    images = str(work.fold.calibrate.tolist())
    asked = (recipe, parent.parent, work.fold.dataset, images, str(work.search.seed), work.search.target, __version__)
    key = digest_text(*asked)[:16]
    home = work.folder / "plans" / key
    done = home / "done.json"
    if done.exists():
        try:
            load_plan(home)
            return Made(home, open_variant(work.folder / read_json(done)["file"]))
        except QuantwardError:
            done.unlink(missing_ok=True)  # half-written or changed since: make it again
    plan = plan_with(recipe, parent, work.context)
    save_plan(plan, home)
    variant = write_with(work.search.target, plan, work.folder / "files")
    write_json(done, {"recipe": recipe, "file": variant.path.relative_to(work.folder)})
    return Made(home, variant)


def _simulated(made: Made) -> Variant:
    """The Plan folder itself as a Variant, for the torch-float runtime."""
    return replace(made.variant, format="plan", path=made.plan, max_batch=None)


def prove_export(work: Work) -> Agreement:
    """First of all: the FP32 file computes what PyTorch computes, on every `select` image, or the search stops."""
    made = work.made["fp32"]
    inputs = network_inputs(work.pixels, work.fold.select, made.variant.preprocess)
    found = agreement(
        open_session(_simulated(made), "torch-float", work.search.threads),
        open_session(made.variant, work.search.runtime, work.search.threads),
        work.track(inputs, "FP32 file against PyTorch"),
    )
    require_equal(found, f"the FP32 file on {work.search.runtime}")
    return found


def time_all(work: Work) -> dict[str, Efficiency]:
    """Latency and size of every file, measured in turns in this one process."""
    search = work.search
    runtime = search.runtime
    files = {name: made.variant for name, made in work.made.items()}
    sessions = {name: open_session(file, runtime, search.threads) for name, file in files.items()}
    how = files["fp32"].preprocess

    def images(n: int) -> Any:
        rows = np.resize(np.asarray(work.fold.select), n)
        return next(network_inputs(work.pixels, rows, how, n))

    largest = {name: file.max_batch for name, file in files.items() if file.max_batch}
    times = bench(sessions, images, largest=largest, seed=search.seed, track=work.track)
    return {name: priced(files[name], runtime, timing) for name, timing in times.items()}


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
    attributes = _attributes(dataset, indices, search.subgroups)
    rows: list[Entry] = []
    for recipe in work.track(order, f"judge on {role} images"):
        row = Entry(name=recipe, recipe=recipe, runtime=search.runtime)
        try:
            if recipe in work.failures:
                raise Refused(work.failures[recipe])
            said = predictions(work, recipe, indices, dataset, pixels, role)
            facts = _audit(work, recipe, exported) if own else {}
            row = replace(row, predictions=said, efficiency=costs.get(recipe), audit=facts)
            if own:
                row = replace(row, select=on_select(work, recipe), attributes=attributes)
            if recipe == "fp32":
                row = replace(row, evaluation=evaluate(said, replicates=search.replicates, seed=search.seed))
            else:
                row = _judged(row, rows[0], search, attributes)
        except QuantwardError as error:
            row = replace(row, failure=str(error))
            if recipe == "fp32":
                raise
        rows.append(row)
    return tuple(rows)


def on_select(work: Work, recipe: str) -> Predictions:
    """Predictions of the `select` images, on which choices are made, thresholds frozen and temperatures fitted."""
    return predictions(work, recipe, work.fold.select, work.dataset, work.pixels, "select")


def _attributes(dataset: Dataset, indices: IntArray, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    unknown = [name for name in names if name not in dataset.attributes]
    if unknown:
        raise UsageError(
            f"Expected subgroups out of the attributes {', '.join(dataset.attributes) or '(none)'} of {dataset.name}; "
            f"got {unknown[0]!r}. {suggestion(unknown[0], dataset.attributes)}"
        )
    return {name: tuple(dataset.attributes[name][i] for i in indices) for name in names}


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


def predictions(
    work: Work, recipe: str, indices: IntArray, dataset: Dataset, pixels: ImageArray, role: str
) -> Predictions:
    """Predictions of a deployed file, read back where this very file has already seen these images."""
    variant, search = work.made[recipe].variant, work.search
    chosen = digest_text(dataset.fingerprint, str(np.asarray(indices).tolist()))[:12]
    path = work.folder / "predictions" / f"{variant.sha256[:16]}.{search.runtime}.{role}.{chosen}.csv"
    if path.exists():
        return replace(load(path), source=recipe)
    session = open_session(variant, search.runtime, search.threads)
    said = predictions_of(session, dataset, indices, pixels, variant.preprocess, recipe, work.track)
    save(said, path)
    return replace(load(path), source=recipe)


def _audit(work: Work, recipe: str, exported: Agreement) -> dict[str, Any]:
    """Is the file what its Plan says? Agreement with the simulation on the test images, integer layers, bytes."""
    made, search = work.made[recipe], work.search
    variant, plan = made.variant, load_plan(made.plan)
    facts: dict[str, Any] = {"file": variant.path.relative_to(work.folder).as_posix()}
    if recipe == "fp32":
        facts["agreement"], facts["agreement_images"] = exported.top1, exported.n
        facts["largest_logit_difference"] = exported.worst
    else:
        path = made.plan / f"agreement.{variant.sha256[:16]}.json"
        if not path.exists():
            found = agreement(
                open_session(_simulated(made), "torch-float", search.threads),
                open_session(variant, search.runtime, search.threads),
                work.track(network_inputs(work.pixels, work.fold.test, plan.preprocess), f"audit {recipe}"),
            )
            write_json(path, found)
        found_again = read_json(path)
        facts["agreement"], facts["agreement_images"] = found_again["top1"], found_again["n"]
        facts["largest_logit_difference"] = found_again["worst"]
        facts["mean_logit_difference"] = found_again["mean"]
    executed = RUNTIMES.make(search.runtime).executed(variant)
    if executed is not None:
        arithmetics = arithmetic(plan, executed)
        facts["integer_layers"] = f"{arithmetics.integer} of {arithmetics.layers} run as integers"
        facts["integer_share"] = arithmetics.share
        facts["operators"] = dict(sorted(executed.operators.items()))
    sizes = size(plan, variant)
    facts["bytes_promised"], facts["bytes_overhead"] = sizes.promised, sizes.overhead
    facts["seconds_to_make"] = round(variant.seconds, 2)
    return facts
