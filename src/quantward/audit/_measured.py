"""Signatures that show only when the file has run: its answers, its arithmetic, its bytes and its time."""

from __future__ import annotations

import numpy as np

from quantward.audit._signature import NAMED, Signature, points
from quantward.audit.arithmetic import arithmetic
from quantward.audit.capped import Capped
from quantward.audit.saturation import HIGHEST, facts, saturation
from quantward.audit.size import size
from quantward.core.contracts import Executed
from quantward.core.values import Efficiency, Latency, Plan, Predictions, Variant

COLLAPSED = 0.95
"""Share of all answers that name one class, where neither the truth nor the baseline reaches it: the gate's limit."""

DRIFTED = 0.25
"""How much larger that share may grow over the baseline's before it is worth a warning."""

OVERHEAD = 0.25
"""Share by which a file may exceed what its bits promise; structure and names of a real network take about a tenth."""

STRUCTURE = 2048
"""Bytes of structure a step may take besides, so that a tiny network is not blamed for its names."""

SLOWER = 1.1
"""Ratio of median latencies from which fewer bits count as slower; less than that two runs of one file differ by."""


def collapse(predictions: Predictions | None, baseline: Predictions | None) -> Signature | None:
    """Nearly all images called one class, or many more than the baseline calls so."""
    if predictions is None or len(predictions) == 0:
        return None
    calls = _calls(predictions)
    k = int(calls.argmax())
    truth = float((np.asarray(predictions.truth) == k).mean())
    before = None if baseline is None else float(_calls(baseline)[k])
    known = max(truth, before or 0.0)
    gone = calls[k] > COLLAPSED and known <= COLLAPSED
    if not gone and calls[k] - known <= DRIFTED:
        return None
    told = "" if before is None else f" (baseline {points(before)} %)"
    return Signature(
        "single-class-collapse", "error" if gone else "warning",
        f"{points(calls[k])} % of the images are called {predictions.classes[k]!r}{told}, {points(truth)} % are. "
        "Find the layer that loses its signal (the other signatures name it) and keep it in more bits (keep=LAYER), "
        "or train with quantization.",
        figures={"class": predictions.classes[k], "share": float(calls[k]), "baseline": before, "truth": truth},
    )  # fmt: skip


def _calls(predictions: Predictions) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    top = np.asarray(predictions.probabilities).argmax(1)
    return np.asarray(np.bincount(top, minlength=len(predictions.classes)) / len(top), np.float64)


def no_numbers(predictions: Predictions | None) -> Signature | None:
    """Answers that are NaN or infinite."""
    if predictions is None:
        return None
    bad = int((~np.isfinite(np.asarray(predictions.probabilities)).all(1)).sum())
    if not bad:
        return None
    return Signature(
        "fp16-overflow", "error",
        f"{bad:,} of {len(predictions):,} images get NaN or infinity for an answer. Values overflow on this runtime: "
        "use bf16 or INT8.", figures={"images": bad, "of": len(predictions)},
    )  # fmt: skip


def float_layers(plan: Plan, executed: Executed | None) -> Signature | None:
    """Layers that the Plan stores and feeds in integers and the runtime computes in float."""
    if executed is None:
        return None
    found = arithmetic(plan, executed)
    missing = found.meant - found.integer
    if missing <= 0:
        return None
    kinds = ", ".join(f"{name} x{n}" for name, n in sorted(found.float_operators.items())) or "not named by the runtime"
    return Signature(
        "float-layers", "error" if found.integer == 0 else "warning",
        f"{missing} of the {found.meant} layers meant as integers run in float ({kinds}). Their operators have no "
        "integer kernel here or were not fused: try another runtime or target, or keep those layers in float on "
        "purpose (keep=LAYER).",
        figures={"meant": found.meant, "integer": found.integer, "float_operators": found.float_operators},
    )  # fmt: skip


def saturates(plan: Plan, capped: Capped | None, least: float) -> Signature | None:
    """Sums of two products beyond 16 bits, weighed by what a capped run showed where there was one."""
    layers = saturation(plan)
    told = facts(layers)
    if not told or not told["possible_layers"]:
        return None
    agreement = None if capped is None else capped.agreement
    broken = agreement is not None and agreement < least
    if agreement is None:
        seen = f"Whether it matters was not measured: {capped.reason if capped is not None else 'no capped run'}."
    else:
        seen = f"Capped at AVX2, {points(agreement)} % of the images keep their class ({points(least)} % wanted)."
    cure = "int8-static:reduce_range=true cannot saturate" + (": use it." if broken else ", should it ever matter.")
    return Signature(
        "instruction-set", "error" if broken else "note" if agreement is not None else "warning",
        f"Without VNNI {told['possible_layers']} of {told['layers']} layers can overflow 16 bits (worst sum "
        f"{told['worst']:,}, limit {HIGHEST:,}). {seen} {cure}",
        tuple(one.layer for one in layers if one.possible)[:NAMED],
        {"possible_layers": told["possible_layers"], "share": told["share"], "worst": told["worst"],
         "capped_agreement": agreement},
    )  # fmt: skip


def not_smaller(
    plan: Plan, variant: Variant | None, efficiency: Efficiency | None, baseline: Efficiency | None
) -> Signature | None:
    """A file as large as the FP32 file, or far larger than what its bits promise."""
    ours = variant.bytes if variant is not None else efficiency.bytes if efficiency is not None else None
    if ours is None or not plan.tensors:
        return None
    before = baseline.bytes if baseline is not None else None
    promised = None if variant is None else size(plan, variant).promised
    figures = {"bytes": ours, "baseline_bytes": before, "promised_bytes": promised}
    if before is not None and ours >= before:
        return Signature(
            "not-smaller", "error",
            f"{ours:,} bytes are no fewer than FP32's {before:,}. Look for float weights that the target kept beside "
            "the integers, and use another target.", figures=figures,
        )  # fmt: skip
    if promised is not None and ours > (1 + OVERHEAD) * promised + STRUCTURE * len(plan.program):
        return Signature(
            "not-smaller", "warning",
            f"{ours:,} bytes where the bits promise {promised:,} (+{points(ours / promised - 1, 0)} %). Some "
            "weights are stored wider than planned: use a target that stores these bits.", figures=figures,
        )  # fmt: skip
    return None


def slower(efficiency: Efficiency | None, baseline: Efficiency | None) -> Signature | None:
    """A median latency above FP32's on the same runtime, one image at a time (or the smallest batch both have)."""
    ours, theirs = _by_batch(efficiency), _by_batch(baseline)
    shared = sorted(set(ours) & set(theirs))
    if not shared or efficiency is None or theirs[shared[0]].p50 <= 0:
        return None
    one, two = theirs[shared[0]], ours[shared[0]]
    ratio = two.p50 / one.p50
    if ratio <= SLOWER:
        return None
    noisy = not (one.reliable and two.reliable)
    return Signature(
        "slower", "note" if noisy else "warning",
        f"{two.p50:.2f} ms at batch {one.batch} against FP32's {one.p50:.2f} ms on {efficiency.runtime} ({ratio:.1f} "
        f"times){', on a machine too noisy to be sure' if noisy else ''}. Steps between the integers cost more than "
        "they save: use static ranges, or another runtime.",
        figures={"ratio": ratio, "batch": one.batch, "noisy": noisy},
    )  # fmt: skip


def _by_batch(efficiency: Efficiency | None) -> dict[int, Latency]:
    return {} if efficiency is None else {item.batch: item for item in efficiency.latency}
