"""The candidates of a search: made, timed, run, compared and audited. What is done stays in the search's folder.

A killed search goes on where it was: a file is taken up again when it still has its hash, predictions when this very
file has already seen these very images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from quantward import __version__
from quantward.audit.equivalence import Agreement, agreement, require_equal
from quantward.benching import Asked, Effort, time_rows
from quantward.core.contracts import Context
from quantward.core.errors import QuantwardError, Refused
from quantward.core.progress import Track
from quantward.core.store import digest_file, digest_text, read_json, write_json
from quantward.core.values import Dataset, Efficiency, Fold, ImageArray, IntArray, Plan, Predictions, Variant
from quantward.evaluate import Gates
from quantward.evaluate.predictions import load, save
from quantward.graph.files import load_plan, save_plan
from quantward.workbench import (
    RECIPES,
    network_inputs,
    open_session,
    open_variant,
    plan_with,
    predictions_of,
    require_lesson,
    write_with,
)


@dataclass(frozen=True)
class Step:
    """One step of the ladder: candidates of the same precision, of which `select` images choose one."""

    precision: str
    recipes: tuple[str, ...]


AUTO = "auto"
CALIBRATORS = ("max", "percentile", "mse", "entropy")
RATIOS = (0.22, 0.18)
"""Bytes of mixed INT8/INT4 weights as shares of the FP32 weights': the first is the largest that makes a file four
times smaller with its graph counted, the second lies half-way to all INT4."""


LADDER = (
    Step("FP16", ("fp16",)),
    Step(
        "INT8",
        (
            "int8-dynamic",
            *(f"int8-static:calibrator={name}" for name in CALIBRATORS),
            "int8-static:reduce_range=true",
            "int8-static:placement=joint",
        ),
    ),
    Step("INT8/INT4", tuple(f"mixed:ratio={ratio}" for ratio in RATIOS)),
    Step("INT4", ("low-bit", "int4-weights")),
)


@dataclass(frozen=True)
class Search:
    """What a search was asked: everything that decides its result, and nothing that does not. With the runtime `auto`
    the fastest installed one is taken (`placing.settle`). `lesson` spells the training stage whose loss recipes that
    train do so for; none for cross-entropy."""

    gates: Gates
    ladder: tuple[Step, ...] = LADDER
    target: str = "onnx-cpu"
    runtime: str = AUTO
    threads: int = 1
    replicates: int = 10_000
    seed: int = 0
    discordance: float = 0.04
    subgroups: tuple[str, ...] = ()
    lesson: str = ""

    def __post_init__(self) -> None:
        require_lesson(self.lesson, [recipe for step in self.ladder for recipe in step.recipes])


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
    made = RECIPES.make(recipe)
    table = getattr(made, "table", None)
    read = digest_file(Path(table)) if table and Path(table).is_file() else ""
    fit = work.context.fit
    taught = fit.taught.values() if fit is not None and made.needs == "training" else ()
    asked = (recipe, read, parent.parent, work.fold.dataset, images, str(work.search.seed), work.search.target,
             __version__, *map(str, taught))  # fmt: skip
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


def simulated(made: Made) -> Variant:
    """The Plan folder itself as a Variant, for the torch-float runtime."""
    return replace(made.variant, format="plan", path=made.plan, max_batch=None)


def prove_export(work: Work, runtime: str | None = None) -> Agreement:
    """First of all: the FP32 file computes what PyTorch computes, on every `select` image, or the search stops."""
    made, runtime = work.made["fp32"], runtime or work.search.runtime
    inputs = network_inputs(work.pixels, work.fold.select, made.variant.preprocess)
    found = agreement(
        open_session(simulated(made), "torch-float", work.search.threads),
        open_session(made.variant, runtime, work.search.threads),
        work.track(inputs, f"FP32 file on {runtime} against PyTorch"),
    )
    require_equal(found, f"the FP32 file on {runtime}")
    return found


EFFORT = Effort(rounds=15, seconds=1.5, starts=1)
"""Less than `quantward bench` takes: a search times a dozen files, and its gates ask for a tenth."""


def time_all(work: Work, runtimes: Sequence[str] = ()) -> dict[str, dict[str, Efficiency]]:
    """Latency, memory and size of every file on some runtimes (that of the search where none is named), all in turns:
    runtime -> recipe -> what it costs. What cannot be timed on any of them has failed."""
    search = work.search
    names = tuple(runtimes) or (search.runtime,)
    files = [(name, made.variant) for name, made in work.made.items()]
    asked = [Asked(file, runtime, search.threads, name) for runtime in names for name, file in files]
    rows, _ = time_rows(asked, EFFORT, seed=search.seed, track=work.track)
    found: dict[str, dict[str, Efficiency]] = {runtime: {} for runtime in names}
    for row in rows:
        if row.latency:
            found[row.runtime][row.name] = row
    found = {runtime: costs for runtime, costs in found.items() if "fp32" in costs}
    for row in rows:
        if row.name == "fp32" and not found:
            raise Refused(f"Expected to time the FP32 file on {row.runtime}; {row.failure}")
        if not any(row.name in costs for costs in found.values()):
            work.failures.setdefault(row.name, row.failure)
    return found


def on_select(work: Work, recipe: str) -> Predictions:
    """Predictions of the `select` images, on which choices are made, thresholds frozen and temperatures fitted."""
    return predictions(work, recipe, work.fold.select, work.dataset, work.pixels, "select")


def divergence(baseline: Predictions, candidate: Predictions) -> float:
    """Mean over images of KL(p || q) = sum_k p_k log(p_k / q_k), in nats; q is held above 1e-12."""
    p, q = baseline.probabilities, np.maximum(candidate.probabilities, 1e-12)
    return float(np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / q), 0.0).sum(1).mean())


def predictions(
    work: Work, recipe: str, indices: IntArray, dataset: Dataset, pixels: ImageArray, role: str
) -> Predictions:
    """Predictions of a deployed file, read back where this very file has already seen these images."""
    variant, search = work.made[recipe].variant, work.search
    chosen = digest_text(dataset.fingerprint, str(np.asarray(indices).tolist()))[:12]
    runtime = search.runtime.replace(":", "-")
    path = work.folder / "predictions" / f"{variant.sha256[:16]}.{runtime}.{role}.{chosen}.csv"
    if path.exists():
        return replace(load(path), source=recipe)
    session = open_session(variant, search.runtime, search.threads)
    said = predictions_of(session, dataset, indices, pixels, variant.preprocess, recipe, work.track)
    save(said, path)
    return replace(load(path), source=recipe)
