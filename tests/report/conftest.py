"""Dossiers made of numbers drawn by chance and judged by the real statistics: what a report has to draw."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantward.core.values import Dossier, Efficiency, Entry, Evaluation, Latency, Predictions
from quantward.evaluate.paired import compare, measured
from quantward.evaluate.power import sentence
from quantward.evaluate.single import evaluate
from quantward.evaluate.verdict import judge, read_gates

BRAIN = ("glioma", "meningioma", "no tumour", "pituitary")
REPLICATES = 60


@dataclass(frozen=True)
class Candidate:
    """A candidate to invent: noise on the logits, how many times smaller and faster, or the reason it failed."""

    name: str
    recipe: str
    noise: float
    smaller: float
    faster: float
    bias: float = 0.0
    failure: str = ""
    spread: float = 0.03


LADDER = (
    Candidate("fp16", "fp16", 0.01, 2.0, 1.02),
    Candidate("int8-dynamic", "int8-dynamic", 0.5, 3.1, 0.71, spread=0.16),
    Candidate("int8-static", "int8-static:calibrator=percentile,samples=200", 0.12, 3.74, 2.12),
    Candidate("int8-static-max", "int8-static:calibrator=max", 2.6, 3.74, 2.11, bias=1.4),
    Candidate(
        "int4-mixed",
        "int4-mixed",
        0,
        0,
        0,
        failure="Convolution 'blocks.3' has 7 input channels; INT4 packs pairs.",
    ),
)


def logits(truth: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    """Logits of a decent classifier: the true class is lifted, neighbours are confused more often."""
    scores = generator.normal(0, 1, (len(truth), k))
    rows = np.arange(len(truth))
    scores[rows, truth] += generator.normal(2.9, 1.1, len(truth))
    scores[rows, (truth + 1) % k] += 0.5
    return 1.3 * scores


def softmax(scores: np.ndarray) -> np.ndarray:
    lifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return lifted / lifted.sum(axis=1, keepdims=True)


def cost(name: str, megabytes: float, p50: float, spread: float) -> Efficiency:
    latency = tuple(Latency(b, p50 * b**0.85, p50 * b**0.85 * 1.07, p50 * b**0.85 * 1.3, 50, spread) for b in (1, 16))
    return Efficiency(name, "onnxruntime", int(megabytes * 1e6), 12.4, latency, 1e3 / p50, 210_000_000, "A CPU")


def audited(one: Candidate) -> dict[str, Any]:
    """What the audits of an invented file found: the noisier the candidate, the more."""
    facts: dict[str, Any] = {
        "agreement": 1.0 - one.noise / 100,
        "agreement_images": 420,
        "largest_logit_difference": 0.29,
        "integer_layers": "52 of 53 run as integers",
        "integer_meant": 53,
        "integer_share": 0.98,
        "integer_layers_elsewhere": {"openvino": "53 of 53 run as integers"},
        "operators": {"QLinearConv": 52, "Conv": 1},
        "bytes": 2_558_087,
        "bytes_promised": 2_331_360,
        "bytes_overhead": 0.0973,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "signatures": [],
    }
    if one.noise > 0.1:
        levels = {
            "low": 0.0, "high": 6.0, "inner_low": 0.0, "inner_high": 1.14, "grid_low": 0.0, "grid_high": 5.2,
            "levels": 256, "bulk_levels": 49.2, "worst_channel_clipped": 0.12,
            "shares": [0.9 * 0.55**k + 2e-6 for k in range(48)],
        }  # fmt: skip
        both = {**levels, "low": -3.1, "inner_low": -0.9, "grid_low": -3.1, "bulk_levels": 101.0}
        facts["activations"] = {"blocks.3.3.bn2.act": levels, "blocks.5.1.add": both, "head:input": levels}
        facts["saturation"] = {"layers": 53, "possible_layers": 36, "worst": -64770, "limit": 32767, "share": 0.023,
                               "never_in_any_order": False}  # fmt: skip
        facts |= {"capped_agreement": 0.9805, "capped_images": 256, "capped_largest_logit_difference": 1.92,
                  "capped_cure": "reduce_range=true"}  # fmt: skip
        warned = {"code": "outlier-dominated", "title": "A few large values take the levels of all others",
                  "severity": "warning", "layers": ["blocks.3.3.bn2.act"], "figures": {"tensors": 1},
                  "sentence": "1 activation spends most levels on a few values. Use calibrator=mse."}  # fmt: skip
        facts["signatures"] = [warned]
    if one.noise > 2:
        collapsed = {"code": "single-class-collapse", "title": "Nearly all answers are one class", "severity": "error",
                     "layers": [], "figures": {"share": 0.97},
                     "sentence": "97.0 % of the images are called 'glioma'. Keep the layer in more bits."}  # fmt: skip
        facts["signatures"] = [collapsed, *facts["signatures"]]
    return facts


def dossier(
    classes: Sequence[str] = BRAIN,
    n: int = 420,
    candidates: Sequence[Candidate] = LADDER,
    *,
    chosen: str | None = "int8-static",
    grouped: bool = True,
    absent: int | None = None,
    external: bool = True,
    timed: bool = True,
    replicates: int = REPLICATES,
    seed: int = 7,
) -> Dossier:
    """A search over `candidates` on n invented images; class number `absent` has no image."""
    generator = np.random.default_rng(seed)
    k = len(classes)
    share = np.array([1.0 / (1 + 0.5 * i) for i in range(k)])
    if absent is not None:
        share[absent] = 0
    gates = read_gates("clinical")

    def entries(amount: int, prefix: str) -> tuple[Entry, ...]:
        truth = generator.choice(k, amount, p=share / share.sum())
        scores = logits(truth, k, generator)
        ids = tuple(f"{prefix}/{classes[t].replace(' ', '_')}/img-{i:04d}.jpg" for i, t in enumerate(truth))
        groups = tuple(f"patient-{i // 2}" for i in range(amount)) if grouped else None
        base = Predictions(ids, truth, softmax(scores), tuple(classes), "fp32", groups)
        level = evaluate(base, replicates=replicates)
        price = cost("fp32", 8.92, 11.03, 0.02) if timed else None
        rows = [Entry("fp32", "fp32", "onnxruntime", base, level, efficiency=price)]
        for one in candidates:
            if one.failure:
                rows.append(Entry(one.name, one.recipe, "onnxruntime", failure=one.failure))
                continue
            moved = scores + one.noise * generator.normal(0, 1, scores.shape)
            moved[:, 0] += one.bias
            ours = replace(base, probabilities=softmax(moved), source=one.name)
            found = compare(base, ours, replicates=replicates)
            paid = cost(one.name, 8.92 / one.smaller, 11.03 / one.faster, one.spread) if timed else None
            if price is not None and paid is not None:
                found = measured(found, price, paid)
            judged = evaluate(ours, replicates=replicates)
            audit = audited(one)
            verdict = judge(
                found, level, judged, gates, baseline_efficiency=price, candidate_efficiency=paid, audit=audit
            )
            rows.append(Entry(one.name, one.recipe, "onnxruntime", ours, judged, found, paid, verdict, audit))
        return tuple(rows)

    here = entries(n, "test")
    counts = {
        role: {c: int(10 + 7 * i) for i, c in enumerate(classes)} for role in ("train", "tune", "calibrate", "select")
    }
    counts["test"] = dict(here[0].evaluation.counts) if here[0].evaluation else {}
    return Dossier(
        title="MobileNetV2 on brain MRI",
        entries=here,
        chosen=chosen,
        images={
            "name": "brain_mri",
            "fingerprint": "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
            "fold": "1 of 5, seed 0",
            "groups": n // 2,
            "counts": counts,
            "warnings": (
                "39 images look alike across patients; look at pairs.csv.",
                {
                    "code": "label-conflict",
                    "severity": "error",
                    "sentence": "Image 17.jpg carries two labels.",
                },
            ),
        },
        gates=gates.document(),
        provenance={
            "made": "2026-01-05",
            "seed": 20260105,
            "machine": {"processor": "A CPU", "instructions": ["avx2", "avx512_vnni"], "cores": 2},
            "libraries": {"numpy": "2.1.0", "onnxruntime": "1.20.1"},
            "fold_fingerprint": "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7",
        },
        power=sentence(n, 0.04, margin=0.02, n_groups=n // 2 if grouped else None),
        choices=(
            {
                "step": "INT8",
                "candidate": "int8-static:calibrator=max",
                "accuracy": 0.861,
                "ece": 0.051,
                "chosen": False,
            },
            {
                "step": "INT8",
                "candidate": "int8-static:calibrator=percentile",
                "accuracy": 0.889,
                "ece": 0.034,
                "chosen": True,
            },
        ),
        external=entries(n // 2, "elsewhere") if external else (),
        external_images={"name": "brain_mri_external", "images": n // 2} if external else {},
    )


def pairs(count: int) -> tuple[Candidate, ...]:
    """As many candidates as wanted, each a little worse than the one before."""
    return tuple(
        Candidate(f"candidate-{i:02d}", f"int8-static:samples={50 * (i + 1)}", 0.05 + 0.22 * i, 3.5, 1.5)
        for i in range(count)
    )


def png(value: int = 90, edge: int = 16) -> bytes:
    """A grey PNG, written by hand so that a test needs no image library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((value + 5 * x + 3 * y) % 256 for x in range(edge)) for y in range(edge))
    head = struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def build() -> Callable[..., Dossier]:
    """The factory itself, for tests that need a Dossier of their own."""
    return dossier


@pytest.fixture(scope="session")
def usual() -> Dossier:
    """A search in which INT8 passes, one candidate fails, one is open and one could not be written."""
    return dossier()


@pytest.fixture(scope="session")
def picture() -> Callable[[str], bytes | None]:
    """Thumbnails for every image."""
    return lambda name: png(len(name))


@pytest.fixture(scope="session")
def rungs() -> Callable[[int], tuple[Candidate, ...]]:
    """`pairs`, for tests."""
    return pairs


@pytest.fixture(scope="session")
def measured_pair(usual: Dossier) -> tuple[Entry, Entry, Evaluation]:
    """Baseline, a measured candidate, and that candidate's evaluation."""
    entry = next(e for e in usual.entries if e.name == "int8-static")
    assert entry.evaluation is not None
    return usual.entries[0], entry, entry.evaluation


@pytest.fixture
def page_path(tmp_path: Path) -> Path:
    """Where a report goes."""
    return tmp_path / "report.html"
