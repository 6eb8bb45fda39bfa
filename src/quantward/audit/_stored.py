"""Signatures that a Plan and its calibration images show before anything runs: ranges, levels, dead channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.audit._signature import NAMED, Severity, Signature, points
from quantward.audit.channels import Channels, grids
from quantward.core.values import Plan, QuantSpec
from quantward.graph.stored import broadcast, to_integers
from quantward.graph.walk import SQUASHING, input_key, inputs_of, layers, readers, weight_of

HALF = 65504.0
"""Largest finite value of IEEE 754 binary16."""

DEAD_GRAVE, DEAD_COSTLY = 0.25, 0.01
"""Share of a tensor's channels: one dead channel in a hundred starts to cost, a quarter is a network without a limb."""

CLIPPED_CHANNEL = 0.10
"""Share of a channel's mass beyond the grid that is worth a look; calibrators cut off well below one per cent."""

CLIPPED_GRAVE, CLIPPED_COSTLY = 0.10, 0.01
"""Share of a whole tensor's mass beyond its grid. `percentile`, the boldest calibrator, cuts off less than 0.001."""

OUTLIER = 4.0
"""How many times the range exceeds that of 99.9 % of the values: at 4 the bulk has lost two of its bits."""

STARVED_WEIGHT = 1 / 16
"""Share of the levels that a channel's weights span: below a sixteenth four of its bits are gone."""

STARVED_ACTIVATION = 1 / 8
"""Share of the levels that the median channel of an activation spans: below an eighth half of the channels have lost
three bits, which is where accuracy began to fall on real networks."""

TENSORS = 4
"""Activations whose histograms go into the report."""


def of_plan(plan: Plan, parent: Plan, channels: Mapping[str, Channels]) -> list[Signature | None]:
    """The signatures of a Plan, given what its channels are like on calibration images (may be empty)."""
    return [
        overflow(plan, channels),
        dead(plan, parent, channels),
        clipped(plan, channels),
        outliers(plan),
        unequal(plan, channels),
    ]


def overflow(plan: Plan, channels: Mapping[str, Channels]) -> Signature | None:
    """Half-precision weights beyond 65504, and steps whose values on calibration images would be."""
    halves = [name for name, spec in plan.tensors.items() if spec.format == "float16"]
    if not halves:
        return None
    reach = {name: float(np.abs(plan.weights[name]).max(initial=0.0)) for name in halves if name in plan.weights}
    weights = [name for name, value in reach.items() if not value <= HALF]
    steps = {name: _reach(item.low, item.high) for name, item in channels.items()}
    beyond = [name for name, value in steps.items() if not value <= HALF]
    if not weights and not beyond:
        return None
    largest = max([reach[name] for name in weights] + [steps[name] for name in beyond])
    where = f"{len(weights)} weights" if weights else f"{len(beyond)} steps on calibration images"
    cure = (
        "Use bf16 or INT8, or rescale the layers." if weights
        else "This file computes in float32 and is safe; on a runtime that computes in half precision use bf16 or INT8."
    )  # fmt: skip
    return Signature(
        "fp16-overflow", "error" if weights else "warning",
        f"{where} reach {largest:.3g}, beyond the {HALF:g} of half precision. {cure}",
        tuple([*weights, *beyond][:NAMED]),
        {"weights": len(weights), "steps": len(beyond), "largest": largest, "limit": HALF},
    )  # fmt: skip


def dead(plan: Plan, parent: Plan, channels: Mapping[str, Channels]) -> Signature | None:
    """Channels of an integer weight that are all zero though they are not in float, and channels of an activation that
    never leave the zero point though they are not zero."""
    counts: dict[str, tuple[int, int]] = {}
    for name, spec in _integer_weights(plan):
        rows = np.abs(to_integers(plan.weights[name], spec) - broadcast(spec, plan.weights[name].shape)[1])
        original = np.abs(np.asarray(parent.weights.get(name, plan.weights[name])))
        gone = (_rows(rows).max(1) == 0) & (_rows(original).max(1) > 0)
        if gone.any():
            counts[name] = (int(gone.sum()), len(gone))
    for name, spec in grids(plan).items():
        if name not in channels:
            continue
        low, high = channels[name].low, channels[name].high
        gone = (_levels(low, spec) == 0) & (_levels(high, spec) == 0) & (np.maximum(-low, high) > 0)
        if gone.any():
            counts[name] = (int(gone.sum()), len(gone))
    if not counts:
        return None
    names = sorted(counts, key=lambda name: -counts[name][0] / counts[name][1])
    worst = counts[names[0]][0] / counts[names[0]][1]
    total = sum(gone for gone, _ in counts.values())
    return Signature(
        "dead-channels", _grade(worst, DEAD_GRAVE, DEAD_COSTLY),
        f"{_count(total, 'channel')} of {_count(len(counts), 'tensor')} {'is' if total == 1 else 'are'} alive in float "
        f"and rounded to nothing; worst is {names[0]} with {counts[names[0]][0]} of {counts[names[0]][1]}. "
        "Equalise (equalise=0.5) and give each channel its own weight scale (per_channel=true).",
        tuple(names[:NAMED]), {"channels": total, "tensors": len(counts), "worst_share": worst},
    )  # fmt: skip


