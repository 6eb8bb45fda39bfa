"""Walks the precision ladder down and certifies: the lowest precision whose deployed file passes every gate.

The ladder is a fixed sequence (FP32, FP16, INT8, ...): each step is tested at full alpha, and the first that does not
pass ends the search, so no alpha is split (Maurer, Hothorn and Lehmacher, 1995). Where a step has several candidates
(calibrators, say), the choice between them is made on the `select` images, which the test never sees.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from quantward import __version__
from quantward.audit.arithmetic import arithmetic
from quantward.audit.equivalence import Agreement, agreement, require_equal
from quantward.audit.size import size
from quantward.bundle import pack
from quantward.core.contracts import Context
from quantward.core.errors import QuantwardError, Refused
from quantward.core.machine import describe
from quantward.core.progress import Track, silent
from quantward.core.store import digest_text, plain, read_json, write_json
from quantward.core.values import (
    Dataset,
    Dossier,
    Efficiency,
    Entry,
    Fold,
    ImageArray,
    IntArray,
    Plan,
    Predictions,
    Variant,
)
from quantward.data import open_dataset
from quantward.evaluate import (
    Gates,
    bench,
    compare,
    evaluate,
    judge,
    measured,
    priced,
)
from quantward.evaluate.power import sentence
from quantward.evaluate.predictions import load, save
from quantward.graph.files import load_plan, save_plan
from quantward.report.html import write_report
from quantward.runs import open_run
from quantward.workbench import (
    RUNTIMES,
    cached,
    calibration,
    in_model_order,
    network_inputs,
    open_session,
    open_variant,
    plan_with,
    predictions_of,
    whole,
    write_with,
)

CALIBRATORS = ("max", "percentile", "mse", "entropy")


@dataclass(frozen=True)
class Step:
    """One step of the ladder: candidates of the same precision, of which `select` images choose one."""

    precision: str
    recipes: tuple[str, ...]


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


@dataclass(frozen=True)
class _Made:
    """One recipe carried out: its Plan's folder and its deployed file."""

    plan: Path
    variant: Variant


@dataclass
class _Work:
    """The images at hand and the folder that keeps what was done, so that a killed search goes on."""

    search: Search
    dataset: Dataset
    fold: Fold
    pixels: ImageArray
    folder: Path
    track: Track
    context: Context
    made: dict[str, _Made] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def find(
    parent: Plan,
    dataset: Dataset,
    fold: Fold,
    search: Search,
    folder: Path,
    *,
    warnings: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    external: Dataset | None = None,
    track: Track = silent,
) -> Dossier:
    """Search from the float Plan `parent`; images and roles come from `dataset` and `fold`.

    Writes plans, files and predictions below `folder` and picks up what is already there. Raises NotEquivalent, before
    anything is quantized, when the exported FP32 file does not compute what PyTorch computes. A candidate that fails
    stays in the table with its reason.
    """
    dataset = in_model_order(dataset, parent.classes)
    pixels = cached(dataset, parent.preprocess, track)
    context = calibration(pixels, fold, parent.preprocess, seed=search.seed, track=track)
    work = _Work(search, dataset, fold, pixels, folder, track, context)
    order = ["fp32", *(recipe for step in search.ladder for recipe in step.recipes)]
    work.made["fp32"] = _make(work, "fp32", parent)
    exported = _prove_export(work)
    for recipe in track(order[1:], "quantize"):
        try:
            work.made[recipe] = _make(work, recipe, parent)
        except QuantwardError as error:
            work.failures[recipe] = str(error)
    costs = _measure(work)
    entries = _entries(work, order, fold.test, dataset, pixels, "test", costs, exported)
    chosen_of, choices = _choose(work)
    chosen = _descend(search.ladder, chosen_of, {entry.recipe: entry for entry in entries})
    outside: tuple[Entry, ...] = ()
    if external is not None:
        external = in_model_order(external, parent.classes)
        theirs = cached(external, parent.preprocess, track)
        outside = _entries(work, order, whole(external), external, theirs, "external", costs, exported)
    test_groups = None if dataset.groups is None else len({dataset.groups[i] for i in fold.test})
    return Dossier(
        title=f"{dataset.name}: lowest precision that passes",
        entries=entries,
        chosen=chosen,
        images=_about(dataset, fold, warnings),
        gates=search.gates.document(),
        provenance={
            **(provenance or {}),
            "quantward": __version__,
            "machine": describe(),
            "parent": parent.parent,
            "fold": {"number": fold.number, "of": fold.of, "seed": fold.seed, "dataset": fold.dataset},
            "settings": {
                "runtime": search.runtime,
                "target": search.target,
                "threads": search.threads,
                "replicates": search.replicates,
                "seed": search.seed,
            },
        },
        power=sentence(len(fold.test), search.discordance, margin=margin_of(search.gates), n_groups=test_groups),
        choices=choices,
        external=outside,
        external_images={} if external is None else _counts(external),
    )


