"""Sweeps over one model: which layers mind fewer bits, which table of bits is best at each size, and is it so in fact?

The ranking of layers predicts, on a few calibration images, what a table loses. A prediction is no result: the best
tables are therefore written as files and run on the `select` images, which neither calibration nor the test has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantward import __version__
from quantward.candidates import Search, Work, divergence, make, on_select, prove_export, time_all
from quantward.core.errors import QuantwardError, Refused, UsageError
from quantward.core.machine import describe
from quantward.core.progress import Track, silent
from quantward.core.store import digest_text, plain, read_json, write_json
from quantward.core.values import Efficiency, Predictions
from quantward.evaluate import read_gates
from quantward.report.front import write_front
from quantward.runs import open_run
from quantward.workbench import cached, calibration, in_model_order, network_inputs

if TYPE_CHECKING:
    from quantward.quantize._knapsack import Front
    from quantward.quantize._sensitivity import By, Sensitivity

SHOWN = 60
"""Points of the front in the record: the front itself may have thousands."""


@dataclass(frozen=True)
class Tried:
    """One table of the front as a deployed file, on the `select` images. `predicted` and `promised` are the loss (nats)
    and bytes that the front told; the rest was measured, or `failure` says why not."""

    recipe: str
    predicted: float
    promised: int
    bytes: int | None = None
    divergence: float | None = None
    accuracy: float | None = None
    changed: float | None = None
    milliseconds: float | None = None
    spread: float | None = None
    failure: str = ""


def sensitivity_run(
    run: Path,
    data: Path,
    folder: Path,
    *,
    samples: int = 64,
    offer: Sequence[str] | None = None,
    by: By = "one-at-a-time",
    measure: bool = True,
    top: int = 5,
    latency: Path | None = None,
    milliseconds: float | None = None,
    target: str = "onnx-cpu",
    runtime: str = "onnxruntime",
    threads: int = 1,
    seed: int = 0,
    track: Track = silent,
) -> dict[str, Any]:
    """Rank the layers of a RUN on `samples` calibration images, find the front, try the `top` tables as files.

    Without `measure` layers are ranked by gradients alone. `latency` is a JSON file {layer: {width: milliseconds}} that
    was measured; with `milliseconds` only tables within that sum are tried. Writes sensitivity.json, front.json,
    tables/ and front.html below `folder`, keeps what is done there, and returns the whole record as plain data.
    """
    from quantward.quantize._sensitivity import sensitivity, solve
    from quantward.quantize._static import Static
    from quantward.quantize._trials import OFFER, spelled, widths

    if samples < 1 or top < 0:
        raise UsageError(f"Expected samples of at least 1 and top of at least 0; got {samples} and {top}. Mend them.")
    if milliseconds is not None and latency is None:
        raise UsageError("Expected --latency FILE.json with --milliseconds; got none. Measure the layers' times first.")
    chosen, times = widths(offer or OFFER), None if latency is None else _times(latency)
    opened = open_run(run, data, track=track)
    parent, dataset = opened.plan, in_model_order(opened.dataset, opened.plan.classes)
    pixels = cached(dataset, parent.preprocess, track)
    context = calibration(pixels, opened.fold, parent.preprocess, seed=seed, track=track)
    rows = np.sort(np.random.default_rng(seed).permutation(np.asarray(opened.fold.calibrate))[:samples])
    found = sensitivity(
        parent,
        context,
        chosen,
        Static(rounding="adaptive"),
        list(network_inputs(pixels, rows, parent.preprocess)),
        measure=measure,
        labels=np.asarray(dataset.labels)[rows],
        folder=folder / "parts",
        track=track,
    )
    by = by if measure else "fisher"
    front, names = solve(found, by, times)
    about = {"run": run, "dataset": dataset.name, "parent": parent.parent, "seed": seed, "quantward": __version__}
    write_json(folder / "sensitivity.json", {**about, **plain(found)})
    tables = _tables(front, names, found, folder / "tables", top, milliseconds, about)
    search = Search(read_gates("clinical"), target=target, runtime=runtime, threads=threads, seed=seed)
    work = Work(search, dataset, opened.fold, pixels, folder, track, context)
    tried = _try(work, parent, front, tables) if tables else []
    record = {
        **about,
        "machine": describe(),
        "by": by,
        "images": found.images,
        "select_images": len(opened.fold.select),
        "offer": [*map(spelled, found.offer)],
        "float_bytes": found.float_bytes,
        "correlations": plain(found.correlations),
        "costs": plain(found.costs),
        "exact": front.exact,
        "layers": names,
        "points": [_point(front, point, found) for point in front.spread(SHOWN)],
        "tried": plain(tried),
    }
    write_json(folder / "front.json", record)
    write_front(plain(record), folder / "front.html")
    return record


def _times(path: Path) -> dict[str, dict[str, float]]:
    """Measured milliseconds by layer and width. Raises Refused for anything that is not that."""
    found = read_json(path)
    right = isinstance(found, dict) and all(
        isinstance(row, dict)
        and all(isinstance(ms, (int, float)) and not isinstance(ms, bool) and ms >= 0 for ms in row.values())
        for row in found.values()
    )
    if not right:
        raise Refused(
            f'Expected {{"layer": {{"w8a8": milliseconds, ...}}, ...}} in {path}; got something else. Mend the file.'
        )
    return {name: {width: float(ms) for width, ms in row.items()} for name, row in found.items()}


def _point(front: Front, point: int, found: Sensitivity) -> dict[str, Any]:
    """One point of the front for the record; `widths` stand in the order of the record's layers."""
    from quantward.quantize._trials import spelled

    widths = [spelled(found.offer[pick]) for pick in front.picks(point)]
    shown = {"bytes": int(front.bytes[point]), "predicted": float(front.loss[point]), "widths": " ".join(widths)}
    return shown | ({"milliseconds": float(front.milliseconds[point])} if front.milliseconds.any() else {})