def clipped(plan: Plan, channels: Mapping[str, Channels]) -> Signature | None:
    """Activations whose grid cuts off much of a channel's mass, or of the whole tensor's, on calibration images.

    What only a ReLU, a SiLU or the like reads is left out: they flatten the very part that a good range leaves out.
    """
    read_by = readers(plan.program)
    whole: dict[str, float] = {}
    single: dict[str, float] = {}
    hit = 0
    for name in grids(plan):
        users = read_by.get(name, [])
        if name in channels and not (users and all(user.op in SQUASHING for user in users)):
            shares, mass = channels[name].clipped, float(channels[name].mass.sum())
            whole[name] = float(channels[name].beyond.sum()) / mass if mass else 0.0
            single[name] = float(shares.max(initial=0.0))
            hit += int((shares > CLIPPED_CHANNEL).sum())
    names = [n for n in whole if whole[n] > CLIPPED_COSTLY or single[n] > CLIPPED_CHANNEL]
    if not names:
        return None
    names.sort(key=lambda name: (-whole[name], -single[name]))
    most = max(names, key=lambda name: single[name])
    return Signature(
        "clipped-channels", _grade(whole[names[0]], CLIPPED_GRAVE, CLIPPED_COSTLY),
        f"{_count(len(names), 'activation')} {'is' if len(names) == 1 else 'are'} cut off: {names[0]} loses "
        f"{points(whole[names[0]])} % of its mass, the worst channel ({most}) {points(single[most], 0)} % of its own. "
        "Use a calibrator that clips less (calibrator=mse or max), or more calibration images.",
        tuple(names[:NAMED]),
        {"tensors": len(names), "channels": hit, "worst_tensor": whole[names[0]], "worst_channel": single[most]},
    )  # fmt: skip


def outliers(plan: Plan) -> Signature | None:
    """Activations whose grid is more than `OUTLIER` times as wide as what 99.9 % of the values need."""
    found = {name: item for name, item in _bulk(plan).items() if item["excess"] > OUTLIER}
    if not found:
        return None
    names = sorted(found, key=lambda name: found[name]["bulk_levels"])
    worst = found[names[0]]
    return Signature(
        "outlier-dominated", "warning",
        f"{_count(len(names), 'activation')} {'spends' if len(names) == 1 else 'spend'} most levels on a few values: "
        f"in {names[0]} 99.9 % of the values share {worst['bulk_levels']:.0f} of {worst['levels']} levels. "
        "Use a calibrator that clips (calibrator=mse, percentile or entropy) or equalise (equalise=0.5).",
        tuple(names[:NAMED]),
        {"tensors": len(names), "worst_bulk_levels": worst["bulk_levels"], "levels": worst["levels"],
         "worst_excess": max(item["excess"] for item in found.values())},
    )  # fmt: skip


