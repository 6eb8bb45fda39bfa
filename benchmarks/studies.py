"""How fast a large finished study is planned and shown: 10,000 trials with made-up results, through the real commands.

    python benchmarks/studies.py                          # 10,000 trials in 5 folds: 2,000 rows
    python benchmarks/studies.py --folds 1                # 10,000 trials that are a row each

The study is expanded as ever, then each of its steps gets a result by hand (nothing is trained). `quantward study
--dry-run` and `quantward report` run as processes of their own; wall-clock seconds, median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from quantward.core.progress import bar
from quantward.core.store import plain, write_json, write_text
from quantward.core.values import Efficiency, Latency
from quantward.evaluate.metrics import OVERALL
from quantward.study.design import design
from quantward.study.schema import read_study
from quantward.study.values import Design, Done, Step

CLASSES = ("glioma", "healthy", "meningioma", "pituitary")
RECIPES = ("int8-static:samples={n}", "int8-static:calibrator=entropy,samples={n}")
BACKBONES = ("mobilenetv2_100", "resnet18", "densenet121", "vit_tiny_patch16_224")


def study_file(folds: int, trials: int) -> str:
    """A study of at least so many trials: recipes over as many calibration-set sizes as it takes."""
    sizes = max(1, math.ceil((trials / (folds * len(BACKBONES)) - 2) / len(RECIPES)))
    return f"""format: 1
name: large
title: A large study
data: {{scans: {{toy: 400}}}}
folds: {folds}
size: 32
backbones: [{", ".join(f"{{arch: {name}, weights: none}}" for name in BACKBONES)}]
stages: ["fit:epochs=1"]
vary: {{n: [{", ".join(map(str, range(1, sizes + 1)))}]}}
recipes: [fp16, {", ".join(f'"{text}"' for text in RECIPES)}]
bench: {{batches: [1, 32], seconds: 1}}
published:
  - {{row: B2, where: {{recipe: fp32}}, metric: ece, value: 0.0067, cite: Table 1}}
tables: [discrimination, calibration, per-class, efficiency, latency, tradeoff, criteria, "sweep:over=n"]
figures: [regimes, tradeoff, forest, "sweep:over=n,metric=auprc", latency, reliability]
cut: [Everything is made up.]
"""


def facts_of(step: Step, made: Design, rng: np.random.Generator) -> dict[str, Any]:
    """What a step of that kind would have found."""
    if step.kind == "score":
        base = 0.9 + 0.02 * rng.normal()
        one = {"value": base, "low": base - 0.02, "high": base + 0.02, "folds": [base] * 5, "mean": base, "sd": 0.01}
        far = {"delta": 0.003 * rng.normal(), "low": -0.01, "high": 0.01, "p": 0.4}
        lone = not any(part.startswith("baseline") for part in step.needs)
        return {"n": 400, "folds": 5, "metrics": dict.fromkeys(OVERALL, one), "bytes": 2_500_000, "agreement": 0.998,
                "deltas": {} if lone else dict.fromkeys(OVERALL, far), "verdict": None if lone else "PASS",
                "flips": None if lone else {"count": 3, "rate": 0.01, "low": 0.0, "high": 0.02},
                "integer_share": 0.98}  # fmt: skip
    if step.kind == "bench":
        rows = []
        for part in step.needs:
            label = part.removeprefix("file/")
            latency = tuple(Latency(size, 3.0 * size, 3.5 * size, 4.0 * size, 30, 0.04) for size in (1, 32))
            recipe = label.split(" · ")[1]
            rows.append(Efficiency(label, "onnxruntime", 2_500_000, 1.0, latency, 300.0, recipe=recipe))
        return {"rows": plain(rows)}
    return {"sha256": "0" * 64, "bytes": 2_500_000, "seconds": 1.0, "file": "model.onnx", "n": 80}


def evaluation(rng: np.random.Generator) -> str:
    """An evaluation as a score leaves it."""
    one = {"value": 0.93, "low": 0.9, "high": 0.95, "n": 400, "n_positive": 100, "reason": ""}
    bins = [{"low": k / 15, "high": (k + 1) / 15, "count": 20, "confidence": (k + 0.5) / 15,
             "frequency": float(np.clip((k + 0.5) / 15 + 0.05 * rng.normal(), 0, 1))} for k in range(15)]  # fmt: skip
    names = ("auroc", "auprc", "f1", "sensitivity", "specificity", "brier", "ece", "ece_debiased")
    return json.dumps({
        "source": "made up", "n": 400, "classes": CLASSES, "counts": dict.fromkeys(CLASSES, 100),
        "overall": dict.fromkeys(OVERALL, one), "per_class": {name: dict.fromkeys(CLASSES, one) for name in names},
        "reliability": dict.fromkeys(CLASSES, bins), "confusion": [[90, 4, 3, 3]] * 4, "notes": {},
    })  # fmt: skip


def finish(made: Design, store: Path, rng: np.random.Generator) -> None:
    """A result for each step, as the store lays them out (without waiting for the disk)."""
    import hashlib

    whole = evaluation(rng).encode()
    digest = hashlib.sha256(whole).hexdigest()
    for step in bar(list(made.steps.values()), "make results up"):
        home = store / step.key[:2] / step.key
        home.mkdir(parents=True)
        files = {}
        if step.kind == "score":
            (home / "evaluation.json").write_bytes(whole)
            told = (home / "evaluation.json").stat()
            files["evaluation.json"] = digest
            (home / "seen.json").write_text(json.dumps({"evaluation.json": [told.st_size, told.st_mtime_ns]}))
        done = Done(step.key, step.kind, step.label, facts_of(step, made, rng), files, 1.0, {"cores": 2})
        (home / "result.json").write_text(json.dumps(plain(done)))


def timed(*command: str | Path) -> tuple[float, str]:
    """Wall-clock seconds of a command that has to succeed, and what it said."""
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "quantward", *map(str, command)], capture_output=True, text=True,
                          check=False)  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")
    return time.perf_counter() - before, done.stdout


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--trials", type=int, default=10_000)
    asked.add_argument("--folds", type=int, default=5)
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        file, out = folder / "large.yaml", folder / "large"
        write_text(file, study_file(given.folds, given.trials))
        before = time.perf_counter()
        made = design(read_study(file), folder)
        expanded = time.perf_counter() - before
        finish(made, out / "store", np.random.default_rng(0))
        write_json(out / "study.json", {"format": 1, "name": made.name, "scale": "full", "command": "", "store": "",
                                        "study": made.study, "rows": made.rows, "trials": made.trials,
                                        "steps": made.steps})  # fmt: skip
        print(f"{len(made.trials):,} trials, {len(made.rows):,} rows, {len(made.steps):,} steps, all finished")
        print(f"expanded in {expanded:.1f} s, of which images take a part")
        plan, said = [], ""
        for _ in range(given.rounds):
            seconds, said = timed("study", file, "--data", folder, "--out", out, "--dry-run")
            plan.append(seconds)
        print(said)
        shown = [timed("report", out)[0] for _ in range(given.rounds)]
        page = (out / "report.html").stat().st_size
        for name, found in (("study --dry-run", plan), ("report", shown)):
            print(f"{name:16} {statistics.median(found):5.1f} s (median of {len(found)}; {min(found):.1f} to "
                  f"{max(found):.1f})")  # fmt: skip
        print(f"report.html {page / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
