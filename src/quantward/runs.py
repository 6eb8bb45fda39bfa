"""RUN folders: from images to a trained model with its fold, and from there to Plans and deployed files.

A RUN holds `model.safetensors` and `model.json` (the float model), `data.json` (how its images were prepared),
`fold.json` (who plays which role) and `plan/` (the traced float Plan). Everything later starts from these.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantward import __version__
from quantward.core.contracts import Context
from quantward.core.errors import Refused, UsageError, suggestion
from quantward.core.progress import Track, silent
from quantward.core.registry import spelling
from quantward.core.store import digest_text, read_json, write_json
from quantward.core.values import Dataset, Fold, Model, Plan, Variant
from quantward.data import (
    check,
    leak_free,
    load_fold,
    open_dataset,
    published_fold,
    save_fold,
    with_split,
)
from quantward.data import split as draw_fold
from quantward.graph.files import load_plan, save_plan
from quantward.workbench import RECIPES, cached, calibration, lessons, plan_with, write_with

SPLITS = ("auto", "published", "own")


@dataclass(frozen=True)
class Prepared:
    """Images ready for a fold: `dataset` as it will be used, `published` whether its own split is, and warnings."""

    dataset: Dataset
    published: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """An opened RUN: the float Plan, its images and who plays which role."""

    plan: Plan
    dataset: Dataset
    fold: Fold
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any]


def prepare(data: Path, how: str = "auto", *, track: Track = silent) -> Prepared:
    """Open and check DATA. `published` takes its own split and refuses one that leaks; `own` ignores it, keeps one file
    of each picture, leaves out pictures with two labels, and ties look-alikes into one group; `auto` is `published`
    where there is a split; anything else is a split file that `quantward check --out` wrote.

    Raises Refused for unreadable files and for a published split that leaks, UsageError for an unknown `how`.
    """
    if how not in SPLITS and not Path(how).suffix:
        raise UsageError(
            f"Expected a split out of {', '.join(SPLITS)}, or a CSV; got {how!r}. {suggestion(how, SPLITS)}"
        )
    dataset = open_dataset(data, track=track)
    if how not in SPLITS:
        dataset = with_split(dataset, how)
    report = check(dataset, track=track)
    published = how != "own" and {"train", "test"} <= set(dataset.splits or ())
    if how == "published" and not published:
        raise UsageError(f"Expected a split into train and test in {data}; there is none. Use --split own.")
    fatal = [flaw for flaw in report.errors if published or flaw.code == "unreadable"]
    if fatal:
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        cure = "Mend or remove the files" if fatal[0].code == "unreadable" else "Use --split own for a leak-free split"
        raise Refused(f"Expected {data} without errors; {fatal[0].text}{more} {cure}; quantward check lists all.")
    if published:
        return Prepared(dataset, True, tuple(flaw.text for flaw in report.warnings))
    clean, kept = leak_free(dataset, report)
    told = [] if len(clean) == len(dataset) else [kept.sentence]
    return Prepared(clean, False, (*told, *(flaw.text for flaw in report.flaws)))


def train_run(
    data: Path,
    out: Path,
    *,
    arch: str = "mobilenetv2_100",
    weights: str | None = None,
    stage: str = "fit",
    size: int | None = None,
    split: str = "auto",
    seed: int = 0,
    track: Track = silent,
) -> Model:
    """Check the data, draw a leak-free fold, train, trace, and leave a RUN in `out`. A killed run goes on."""
    from quantward.graph.capture import capture
    from quantward.train import STAGES, preprocess_of, train_model

    chosen = STAGES.make(stage)
    prepared = prepare(data, split, track=track)
    fold = _fold(prepared, out, seed)
    kept = split if split in SPLITS else Path(split).resolve()
    write_json(out / "data.json", {"split": kept, "fingerprint": prepared.dataset.fingerprint, "seed": seed})
    how = preprocess_of(arch, weights, size)
    pixels = cached(prepared.dataset, how, track)
    model = train_model(prepared.dataset, fold, pixels, arch=arch, weights=weights, stage=chosen, folder=out,
                        preprocess=how, seed=seed, track=track)  # fmt: skip
    if not (out / "plan" / "plan.json").exists():
        save_plan(capture(model), out / "plan")
    return model


def _fold(prepared: Prepared, out: Path, seed: int) -> Fold:
    """The fold of a run: the one it already has, else a new one, saved before anything is trained on it."""
    path = out / "fold.json"
    if path.exists():
        return load_fold(path, prepared.dataset)
    made = published_fold(prepared.dataset, seed=seed) if prepared.published else draw_fold(prepared.dataset, seed=seed)
    save_fold(made, path)
    return made


def open_run(run: Path, data: Path, *, track: Track = silent) -> Run:
    """Open a RUN together with the data it was trained on.

    Raises Refused where the folder is no finished run, or the data is not what it was trained on.
    """
    for name in ("data.json", "fold.json", "plan/plan.json"):
        if not (run / name).exists():
            raise Refused(f"Expected a finished run at {run}; {name} is missing. Run quantward train --out {run}.")
    record = read_json(run / "data.json")
    prepared = prepare(data, record["split"], track=track)
    fold = load_fold(run / "fold.json", prepared.dataset)
    card = read_json(run / "model.json")
    provenance = {"arch": card["arch"], **card["provenance"]}
    return Run(load_plan(run / "plan"), prepared.dataset, fold, prepared.warnings, provenance)


def quantize_run(
    run: Path, recipe: str, target: str, data: Path | None, out: Path, *, seed: int = 0, track: Track = silent
) -> Variant:
    """Apply one recipe to a RUN's float Plan and write one file (`plan_run`)."""
    return write_with(target, plan_run(run, recipe, data, seed=seed, track=track), out)


def plan_run(run: Path, recipe: str, data: Path | None, *, seed: int = 0, track: Track = silent) -> Plan:
    """Apply one recipe to a RUN's float Plan. `data` is needed by recipes that look at images.

    A recipe that trains keeps its state in RUN/trained: killed, it goes on there; done, its Plan is taken up again.
    """
    made = RECIPES.make(recipe)
    if made.needs == "nothing":
        parent, context = load_plan(run / "plan"), Context(images=lambda n: iter(()), seed=seed, progress=track)
    elif data is None:
        raise UsageError(f"Expected --data for {recipe!r}, which calibrates on images; got none. Name the run's data.")
    else:
        opened = open_run(run, data, track=track)
        parent = opened.plan
        pixels = cached(opened.dataset, parent.preprocess, track)
        context = calibration(pixels, opened.fold, parent.preprocess, seed=seed, track=track)
        if made.needs == "training":
            fit = lessons(opened.dataset, pixels, opened.fold, parent, seed=seed, track=track)
            asked = (spelling(made), parent.parent, opened.fold.dataset, str(seed), __version__)
            folder = run / "trained" / digest_text(*asked)[:16]
            return _trained(recipe, parent, replace(context, fit=fit, folder=folder), folder)
    return plan_with(recipe, parent, context)


def _trained(recipe: str, parent: Plan, context: Context, folder: Path) -> Plan:
    """The Plan of a recipe that trains, read back where it has been made; then its checkpoints are forgotten."""
    done = folder / "plan"
    if not (done / "plan.json").exists():
        save_plan(plan_with(recipe, parent, context), done)
        for state in folder.glob("*/*/checkpoint"):
            shutil.rmtree(state)
    return load_plan(done)
