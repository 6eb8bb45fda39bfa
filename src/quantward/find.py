"""Walks the precision ladder down and certifies: the lowest precision whose deployed file passes every gate.

The ladder is a fixed sequence (FP32, FP16, INT8, ...): each step is tested at full alpha, and the first that does not
pass ends the search, so no alpha is split (Maurer, Hothorn and Lehmacher, 1995). Where a step has several candidates
(calibrators, say), the choice between them is made on the `select` images, which the test never sees.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from quantward import __version__
from quantward.bundle import pack
from quantward.candidates import (
    Search,
    Step,
    Work,
    divergence,
    make,
    on_select,
)
from quantward.core.errors import QuantwardError, Refused
from quantward.core.machine import describe
from quantward.core.progress import Track, silent
from quantward.core.store import plain, write_json
from quantward.core.values import Dataset, Dossier, Efficiency, Entry, Fold, Latency, Plan
from quantward.data import open_dataset
from quantward.evaluate import Gates
from quantward.evaluate.power import sentence
from quantward.evaluate.speedups import ratio
from quantward.judgement import judge_all, require_attributes
from quantward.placing import fastest, prove_all, settle
from quantward.report.html import write_report
from quantward.runs import open_run
from quantward.workbench import cached, calibration, in_model_order, lessons, open_variant, whole

SLACK = 1.25
"""A candidate nearer to FP32 may take a quarter longer than the fastest of its precision, not more."""


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
    tell: Callable[[str], None] = lambda text: None,
    track: Track = silent,
) -> Dossier:
    """Search from the float Plan `parent`; images and roles come from `dataset` and `fold`.

    `tell` hears, before anything is made or run, what the test images can prove. Writes plans, files and predictions
    below `folder` and picks up what is already there. Raises NotEquivalent, before anything is quantized, when the
    exported FP32 file does not compute what PyTorch computes. A candidate that fails stays in the table with its
    reason.
    """
    dataset = in_model_order(dataset, parent.classes)
    require_attributes(dataset, search.subgroups)
    test_groups = None if dataset.groups is None else len({dataset.groups[i] for i in fold.test})
    power = sentence(len(fold.test), search.discordance, margin=margin_of(search.gates), n_groups=test_groups)
    tell(power)
    pixels = cached(dataset, parent.preprocess, track)
    fit = lessons(dataset, pixels, fold, parent, lesson=search.lesson, seed=search.seed, track=track)
    context = calibration(pixels, fold, parent.preprocess, seed=search.seed, track=track, fit=fit,
                          folder=folder / "trained")  # fmt: skip
    work = Work(search, dataset, fold, pixels, folder, track, context)
    order = ["fp32", *(recipe for step in search.ladder for recipe in step.recipes)]
    work.made["fp32"] = make(work, "fp32", parent)
    proved, left_out = prove_all(work)
    for recipe in track(order[1:], "quantize"):
        try:
            work.made[recipe] = make(work, recipe, parent)
        except QuantwardError as error:
            if error.exit_code == 130:  # Ctrl-C while a recipe trains is no failure of the recipe
                raise
            work.failures[recipe] = str(error)
    costs, runtimes = settle(work, proved, left_out)
    search, exported = work.search, proved[work.search.runtime]
    if len(runtimes) > 1:
        tell(fastest(runtimes))
    entries = judge_all(work, order, fold.test, dataset, pixels, "test", costs, exported)
    by_recipe = {entry.recipe: entry for entry in entries}
    chosen_of, choices = _choose(work, costs, by_recipe)
    chosen = _descend(search.ladder, chosen_of, by_recipe)
    outside: tuple[Entry, ...] = ()
    if external is not None:
        external = in_model_order(external, parent.classes)
        theirs = cached(external, parent.preprocess, track)
        outside = judge_all(work, order, whole(external), external, theirs, "external", costs, exported)
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
                "runtimes": [*runtimes],
                "runtime_choice": fastest(runtimes) if len(runtimes) > 1 else "",
                **({"lesson": search.lesson} if search.lesson else {}),
                "target": search.target,
                "threads": search.threads,
                "replicates": search.replicates,
                "seed": search.seed,
            },
        },
        power=power,
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


def _choose(
    work: Work, costs: Mapping[str, Efficiency], entries: Mapping[str, Entry]
) -> tuple[dict[str, str], tuple[Mapping[str, Any], ...]]:
    """For each step the candidate closest to FP32 on the `select` images: least mean KL divergence of probabilities.

    KL reads every probability of every image, where accuracy would see only the few images that flip. A candidate
    slower than the FP32 file, or than `SLACK` times the step's fastest, or one that answers otherwise on processors
    without VNNI, is taken only where no other is left.
    """
    base = on_select(work, "fp32")
    chosen: dict[str, str] = {}
    told: list[Mapping[str, Any]] = []
    for step in work.search.ladder:
        scores: dict[str, float] = {}
        for recipe in step.recipes:
            if recipe not in work.made:
                continue
            try:
                said = on_select(work, recipe)
            except Refused as error:
                work.failures[recipe] = str(error)
                continue
            scores[recipe] = divergence(base, said)
            right = float((said.probabilities.argmax(1) == said.truth).mean())
            told.append(
                {"precision": step.precision, "candidate": recipe, "divergence": scores[recipe], "accuracy": right,
                 "images": len(said), "chosen": False}
            )  # fmt: skip
        fast = [name for name in scores if not _slower(costs, name)] or [*scores]
        fast = _near_the_fastest(costs, fast)
        steady = [name for name in fast if "capped_cure" not in entries[name].audit] or fast
        if scores:
            chosen[step.precision] = min(steady, key=lambda name: scores[name])
    return chosen, tuple({**row, "chosen": row["candidate"] in chosen.values()} for row in told)


def _near_the_fastest(costs: Mapping[str, Efficiency], recipes: Sequence[str]) -> list[str]:
    """All but those that surely take more than `SLACK` times as long as the fastest; all where one was not timed."""
    times = {name: _one_image(costs[name]) for name in recipes if name in costs}
    if len(times) < len(recipes):
        return [*recipes]
    fastest = min(times.values(), key=lambda row: row.p50)
    return [name for name, row in times.items() if not _surely_slower(row, fastest, SLACK)]


def _slower(costs: Mapping[str, Efficiency], recipe: str) -> bool:
    """Whether a file surely takes more than a tenth longer for one image than the FP32 file."""
    if recipe not in costs or "fp32" not in costs:
        return False
    return _surely_slower(_one_image(costs[recipe]), _one_image(costs["fp32"]), 1.1)


def _surely_slower(row: Latency, other: Latency, times: float) -> bool:
    """Whether all of the interval of row / other lies above `times`: a busy machine must not decide which file is
    taken. Files that were not timed in the same rounds are compared by their medians."""
    if len(row.rounds) == len(other.rounds) > 0:
        return ratio(row.rounds, other.rounds)[1] > times
    return row.p50 > times * other.p50


def _one_image(cost: Efficiency) -> Latency:
    """The latency of one image."""
    return next(row for row in cost.latency if row.batch == 1)


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
        "groups": None if dataset.groups is None else len(set(dataset.groups)),
        "classes": {c: int((np.asarray(dataset.labels) == k).sum()) for k, c in enumerate(dataset.classes)},
    }


def save_dossier(dossier: Dossier, path: Path) -> None:
    """The dossier as JSON for machines: everything but the predictions, which lie beside it as CSV."""
    slim = replace(
        dossier,
        entries=tuple(replace(entry, predictions=None, select=None) for entry in dossier.entries),
        external=tuple(replace(entry, predictions=None, select=None) for entry in dossier.external),
    )
    document = plain(slim)
    for key in ("entries", "external"):
        for entry, value in zip(document[key], getattr(slim, key), strict=True):
            if value.verdict is not None:
                entry["verdict"]["outcome"] = value.verdict.outcome
    write_json(path, document)


def search_run(
    run: Path,
    data: Path,
    search: Search,
    folder: Path,
    *,
    external: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
    track: Track = silent,
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
        tell=tell,
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
