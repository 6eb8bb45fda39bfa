"""RUN folders: from images to a trained model with its fold, and from there to Plans and deployed files.

A RUN holds `model.safetensors` and `model.json` (the float model), `data.json` (how its images were prepared),
`fold.json` (who plays which role) and `plan/` (the traced float Plan). Everything later starts from these.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

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
from quantward.incoming import NOTHING, Told, require_card, unnamed
from quantward.workbench import (
    RECIPES,
    cached,
    calibration,
    lessons,
    open_variant,
    plan_with,
    require_lesson,
    write_with,
)

SPLITS = ("auto", "published", "own", "ungrouped")
LEAKS = (
    "The split is ungrouped: copies of a picture and images of one patient stand in training and test alike, so "
    "figures are too high. No verdict may rest on them."
)


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
    where there is a split; `ungrouped` keeps every file and forgets who is whose, as many a paper does: copies and
    patients then stand on both sides. Anything else is a split file that `quantward check --out` wrote.

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
    published = how in ("auto", "published") or how not in SPLITS
    published = published and {"train", "test"} <= set(dataset.splits or ())
    if how == "published" and not published:
        raise UsageError(f"Expected a split into train and test in {data}; there is none. Use --split own.")
    fatal = [flaw for flaw in report.errors if published or flaw.code == "unreadable"]
    if fatal:
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        cure = "Mend or remove the files" if fatal[0].code == "unreadable" else "Use --split own for a leak-free split"
        raise Refused(f"Expected {data} without errors; {fatal[0].text}{more} {cure}; quantward check lists all.")
    if published:
        return Prepared(dataset, True, tuple(flaw.text for flaw in report.warnings))
    if how == "ungrouped":
        return Prepared(_ungrouped(dataset), False, (LEAKS, *(flaw.text for flaw in report.flaws)))
    clean, kept = leak_free(dataset, report)
    told = [] if len(clean) == len(dataset) else [kept.sentence]
    return Prepared(clean, False, (*told, *(flaw.text for flaw in report.flaws)))


def _ungrouped(dataset: Dataset) -> Dataset:
    """The same images, each a patient of its own."""
    return replace(dataset, groups=None, fingerprint=digest_text("ungrouped", dataset.fingerprint))


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
    from quantward.train import STAGES

    STAGES.make(stage)  # a wrong option is told before any image is looked at
    prepared = prepare(data, split, track=track)
    return train_fold(prepared.dataset, _fold(prepared, out, seed), out, arch=arch, weights=weights, stage=stage,
                      size=size, split=split, seed=seed, track=track)  # fmt: skip


def train_fold(
    dataset: Dataset,
    fold: Fold,
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
    """Train on one fold of a checked dataset and trace the network: `out`, which holds the fold, becomes a RUN.

    `split` is how `prepare` came to the dataset; opening the run prepares it so again.
    """
    from quantward.graph.capture import capture
    from quantward.train import STAGES, preprocess_of, train_model

    chosen = STAGES.make(stage)
    kept = split if split in SPLITS else Path(split).resolve()
    write_json(out / "data.json", {"split": kept, "fingerprint": dataset.fingerprint, "seed": seed})
    how = preprocess_of(arch, weights, size)
    pixels = cached(dataset, how, track)
    model = train_model(dataset, fold, pixels, arch=arch, weights=weights, stage=chosen, folder=out,
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
    return run_with(run, prepare(data, read_json(run / "data.json")["split"], track=track))


def run_with(run: Path, prepared: Prepared) -> Run:
    """A finished RUN together with its images, prepared as its `data.json` says.

    Raises Refused where they are not what it was trained on.
    """
    fold = load_fold(run / "fold.json", prepared.dataset)
    card = read_json(run / "model.json")
    provenance = {"arch": card["arch"], **card["provenance"]}
    return Run(load_plan(run / "plan"), prepared.dataset, fold, prepared.warnings, provenance)


def quantize_run(
    run: Path,
    recipe: str,
    target: str,
    data: Path | None,
    out: Path,
    *,
    lesson: str = "",
    seed: int = 0,
    split: str = "auto",
    told: Told = NOTHING,
    tell: Callable[[str], None] = lambda _: None,
    track: Track = silent,
) -> Variant:
    """Apply one recipe to a RUN's float Plan (`plan_run`), or to a float `.onnx` file (`plan_file`), and write one
    file. `split`, `told` and `tell` are for `.onnx` files."""
    if run.suffix.lower() == ".onnx":
        plan = plan_file(run, recipe, data, lesson=lesson, seed=seed, split=split, told=told, tell=tell, track=track)
    else:
        require_card(run, told)
        plan = plan_run(run, recipe, data, lesson=lesson, seed=seed, track=track)
    return write_with(target, plan, out)


def plan_file(
    path: Path,
    recipe: str,
    data: Path | None,
    *,
    lesson: str = "",
    seed: int = 0,
    split: str = "auto",
    told: Told = NOTHING,
    tell: Callable[[str], None] = lambda _: None,
    track: Track = silent,
) -> Plan:
    """Apply one recipe to a float `.onnx` classifier from anywhere. What recipes look at are the images of the
    `calibrate` role: of DATA's own split, of the one that `split` names, or all of DATA where it has none.

    Raises UsageError where images or names for the outputs are needed and nobody gave them.
    """
    from quantward.graph.from_onnx import from_onnx

    require_lesson(lesson, [recipe])
    made = RECIPES.make(recipe)
    if data is None and made.needs != "nothing":
        raise UsageError(f"Expected --data for {recipe!r}, which looks at images; got none. Name some like its own.")
    dataset = None if data is None else open_dataset(data, track=track)
    variant = open_variant(path, told, None if dataset is None else dataset.classes, tell)
    if variant.classes == unnamed(len(variant.classes)):
        raise UsageError(
            f"Expected names for the {len(variant.classes)} outputs of {path.name}; got none. Say --classes or --data."
        )
    parent = from_onnx(path, variant.preprocess, variant.classes, layout=variant.layout, outputs=variant.outputs)
    if data is None or made.needs == "nothing":
        return plan_with(recipe, parent, Context(images=lambda n: iter(()), seed=seed, progress=track))
    dataset, fold = _roles(data, split, seed, tell, track)
    pixels = cached(dataset, parent.preprocess, track)
    context = calibration(pixels, fold, parent.preprocess, seed=seed, track=track)
    if made.needs == "training":
        if not len(fold.train):
            raise UsageError(f"Expected a split of {data} for {recipe!r}, which trains; got none. Say --split own.")
        context = replace(context, fit=lessons(dataset, pixels, fold, parent, lesson=lesson, seed=seed,
                                               track=track))  # fmt: skip
    return plan_with(recipe, parent, context)


def _roles(data: Path, split: str, seed: int, tell: Callable[[str], None], track: Track) -> tuple[Dataset, Fold]:
    """The images and who plays which role: by DATA's own split, by the one asked for, or all for calibration."""
    dataset = open_dataset(data, track=track)
    if split != "auto" or {"train", "test"} <= set(dataset.splits or ()):
        prepared = prepare(data, split, track=track)
        made = published_fold if prepared.published else draw_fold
        return prepared.dataset, made(prepared.dataset, seed=seed)
    tell(f"Looking at all {len(dataset)} images of {data}: judge the file on others, or say --split own.")
    none = np.zeros(0, np.int64)
    return dataset, Fold(0, 1, seed, dataset.fingerprint, none, none, np.arange(len(dataset)), none, none)


