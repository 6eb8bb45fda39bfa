"""Pools what the folds said and judges it: leaves the evaluation, the comparison with FP32, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, ClassVar

from quantward.core.store import plain, write_json, write_text
from quantward.core.values import Comparison, Efficiency, Evaluation, Predictions
from quantward.evaluate import assess, evaluate, judge, measured, read_gates
from quantward.evaluate.predictions import load, pooled, save
from quantward.evaluate.verdict import Gates
from quantward.study.values import Workplace

SAID = "predictions.csv"


@dataclass(frozen=True)
class Score:
    """Patients are resampled whole, over the pooled images of all folds: each was tested once, by a network that had
    not seen it."""

    rooms: ClassVar[tuple[str, ...]] = ("evaluate", "study.steps.score")
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def run(self, place: Workplace) -> Mapping[str, Any]:
        asked, folder = place.step.asked, place.folder
        mine = _facts(place, "candidate")
        said = pooled(_told(place, "candidate"), str(mine[0]["recipe"]))
        save(said, folder / SAID)
        other = _told(place, "baseline")
        options = {"replicates": asked["replicates"], "seed": asked["seed"], "track": place.track}
        told: dict[str, Any] = {"deltas": {}, "flips": None, "verdict": None}
        if not other:
            evaluation = evaluate(said, **options)
        else:
            theirs = _facts(place, "baseline")
            base = pooled(other, str(theirs[0]["recipe"]))
            comparison, before, evaluation = assess(base, said, **options)
            sizes = _size(theirs), _size(mine)
            comparison = measured(comparison, *sizes)
            gates = _gates(asked["gates"], folder)
            verdict = judge(comparison, before, evaluation, gates, baseline_efficiency=sizes[0],
                            candidate_efficiency=sizes[1], audit=_audit(mine))  # fmt: skip
            write_json(folder / "comparison.json", comparison)
            write_json(folder / "verdict.json", verdict)
            told = {**_compared(comparison), "verdict": verdict.outcome,
                    "findings": {finding.code: finding.status for finding in verdict.findings}}  # fmt: skip
        write_json(folder / "evaluation.json", evaluation)
        return {
            "n": len(said),
            "folds": len(mine),
            "counts": dict(evaluation.counts),
            "metrics": _metrics(evaluation, mine),
            **told,
            "bytes": round(fmean(one["bytes"] for one in mine)),
            **_audit(mine),
        }


def _told(place: Workplace, whose: str) -> list[Predictions]:
    """The predictions of one side, a fold each."""
    return [load(place.inputs[part] / SAID) for part in _parts(place, whose)]


def _facts(place: Workplace, whose: str) -> list[Mapping[str, Any]]:
    return [place.facts[part] for part in _parts(place, whose)]


def _parts(place: Workplace, whose: str) -> list[str]:
    mine = [part for part in place.inputs if part.startswith(f"{whose}/")]
    return sorted(mine, key=lambda part: int(part.rpartition("/")[2]))


def _gates(asked: str | Mapping[str, Any], folder: Path) -> Gates:
    """The gates of the study: a preset, or a mapping, which is written beside the verdict."""
    if isinstance(asked, str):
        return read_gates(asked)
    path = folder / "gates.yaml"
    write_text(path, json.dumps(plain(asked), indent=1) + "\n")
    return read_gates(path)


def _size(folds: list[Mapping[str, Any]]) -> Efficiency:
    """All that is known of a file's cost here: its bytes. Times are the bench's."""
    return Efficiency(str(folds[0]["recipe"]), "", round(fmean(one["bytes"] for one in folds)), 0.0, ())


def _audit(folds: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several folds the worst: a gate holds for each file that was measured."""
    found = {}
    for name in ("agreement", "integer_share"):
        values = [one[name] for one in folds if one.get(name) is not None]
        if values:
            found[name] = min(values)
    return found


def _metrics(evaluation: Evaluation, folds: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Each metric pooled with its interval, and by fold. The spread of folds is no standard error: their training
    images overlap."""
    found = {}
    for name, one in evaluation.overall.items():
        values = [fold["metrics"].get(name) for fold in folds]
        known = [value for value in values if value is not None]
        found[name] = {
            **{key: value for key, value in plain(one).items() if value not in (None, "") or key == "value"},
            "folds": values,
            "mean": fmean(known) if known else None,
            "sd": stdev(known) if len(known) > 1 else None,
        }
    return found


def _compared(comparison: Comparison) -> dict[str, Any]:
    deltas = {name: {key: getattr(one, key) for key in ("delta", "low", "high", "p", "p_holm", "reason")}
              for name, one in comparison.deltas.items()}  # fmt: skip
    flips = comparison.flips
    return {
        "deltas": deltas,
        "flips": {"count": flips.count, "rate": flips.rate, "low": flips.low, "high": flips.high},
        "smaller": comparison.smaller,
    }