def _tables(
    front: Front,
    names: Sequence[str],
    found: Sensitivity,
    folder: Path,
    top: int,
    milliseconds: float | None,
    about: Mapping[str, Any],
) -> dict[str, int]:
    """Recipe -> point, for `top` tables from the least bytes to the least loss, each written as a file.

    A file's name holds the digest of its table, so that a changed table is never taken for an old one.
    """
    from quantward.quantize._sensitivity import table_of
    from quantward.quantize._table import write_table

    if top == 0:
        return {}
    if milliseconds is None:
        points = front.spread(top)
    else:
        if front.best(np.inf, milliseconds) is None:
            raise Refused(
                f"Expected tables within {milliseconds:g} ms; the fastest takes {front.milliseconds.min():g} ms. "
                "Allow more, or offer fewer bits."
            )
        fits = front.bytes[front.milliseconds <= milliseconds]
        goals = np.linspace(fits.min(), fits.max(), top)
        points = sorted({point for goal in goals if (point := front.best(goal, milliseconds)) is not None})
    made: dict[str, int] = {}
    for point in points:
        table = table_of(front, point, names, found.offer)
        share = front.bytes[point] / found.float_bytes
        path = folder / f"{1000 * share:03.0f}-{digest_text(str(table))[:8]}.json"
        write_table(table, path, **about, bytes=int(front.bytes[point]), predicted=float(front.loss[point]))
        made[f"mixed:table={path}"] = point
    return made


def _try(work: Work, parent: Any, front: Front, tables: Mapping[str, int]) -> list[Tried]:
    """Every table as its deployed file, beside the FP32 file: made, timed in turns, run on the `select` images."""
    work.made["fp32"] = make(work, "fp32", parent)
    prove_export(work)
    for recipe in work.track(list(tables), "write tables"):
        try:
            work.made[recipe] = make(work, recipe, parent)
        except QuantwardError as error:
            work.failures[recipe] = str(error)
    costs = time_all(work)[work.search.runtime]
    base = on_select(work, "fp32")
    right = float((base.probabilities.argmax(1) == base.truth).mean())
    whole = work.made["fp32"].variant.bytes
    tried = [Tried("fp32", 0.0, whole, whole, 0.0, right, 0.0, *_latency(costs["fp32"]))]
    for recipe, point in tables.items():
        row = Tried(recipe, float(front.loss[point]), int(front.bytes[point]), failure=work.failures.get(recipe, ""))
        if not row.failure:
            try:
                row = _measured(work, recipe, row, costs[recipe], base)
            except QuantwardError as error:
                row = Tried(recipe, row.predicted, row.promised, failure=str(error))
        tried.append(row)
    return tried


def _measured(work: Work, recipe: str, row: Tried, cost: Efficiency, base: Predictions) -> Tried:
    said = on_select(work, recipe)
    top, answers = base.probabilities.argmax(1), said.probabilities.argmax(1)
    return Tried(
        recipe,
        row.predicted,
        row.promised,
        work.made[recipe].variant.bytes,
        divergence(base, said),
        float((answers == said.truth).mean()),
        float((answers != top).mean()),
        *_latency(cost),
    )


def _latency(cost: Efficiency) -> tuple[float | None, float | None]:
    """Median milliseconds of one image, and their spread."""
    one = next((row for row in cost.latency if row.batch == 1), None)
    return (None, None) if one is None else (one.p50, one.spread)