def margin_of(gates: Gates) -> float | None:
    """The largest drop in accuracy that the gates tolerate, None where they do not ask."""
    limit = gates.document()["gates"].get("accuracy-drop", {}).get("limit")
    return None if limit is None else float(limit)


def publish(dossier: Dossier, search: Search, folder: Path, report: Path | None) -> Path | None:
    """Write the bundle of the chosen candidate below `folder`; None where nothing passed."""
    if dossier.chosen is None:
        return None
    entry = next(entry for entry in dossier.entries if entry.name == dossier.chosen)
    variant = open_variant(folder / entry.audit["file"])
    return pack(folder / "bundle", variant, entry, dossier.entries[0], dossier, search.gates, report)


def _make(work: _Work, recipe: str, parent: Plan) -> _Made:
    """Plan and deployed file of one recipe: taken from the folder where they are already there and whole."""
    images = str(work.fold.calibrate.tolist())
    asked = (recipe, parent.parent, work.fold.dataset, images, str(work.search.seed), work.search.target, __version__)
    key = digest_text(*asked)[:16]
    home = work.folder / "plans" / key
    done = home / "done.json"
    if done.exists():
        try:
            load_plan(home)
            return _Made(home, open_variant(work.folder / read_json(done)["file"]))
        except QuantwardError:
            done.unlink(missing_ok=True)  # half-written or changed since: make it again
    plan = plan_with(recipe, parent, work.context)
    save_plan(plan, home)
    variant = write_with(work.search.target, plan, work.folder / "files")
    write_json(done, {"recipe": recipe, "file": variant.path.relative_to(work.folder)})
    return _Made(home, variant)


def _simulated(made: _Made) -> Variant:
    """The Plan folder itself as a Variant, for the torch-float runtime."""
    return replace(made.variant, format="plan", path=made.plan, max_batch=None)


def _prove_export(work: _Work) -> Agreement:
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


def _measure(work: _Work) -> dict[str, Efficiency]:
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


def _entries(
    work: _Work,
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
    said: dict[str, Predictions] = {}
    rows: list[Entry] = []
    for recipe in work.track(order, f"judge on {role} images"):
        row = Entry(name=recipe, recipe=recipe, runtime=search.runtime)
        try:
            if recipe in work.failures:
                raise Refused(work.failures[recipe])
            said[recipe] = _predictions(work, recipe, indices, dataset, pixels, role)
            row = replace(row, predictions=said[recipe], efficiency=costs.get(recipe))
            row = replace(row, evaluation=evaluate(said[recipe], replicates=search.replicates, seed=search.seed))
            facts = _audit(work, recipe, exported) if role == "test" else {}
            row = replace(row, audit=facts)
            if recipe != "fp32":
                row = _judged(row, rows[0], search)
        except QuantwardError as error:
            row = replace(row, failure=str(error))
            if recipe == "fp32":
                raise
        rows.append(row)
    return tuple(rows)


def _judged(row: Entry, baseline: Entry, search: Search) -> Entry:
    """The row with its comparison to the baseline and its verdict."""
    assert row.predictions is not None and baseline.predictions is not None
    assert row.evaluation is not None and baseline.evaluation is not None
    comparison = compare(baseline.predictions, row.predictions, replicates=search.replicates, seed=search.seed)
    if row.efficiency is not None and baseline.efficiency is not None:
        comparison = measured(comparison, baseline.efficiency, row.efficiency)
    verdict = judge(
        comparison,
        baseline.evaluation,
        row.evaluation,
        search.gates,
        baseline_efficiency=baseline.efficiency,
        candidate_efficiency=row.efficiency,
        audit=row.audit,
    )
    return replace(row, comparison=comparison, verdict=verdict)


def _predictions(
    work: _Work, recipe: str, indices: IntArray, dataset: Dataset, pixels: ImageArray, role: str
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


def _audit(work: _Work, recipe: str, exported: Agreement) -> dict[str, Any]:
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


def _choose(work: _Work) -> tuple[dict[str, str], tuple[Mapping[str, Any], ...]]:
    """For each step the candidate closest to FP32 on the `select` images: least mean KL divergence of probabilities.

    KL reads every probability of every image, where accuracy would see only the few images that flip.
    """
    base = _predictions(work, "fp32", work.fold.select, work.dataset, work.pixels, "select")
    chosen: dict[str, str] = {}
    told: list[Mapping[str, Any]] = []
    for step in work.search.ladder:
        scores: dict[str, float] = {}
        for recipe in step.recipes:
            if recipe not in work.made:
                continue
            try:
                said = _predictions(work, recipe, work.fold.select, work.dataset, work.pixels, "select")
            except Refused as error:
                work.failures[recipe] = str(error)
                continue
            scores[recipe] = divergence(base, said)
            right = float((said.probabilities.argmax(1) == said.truth).mean())
            told.append(
                {"precision": step.precision, "candidate": recipe, "divergence": scores[recipe], "accuracy": right,
                 "images": len(said), "chosen": False}
            )  # fmt: skip
        if scores:
            chosen[step.precision] = min(scores, key=lambda name: scores[name])
    return chosen, tuple({**row, "chosen": row["candidate"] in chosen.values()} for row in told)


def divergence(baseline: Predictions, candidate: Predictions) -> float:
    """Mean over images of KL(p || q) = sum_k p_k log(p_k / q_k), in nats; q is held above 1e-12."""
    p, q = baseline.probabilities, np.maximum(candidate.probabilities, 1e-12)
    return float(np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / q), 0.0).sum(1).mean())