def plan_run(
    run: Path, recipe: str, data: Path | None, *, lesson: str = "", seed: int = 0, track: Track = silent
) -> Plan:
    """Apply one recipe to a RUN's float Plan. `data` is needed by recipes that look at images.

    A recipe that trains keeps its state in RUN/trained: killed, it goes on there; done, its Plan is taken up again. It
    trains for cross-entropy, or for the loss of the training stage that `lesson` spells.
    """
    require_lesson(lesson, [recipe])
    if RECIPES.make(recipe).needs == "nothing":
        context = Context(images=lambda n: iter(()), seed=seed, progress=track)
        return plan_with(recipe, load_plan(run / "plan"), context)
    if data is None:
        raise UsageError(f"Expected --data for {recipe!r}, which calibrates on images; got none. Name the run's data.")
    return plan_of(open_run(run, data, track=track), recipe, run / "trained", lesson=lesson, seed=seed, track=track)


def plan_of(opened: Run, recipe: str, home: Path, *, lesson: str = "", seed: int = 0, track: Track = silent) -> Plan:
    """`plan_run` for a RUN that is open. A recipe that trains keeps its state below `home`."""
    require_lesson(lesson, [recipe])
    made, parent = RECIPES.make(recipe), opened.plan
    pixels = cached(opened.dataset, parent.preprocess, track)
    context = calibration(pixels, opened.fold, parent.preprocess, seed=seed, track=track)
    if made.needs == "training":
        fit = lessons(opened.dataset, pixels, opened.fold, parent, lesson=lesson, seed=seed, track=track)
        asked = (spelling(made), parent.parent, opened.fold.dataset, str(seed), __version__,
                 *map(str, fit.taught.values()))  # fmt: skip
        folder = home / digest_text(*asked)[:16]
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
