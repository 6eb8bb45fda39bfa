"""Studies made of numbers drawn by chance and judged by the real statistics: what tables and figures have to show.

Everything lies where a study puts it: `study.json` (the design) and one folder a step in the store.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from quantward.core.store import digest_text, plain, write_json
from quantward.core.values import Efficiency, Latency, Predictions, Speedup
from quantward.evaluate.paired import compare
from quantward.evaluate.single import evaluate
from quantward.study.store import FolderStore
from quantward.study.values import Failed, Row, Step, Trial

CLASSES = ("glioma", "meningioma", "no tumour", "pituitary")
REPLICATES = 40
NOISE = {"fp32": 0.0, "fp16": 0.01, "int8-static": 0.15, "int8-dynamic": 0.4, "low-bit": 0.8, "qat": 0.08, "mixed": 0.5}
SHRUNK = {"fp32": 1.0, "fp16": 1.99, "int8-static": 3.7, "int8-dynamic": 3.6, "low-bit": 4.4, "qat": 3.7, "mixed": 5.0}


def key(*parts: object) -> str:
    return digest_text(*map(str, parts))


def predictions(recipe: str, backbone: str, data: str, n: int, seed: int) -> Predictions:
    """A decent classifier; the coarser the recipe, the more noise on the same logits."""
    rng = np.random.default_rng([len(backbone), len(data)])
    truth = rng.permutation(np.arange(n) % len(CLASSES))
    scores = rng.normal(0, 1, (n, len(CLASSES)))
    scores[np.arange(n), truth] += rng.normal(2.6, 1.0, n)
    noise = NOISE[recipe.partition(":")[0]]
    scores += noise * np.random.default_rng([seed, len(recipe)]).normal(0, 1, scores.shape)
    shares = np.exp(scores)
    ids = tuple(f"image-{i:04}" for i in range(n))
    return Predictions(ids, truth, shares / shares.sum(1, keepdims=True), CLASSES, f"{backbone} {recipe}")


def study(**changed: Any) -> dict[str, Any]:
    """A study file as read."""
    return {
        "format": 1,
        "name": "made-up",
        "title": "A made-up study",
        "paper": {"file": "papers/none.md", "citation": "Nobody N. Nothing at all. Journal of Nowhere 1:1, 2020."},
        "data": {"brain": {"path": "brain", "split": "own"}},
        "folds": 2,
        "seed": 0,
        "backbones": ["mobilenetv2_100", "resnet18", "vit_tiny_patch16_224"],
        "stages": ["fit:epochs=2"],
        "recipes": ["fp32", "fp16", "int8-static:samples={samples}"],
        "lessons": [""],
        "vary": {"samples": [16, 100, 1000]},
        "targets": ["onnx-cpu"],
        "runtimes": ["onnxruntime"],
        "threads": 1,
        "gates": "clinical",
        "replicates": REPLICATES,
        "bench": {"batches": [1, 32], "seconds": 1},
        "sensitivity": "int8-static",
        "published": [
            {"row": "B2", "where": {"data": "brain", "recipe": "fp32"}, "metric": "ece", "value": 0.0067,
             "cite": "Table 1"},
            {"row": "B3", "where": {"backbone": "resnet18", "recipe": "fp32"}, "metric": "p50@1", "value": 6.7,
             "cite": "Table 4"},
            {"row": "B1", "where": {"backbone": "resnet50", "recipe": "fp32"}, "metric": "auroc", "value": 0.999,
             "cite": "Figure 1"},
        ],
        "tables": ["discrimination", "calibration", "per-class", "efficiency", "latency", "tradeoff", "criteria",
                   "sweep", "sensitivity"],
        "figures": ["regimes", "tradeoff", "forest", "sweep", "latency:batch=1", "reliability", "layers"],
        "cut": ["FP16 on a graphics card: this machine has none."],
        **changed,
    }  # fmt: skip


def make(
    folder: Path, file: Mapping[str, Any] | None = None, *, broken: Sequence[str] = (), waiting: Sequence[str] = (),
    n: int = 120,
) -> Path:  # fmt: skip
    """Write a study with every step carried out, but for the recipes `broken` (their score failed) and `waiting`."""
    asked = dict(file or study())
    store = FolderStore(str(folder / "store"))
    rows, trials = [], []
    timed: dict[str, list[Any]] = {}
    grid = itertools.product(asked["data"], asked["backbones"], asked["stages"], _filled(asked, "recipes"),
                             _filled(asked, "lessons"), asked["targets"], asked["runtimes"])  # fmt: skip
    for place in grid:
        data, backbone, stage, recipe, lesson, target, runtime = place
        if lesson and recipe.partition(":")[0] not in ("low-bit", "qat"):
            continue
        mine = tuple(range(len(trials), len(trials) + asked["folds"]))
        trials += [Trial(data, fold, *place[1:], step=key("said", fold, *place)) for fold in range(asked["folds"])]
        row = Row(
            *place,
            score=key("score", *place),
            trials=mine,
            bench=key("bench", data, backbone) if asked.get("bench") else "",
            drift=key("drift", *place) if recipe != "fp32" else "",
            sensitivity=key("sensitivity", data, backbone) if asked.get("sensitivity") else "",
        )
        rows.append(row)
        name = recipe.partition(":")[0]
        if name in broken:
            reason = f"Expected {name} to work; it did not. <b>Try</b> later."
            store.fail(Failed(row.score, "score", recipe, reason))
        if name in broken or name in waiting:
            continue
        facts, documents = _scored(recipe, backbone, data, n, 1 + len(lesson))
        for file_name, whole in documents.items():
            write_json(store.scratch(row.score) / file_name, whole)
        keep(store, row.score, "score", facts)
        if row.drift:
            keep(
                store, row.drift, "drift", {"rank correlation": {"value": 0.9 - NOISE[name] / 4, "low": 0.6, "high": 1}}
            )
        if row.bench:
            label = " · ".join(part for part in (stage, recipe, lesson, target) if part)
            line = plain(_timed(label, recipe, runtime, asked["bench"]["batches"]))
            timed.setdefault(row.bench, []).append(line)
        if row.sensitivity:
            keep(store, row.sensitivity, "sensitivity", _layers())
    for bench, lines in timed.items():
        keep(store, bench, "bench", {"rows": lines})
    write_json(folder / "study.json", {"name": asked["name"], "study": asked, "rows": rows, "trials": trials,
                                       "command": "quantward study made-up.yaml"})  # fmt: skip
    return folder


def keep(store: FolderStore, step: str, kind: str, facts: Mapping[str, Any]) -> None:
    """Finish a step; one that several rows share is finished once."""
    if store.find(step) is None:
        store.keep(Step(step, kind, kind), facts, 1.0)


def _filled(asked: Mapping[str, Any], what: str) -> list[str]:
    found = []
    for text in asked[what]:
        names = [name for name in asked.get("vary", {}) if "{" + name + "}" in text]
        for values in itertools.product(*(asked["vary"][name] for name in names)):
            found += [text.format(**dict(zip(names, values, strict=True)))]
    return found


@lru_cache(maxsize=256)
def _scored(recipe: str, backbone: str, data: str, n: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a score step would leave: its facts and its files."""
    said = predictions(recipe, backbone, data, n, seed)
    found = evaluate(said, replicates=REPLICATES)
    name = recipe.partition(":")[0]
    facts: dict[str, Any] = {
        "n": len(said),
        "folds": 2,
        "metrics": {
            metric: {"value": one.value, "low": one.low, "high": one.high, "folds": [], "mean": None, "sd": None}
            for metric, one in found.overall.items()
        },
        "deltas": {},
        "flips": None,
        "verdict": None,
        "bytes": int(9_000_000 / SHRUNK[name]),
        "agreement": 0.998,
        "integer_share": 0.0 if name in ("fp32", "fp16") else 0.98,
    }
    documents: dict[str, Any] = {"evaluation.json": plain(found)}
    if recipe != "fp32":
        against = compare(predictions("fp32", backbone, data, n, 1), said, replicates=REPLICATES, seed=0)
        facts["deltas"] = {metric: {"delta": one.delta, "low": one.low, "high": one.high, "p": one.p}
                           for metric, one in against.deltas.items()}  # fmt: skip
        facts["flips"] = {"count": against.flips.count, "rate": against.flips.rate, "low": against.flips.low,
                          "high": against.flips.high}  # fmt: skip
        low = against.deltas["accuracy"].low
        facts["verdict"] = "PASS" if low is not None and low > -0.02 else "INSUFFICIENT EVIDENCE"
        documents["comparison.json"] = plain(against)
    return plain(facts), documents