def _descend(ladder: Iterable[Step], chosen: Mapping[str, str], entries: Mapping[str, Entry]) -> str | None:
    """Go down while the chosen candidate passes; the last that did, or None."""
    lowest: str | None = None
    for step in ladder:
        recipe = chosen.get(step.precision)
        entry = entries.get(recipe) if recipe is not None else None
        if entry is None or entry.verdict is None or entry.verdict.outcome != "PASS":
            return lowest
        lowest = entry.name
    return lowest


def _about(dataset: Dataset, fold: Fold, warnings: Sequence[str]) -> dict[str, Any]:
    counts = {}
    for name in ("train", "tune", "calibrate", "select", "test"):
        labels = np.asarray(dataset.labels)[fold.role(name)]
        counts[name] = {c: int((labels == k).sum()) for k, c in enumerate(dataset.classes)}
    return {**_counts(dataset), "counts": counts, "warnings": list(warnings)}


def _counts(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "images": len(dataset),
        "patients": None if dataset.groups is None else len(set(dataset.groups)),
        "classes": {c: int((np.asarray(dataset.labels) == k).sum()) for k, c in enumerate(dataset.classes)},
    }


def save_dossier(dossier: Dossier, path: Path) -> None:
    """The dossier as JSON for machines: everything but the predictions, which lie beside it as CSV."""
    slim = replace(
        dossier,
        entries=tuple(replace(entry, predictions=None) for entry in dossier.entries),
        external=tuple(replace(entry, predictions=None) for entry in dossier.external),
    )
    document = plain(slim)
    for key in ("entries", "external"):
        for entry, value in zip(document[key], getattr(slim, key), strict=True):
            if value.verdict is not None:
                entry["verdict"]["outcome"] = value.verdict.outcome
    write_json(path, document)


def search_run(
    run: Path, data: Path, search: Search, folder: Path, *, external: Path | None = None, track: Track = silent
) -> tuple[Dossier, Path, Path | None]:
    """Search for a RUN and write everything: dossier.json, report.html and, where something passed, bundle/."""
    opened = open_run(run, data, track=track)
    outside = None if external is None else open_dataset(external, track=track)
    dossier = find(
        opened.plan,
        opened.dataset,
        opened.fold,
        search,
        folder,
        warnings=opened.warnings,
        provenance={"training": opened.provenance},
        external=outside,
        track=track,
    )
    save_dossier(dossier, folder / "dossier.json")
    report = write_report(dossier, folder / "report.html", thumbnails(opened.dataset))
    return dossier, report, publish(dossier, search, folder, report)


def thumbnails(dataset: Dataset, side: int = 128) -> Callable[[str], bytes | None]:
    """Small JPEG pictures of a dataset's images, by id; None for an id that it does not hold."""
    rows = {name: i for i, name in enumerate(dataset.ids)}

    def picture(name: str) -> bytes | None:
        if name not in rows:
            return None
        image = Image.fromarray(dataset.read(rows[name]))
        image.thumbnail((side, side))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=85)
        return stream.getvalue()

    return picture
