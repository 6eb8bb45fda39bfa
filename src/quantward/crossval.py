"""K folds as K ordinary runs: train each, ask it about the images it never saw, pool the answers.

Every image is tested once, by a network that neither trained nor chose on its patient. OUT holds the runs `fold-0`,
`fold-1`, ..., the pooled `predictions.csv` and `folds.json`; each run holds its own `predictions.csv`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

import numpy as np

from quantward.core.contracts import Batch
from quantward.core.errors import Refused, UsageError
from quantward.core.progress import Track, silent
from quantward.core.store import plain, write_json
from quantward.core.values import ROLES, Dataset, Evaluation, Fold, Model, Predictions
from quantward.data import load_fold, make_folds, save_fold
from quantward.evaluate import evaluate, predictions
from quantward.evaluate.metrics import OVERALL, overall, undefined
from quantward.runs import prepare, train_fold
from quantward.workbench import cached, predictions_of

POOLED, RECORD = "predictions.csv", "folds.json"
T = TypeVar("T")


@dataclass(frozen=True)
class CrossValidated:
    """What K runs say of images that they never saw: pooled, and fold by fold."""

    folder: Path
    pooled: Predictions
    folds: tuple[Predictions, ...]
    evaluation: Evaluation

    def values(self, name: str) -> list[float | None]:
        """One metric in each fold, None where it is undefined there."""
        return [
            None if undefined(name, fold) else overall(name, fold.truth, np.asarray(fold.probabilities))
            for fold in self.folds
        ]

    def document(self) -> dict[str, Any]:
        """Plain data: each metric pooled with its interval, and by fold with mean and sample standard deviation.

        The interval is that of the pooled images. The spread of folds is no standard error: their training images
        overlap.
        """
        metrics = {}
        for name in OVERALL:
            values = self.values(name)
            known = [value for value in values if value is not None]
            metrics[name] = {
                "pooled": plain(self.evaluation.overall[name]),
                "folds": values,
                "mean": fmean(known) if known else None,
                "sd": stdev(known) if len(known) > 1 else None,
            }
        return {
            "n": len(self.pooled),
            "classes": list(self.pooled.classes),
            "counts": [len(fold) for fold in self.folds],
            "metrics": metrics,
        }

    def sentences(self) -> list[str]:
        """The main metrics for people, a line each."""
        lines = []
        for name in ("accuracy", "balanced_accuracy", "auroc", "auprc", "ece"):
            row = self.document()["metrics"][name]
            pooled = row["pooled"]
            if pooled["value"] is None:
                lines.append(f"{name}: {pooled['reason']}")
                continue
            each = ", ".join("-" if value is None else f"{value:.3f}" for value in row["folds"])
            spread = "" if row["sd"] is None else f"; mean {row['mean']:.3f}, sd {row['sd']:.3f}"
            bounds = f"{pooled['low']:.3f} to {pooled['high']:.3f}" if pooled["low"] is not None else "no interval"
            lines.append(f"{name}: pooled {pooled['value']:.3f} ({bounds}); folds {each}{spread}")
        return lines


def train_folds(
    data: Path,
    out: Path,
    *,
    folds: int = 5,
    arch: str = "mobilenetv2_100",
    weights: str | None = None,
    stage: str = "fit",
    size: int | None = None,
    split: str = "auto",
    seed: int = 0,
    replicates: int = 2000,
    track: Track = silent,
) -> CrossValidated:
    """Train `folds` stratified folds, no patient in two roles of one; leave a RUN for each in `out`, and the pooled
    predictions. The same command goes on at the fold, epoch and batch where it was killed.

    A published split plays no part: every image is tested once. `split` is `own` (also by `auto`), or `ungrouped`,
    which leaks (`runs.prepare`). Raises UsageError for one that asks for a published split,
    Refused where a class has fewer patients than folds or `out` holds other folds.
    """
    if split not in ("auto", "own", "ungrouped"):
        raise UsageError(f"Expected --split own (or none) with --folds; got {split!r}. Every fold tests its own part.")
    how = "own" if split == "auto" else split
    dataset = prepare(data, how, track=track).dataset
    parts = make_folds(dataset, folds=folds, seed=seed)
    homes = [out / f"fold-{fold.number}" for fold in parts]
    for fold, home in zip(parts, homes, strict=True):
        _claim(fold, home, dataset)
    told = []
    for fold, home in zip(parts, homes, strict=True):
        # The label of the fold stands before whatever the training itself shows.
        shown = _labelled(track, f"fold {fold.number + 1}/{folds}")
        model = train_fold(dataset, fold, home, arch=arch, weights=weights, stage=stage, size=size, split=how,
                           seed=seed, track=shown)  # fmt: skip
        told.append(_predicted(model, dataset, fold, home, shown))
    pooled = predictions.pooled(told, out.name)
    predictions.save(pooled, out / POOLED)
    found = CrossValidated(out, pooled, tuple(told), evaluate(pooled, replicates=replicates, seed=seed, track=track))
    record = {"folds": folds, "seed": seed, "stage": stage, "arch": arch, "dataset": dataset.fingerprint}
    write_json(out / RECORD, {"format": 1, **record, **found.document()})
    return found


def _claim(fold: Fold, home: Path, dataset: Dataset) -> None:
    """Write a fold where its run will be, before anything is trained; refuse a folder that holds another."""
    path = home / "fold.json"
    if not path.exists():
        save_fold(fold, path)
        return
    old = load_fold(path, dataset)
    same = all(np.array_equal(old.role(role), fold.role(role)) for role in ROLES)
    if not same or (old.number, old.of, old.seed) != (fold.number, fold.of, fold.seed):
        raise Refused(
            f"Expected fold {fold.number} of {fold.of} (seed {fold.seed}) in {home}; it holds fold {old.number} of "
            f"{old.of} (seed {old.seed}). Give the old command, or choose another --out."
        )


def _predicted(model: Model, dataset: Dataset, fold: Fold, home: Path, track: Track) -> Predictions:
    """What a fold's network says of its test images; read back where it has been asked already."""
    import torch

    path = home / POOLED
    if not path.exists():

        def session(batch: Batch) -> Batch:
            with torch.inference_mode():
                return np.asarray(model.net(torch.from_numpy(batch)).numpy(), np.float32)

        pixels = cached(dataset, model.preprocess, track)
        made = predictions_of(session, dataset, fold.test, pixels, model.preprocess, home.name, track)
        predictions.save(made, path)
    return replace(predictions.load(path), source=home.name)


def _labelled(track: Track, before: str) -> Track:
    """The same progress, with a label before each of its own."""

    def shown(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        return track(items, f"{before}, {label}", total)

    return shown