def unequal(plan: Plan, channels: Mapping[str, Channels]) -> Signature | None:
    """Weights and activations with one scale whose channels differ so much that small ones are left a few levels."""
    used: dict[str, tuple[float, int]] = {}
    weights = 0
    for name, spec in _integer_weights(plan):
        if np.asarray(spec.scale).ndim:
            continue
        reach = _rows(np.abs(plan.weights[name])).max(1)
        spans = 2 * reach[reach > 0] / float(spec.scale)
        if len(spans) > 1 and spans.min() < STARVED_WEIGHT * (spec.high - spec.low):
            used[name] = (float(spans.min()) + 1, spec.high - spec.low + 1)
            weights += 1
    for name, spec in grids(plan).items():
        if name not in channels or len(channels[name].low) < 2:
            continue
        spans = _levels(channels[name].high, spec) - _levels(channels[name].low, spec)
        if float(np.median(spans)) < STARVED_ACTIVATION * (spec.high - spec.low):
            used[name] = (float(np.median(spans)) + 1, spec.high - spec.low + 1)
    if not used:
        return None
    names = sorted(used, key=lambda name: used[name][0] / used[name][1])
    worst = names[0]
    who = "its smallest channel" if worst in plan.weights else "half of its channels"
    cures = ["give each weight channel its own scale (per_channel=true)"] if weights else []
    cures += ["equalise (equalise=0.5)"] if weights < len(used) else []
    cure = " and ".join(cures)
    return Signature(
        "unequal-channels", "warning",
        f"{_count(len(used), 'tensor')} with one scale {'starves' if len(used) == 1 else 'starve'} small channels: in "
        f"{worst} {who} {'has' if worst in plan.weights else 'have'} at most {max(used[worst][0], 1):.0f} of "
        f"{used[worst][1]} levels. {cure[0].upper()}{cure[1:]}.",
        tuple(names[:NAMED]),
        {"weights": weights, "activations": len(used) - weights, "worst_levels": used[worst][0],
         "levels": used[worst][1]},
    )  # fmt: skip


def worst_activations(plan: Plan, channels: Mapping[str, Channels]) -> dict[str, dict[str, Any]]:
    """The activations whose bulk gets the smallest share of levels, with their histograms: what the report draws."""
    found = _bulk(plan)
    names = sorted(found, key=lambda name: (found[name]["bulk_levels"] / found[name]["levels"], name))[:TENSORS]
    drawn = {}
    for name in names:
        drawn[name] = dict(found[name])
        if name in channels:
            drawn[name]["worst_channel_clipped"] = float(channels[name].clipped.max(initial=0.0))
    return drawn


def _bulk(plan: Plan) -> dict[str, dict[str, Any]]:
    """Each stored activation with its calibration range, its grid, and how many levels 99.9 % of its values get."""
    notes = plan.notes.get("activations")
    if not isinstance(notes, Mapping):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name, spec in grids(plan).items():
        seen = notes.get(_origin(plan, name, notes))
        if not isinstance(seen, Mapping):
            continue
        step, zero = float(spec.scale), float(spec.zero_point)
        bottom, top = (spec.low - zero) * step, (spec.high - zero) * step
        inner = min(top, max(seen["inner_high"], 0.0)) - max(bottom, min(seen["inner_low"], 0.0))
        levels = min(inner / step, spec.high - spec.low) + 1
        found[name] = {
            **seen,
            "grid_low": bottom,
            "grid_high": top,
            "levels": spec.high - spec.low + 1,
            "bulk_levels": levels,
            "excess": (top - bottom) / inner if inner > 0 else 1.0,
        }
    return found


def _origin(plan: Plan, name: str, notes: Mapping[str, Any]) -> str:
    """The step whose histogram belongs to a stored activation: itself, or the one its values were moved from."""
    by_name = {node.name: node for node in plan.program}
    sources = {input_key(layer.name): inputs_of(layer)[0] for layer in layers(plan.program)}
    name = sources.get(name, name)
    while name not in notes and name in by_name and len(inputs_of(by_name[name])) == 1:
        name = inputs_of(by_name[name])[0]
    return name


def _integer_weights(plan: Plan) -> Iterable[tuple[str, QuantSpec]]:
    for layer in layers(plan.program):
        spec = plan.tensors.get(weight_of(layer))
        if spec is not None and spec.format == "integer":
            yield weight_of(layer), spec


def _rows(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.reshape(len(array), -1)


def _levels(values: npt.NDArray[np.float64], spec: QuantSpec) -> npt.NDArray[np.float64]:
    """Stored integers of some values, counted from the zero point."""
    zero = np.asarray(spec.zero_point, np.float64)
    return np.asarray(np.clip(np.rint(values / np.asarray(spec.scale, np.float64)) + zero, spec.low, spec.high) - zero)


def _reach(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> float:
    """Largest |value|; infinite where one is not a number."""
    largest = float(np.maximum(-low, high).max(initial=0.0))
    return largest if np.isfinite(largest) else float("inf")


def _grade(value: float, grave: float, costly: float) -> Severity:
    return "error" if value >= grave else "warning" if value >= costly else "note"


def _count(amount: int, one: str) -> str:
    return f"{amount:,} {one}{'' if amount == 1 else 's'}"