def _timed(label: str, recipe: str, runtime: str, batches: Sequence[int]) -> Efficiency:
    name = recipe.partition(":")[0]
    faster = {"fp32": 1.0, "fp16": 1.01, "int8-static": 2.4}.get(name, 1.7)
    latency = tuple(Latency(batch, 9.0 * batch**0.9 / faster, 10.0 * batch**0.9 / faster, 12.0 * batch**0.9 / faster,
                            60, 0.16 if name == "fp16" else 0.03) for batch in batches)  # fmt: skip
    gains = tuple(Speedup(f"fp32 on {runtime}", batch, faster, faster * 0.97, faster * 1.04, 30) for batch in batches)
    return Efficiency(label, runtime, int(9_000_000 / SHRUNK[name]), 2.5, latency, 120.0, 200_000_000, "made up", 1,
                      recipe, key("bytes", label), "", None, () if name == "fp32" else gains)  # fmt: skip


def _layers() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    mind = np.exp(rng.normal(-7, 2, 30))
    layers = [
        {"layer": f"blocks.{i}.conv", "bits": {"weights": 8, "activations": 8}, "bytes": 1000,
         "fisher": float(mind[i] * np.exp(rng.normal(0, 0.5))), "divergence": float(mind[i]), "changed": 0.01,
         "accuracy": -0.002}
        for i in range(30)
    ]  # fmt: skip
    return {"layers": layers, "spearman": {"value": 0.91, "low": 0.8, "high": 0.96, "n": 30}}
