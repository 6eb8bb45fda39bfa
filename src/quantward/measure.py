"""Deployed files and prediction files, measured: run one, compare two; and images, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from quantward.core.errors import UsageError
from quantward.core.progress import Track, silent
from quantward.core.store import read_json
from quantward.core.values import Comparison, Predictions, Verdict
from quantward.data import Report, check, leak_free, load_fold, open_dataset, split, write_split
from quantward.evaluate import assess, judge, read_gates
from quantward.evaluate.attributes import load_attributes
from quantward.evaluate.power import sentence
from quantward.evaluate.predictions import load
from quantward.incoming import NOTHING, Told, is_plain, require_card
from quantward.runs import prepare
from quantward.workbench import (
    cached,
    in_model_order,
    open_session,
    open_variant,
    predictions_of,
    runtime_for,
    whole,
)

TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class Compared:
    """A comparison and what the gates made of it."""

    comparison: Comparison
    verdict: Verdict


def run_variant(
    path: Path,
    data: Path,
    *,
    run: Path | None = None,
    runtime: str | None = None,
    threads: int = 1,
    told: Told = NOTHING,
    tell: Callable[[str], None] = lambda _: None,
    track: Track = silent,
) -> Predictions:
    """Predictions of a deployed file on all images of DATA, or on the test images of a RUN's fold. `told` says how to
    feed an `.onnx` file that has no card; `tell` hears what was concluded from that."""
    if run is None:
        dataset = open_dataset(data, track=track)
        rows = whole(dataset)
    else:
        dataset = prepare(data, read_json(run / "data.json")["split"], track=track).dataset
        rows = load_fold(run / "fold.json", dataset).test
    variant = open_variant(path, told, dataset.classes, tell)
    dataset = in_model_order(dataset, variant.classes)
    session = open_session(variant, runtime or runtime_for(variant, path), threads)
    pixels = cached(dataset, variant.preprocess, track)
    return predictions_of(session, dataset, rows, pixels, variant.preprocess, variant.name, track)


def compare_files(
    baseline: Path,
    candidate: Path,
    data: Path | None = None,
    *,
    gates: str = "clinical",
    method: str = "percentile",
    replicates: int = 10_000,
    seed: int = 0,
    select: tuple[Path, Path] | None = None,
    attributes: Path | None = None,
    report: Path | None = None,
    told: Told = NOTHING,
    tell: Callable[[str], None] = lambda _: None,
    track: Track = silent,
) -> Compared:
    """Compare two prediction files or, given DATA, two deployed files; optionally write an HTML page.

    `select` holds prediction files of both models on other images (thresholds and temperatures are set there),
    `attributes` is a CSV `id,<attribute>,...` for the subgroup table, `told` says how to feed `.onnx` files that have
    no card. Raises UsageError where a deployed file comes
    without images to run it on.
    """
    asked = read_gates(gates)
    told_of = {path: told if is_plain(path) else NOTHING for path in (baseline, candidate)}
    if told != NOTHING and not any(map(is_plain, told_of)):
        require_card(baseline, told)
    before, after = (_said(path, data, told_of[path], tell, track) for path in (baseline, candidate))
    comparison, *figures = assess(
        before,
        after,
        replicates=replicates,
        seed=seed,
        method=cast(Literal["percentile", "bca", "eq3"], method),
        attributes=None if attributes is None else load_attributes(attributes, before.ids),
        select=None if select is None else (load(select[0]), load(select[1])),
        track=track,
    )
    verdict = judge(comparison, figures[0], figures[1], asked)
    if report is not None:
        from quantward.report.html import write_comparison

        write_comparison(
            comparison,
            before,
            after,
            verdict,
            report,
            baseline_evaluation=figures[0],
            candidate_evaluation=figures[1],
            gates=asked.document(),
        )
    return Compared(comparison, verdict)


def _said(path: Path, data: Path | None, told: Told, tell: Callable[[str], None], track: Track) -> Predictions:
    if path.suffix in TABLES:
        return load(path)
    if data is None:
        raise UsageError(f"Expected images to run {path} on; got none. Add DATA, or compare two prediction files.")
    return run_variant(path, data, told=told, tell=tell, track=track)


@dataclass(frozen=True)
class Checked:
    """What is wrong with some images, what a leak-free test set can prove, and the split file that was written."""

    report: Report
    power: str
    split: Path | None

    def document(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        report = self.report
        return {
            "dataset": report.dataset,
            "images": report.n,
            "readable": report.readable,
            "distinct": report.distinct,
            "duplicates": report.duplicates,
            "counts": report.counts,
            "findings": [
                {"code": flaw.code, "severity": flaw.level, "count": flaw.count, "sentence": flaw.text,
                 "cases": flaw.cases}
                for flaw in report.flaws
            ],
            "power": self.power,
            "split": self.split,
        }  # fmt: skip


def check_data(
    data: Path,
    out: Path | None = None,
    *,
    folders: bool = False,
    margin: float = 0.02,
    discordance: float = 0.04,
    seed: int = 0,
    track: Track = silent,
) -> Checked:
    """Check DATA, say what the test part of a leak-free split can prove, and write that split to `out` when given.

    The power is that of proving a drop in accuracy below `margin`, at a share `discordance` of images that exactly
    one of the two models gets right.
    """
    dataset = open_dataset(data, labels_from="folders" if folders else "auto", track=track)
    report = check(dataset, track=track)
    clean, kept = leak_free(dataset, report)
    fold = split(clean, seed=seed)
    written = None if out is None else write_split(clean, fold, out)
    groups = len({clean.groups[i] for i in fold.test}) if clean.groups is not None else None
    power = sentence(len(fold.test), discordance, margin=margin, n_groups=groups)
    told = f"A leak-free split: {kept.sentence} Its test part: {power}"
    return Checked(report, told, written)
