"""What the audits of a file found, ready to print: signatures, facts in words, and the histograms of the worst ranges.

The audit of an entry is plain data whose keys may grow; what is absent or of another shape is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from quantward.core.values import Entry
from quantward.report._figures import histogram
from quantward.report._notes import inside
from quantward.report._words import ABSENT, MINUS, count, number, percent, signed, size, visible

SEVERITIES = ("error", "warning", "note")

ASKED = ("Same answers", "Layers in integers", "Bytes against bits", "Answers without VNNI", "Sums beyond 16 bits")
"""What every audit asks, in the order in which it is shown."""

LAYERS = 3
"""Layers that are named beside a signature; the audit's own record names more."""


@dataclass(frozen=True)
class Sign:
    """One failure signature: what it is called, how grave it is, what was seen and what cures it."""

    code: str
    title: str
    severity: str
    sentence: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """The histogram of one activation with a line on how its levels are spent."""

    name: str
    panel: Markup
    caption: str


@dataclass(frozen=True)
class Audit:
    """Everything the page shows about one file: (what was asked, answer, remark) beside signatures and histograms."""

    name: str
    signs: tuple[Sign, ...]
    looked: bool
    facts: tuple[tuple[str, str, str], ...]
    ranges: tuple[Range, ...]
    rest: Mapping[str, Any]


def audit(entry: Entry) -> Audit | None:
    """The audit of one entry; None where none was made."""
    given = entry.audit
    if not given:
        return None
    shown = [_agreement(given), _integers(given, entry.runtime), _size(given), _older(given), _sums(given)]
    apart = ("signatures", "activations", "saturation")
    return Audit(
        name=visible(entry.name),
        signs=signs(entry),
        looked="signatures" in given,
        facts=tuple(line for line in shown if line is not None),
        ranges=_ranges(given.get("activations")),
        rest={key: value for key, value in given.items() if key not in apart},
    )


def signs(entry: Entry) -> tuple[Sign, ...]:
    """The signatures of an entry, the gravest first, as they were recorded."""
    found = entry.audit.get("signatures")
    if not isinstance(found, (list, tuple)):
        return ()
    rows = [item for item in found if isinstance(item, Mapping) and item.get("severity") in SEVERITIES]
    return tuple(
        Sign(
            visible(row.get("code", "")),
            visible(row.get("title", "")),
            str(row["severity"]),
            visible(row.get("sentence", "")),
            _named(row.get("layers")),
        )
        for row in sorted(rows, key=lambda row: SEVERITIES.index(row["severity"]))
    )


def _named(layers: Any) -> tuple[str, ...]:
    return tuple(visible(name) for name in layers[:LAYERS]) if isinstance(layers, (list, tuple)) else ()


def _agreement(given: Mapping[str, Any]) -> tuple[str, str, str] | None:
    share, n = given.get("agreement"), given.get("agreement_images")
    if not isinstance(share, float) or not isinstance(n, int):
        return None
    gap = given.get("largest_logit_difference")
    remark = f"largest difference of a logit {gap:.2g}" if isinstance(gap, float) else ""
    return ASKED[0], f"{percent(share, 2)} of {count(n, 'image')}", remark


def _integers(given: Mapping[str, Any], runtime: str) -> tuple[str, str, str] | None:
    told = given.get("integer_layers")
    if not isinstance(told, str):
        return None
    elsewhere = given.get("integer_layers_elsewhere")
    others = elsewhere.items() if isinstance(elsewhere, Mapping) else ()
    every = [(runtime, told), *others]
    said = "; ".join(f"{visible(name)} {visible(text).removesuffix(' run as integers')}" for name, text in every)
    meant = given.get("integer_meant")
    return ASKED[1], said, f"{meant} meant" if isinstance(meant, int) else ""


def _size(given: Mapping[str, Any]) -> tuple[str, str, str] | None:
    promised, over = given.get("bytes_promised"), given.get("bytes_overhead")
    if not isinstance(promised, int) or not isinstance(over, float):
        return None
    held = given.get("bytes")
    real = held if isinstance(held, int) else round(promised * (1 + over))
    return ASKED[2], f"{size(real)} for {size(promised)} of bits", f"{signed(100 * over, 1)} % besides"


def _older(given: Mapping[str, Any]) -> tuple[str, str, str] | None:
    if "capped_agreement" not in given:
        return None
    share, n, reason = given["capped_agreement"], given.get("capped_images"), given.get("capped_reason")
    if not isinstance(share, float) or not isinstance(n, int):
        return ASKED[3], "not measured", visible(reason or "")
    gap, cure = given.get("capped_largest_logit_difference"), given.get("capped_cure")
    remark = f"largest difference of a logit {gap:.2g}" if isinstance(gap, float) else ""
    if cure:
        remark += f"{'; ' if remark else ''}cure: {visible(cure)}"
    return ASKED[3], f"{percent(share, 2)} of {count(n, 'image')} keep their class", remark


def _sums(given: Mapping[str, Any]) -> tuple[str, str, str] | None:
    layers, possible = inside(given, "saturation", "layers"), inside(given, "saturation", "possible_layers")
    worst, limit = inside(given, "saturation", "worst"), inside(given, "saturation", "limit")
    if not all(isinstance(value, int) for value in (layers, possible, worst, limit)):
        return None
    remark = f"worst sum {worst:,}, limit {limit:,}".replace("-", MINUS)
    if possible:
        return ASKED[4], f"possible in {possible} of {count(layers, 'layer')} without VNNI", remark
    order = inside(given, "saturation", "never_in_any_order") is True
    said = "impossible, in whatever order they are added" if order else "impossible between neighbouring channels"
    return ASKED[4], said, remark


def _ranges(given: Any) -> tuple[Range, ...]:
    if not isinstance(given, Mapping):
        return ()
    found = []
    for name, item in given.items():
        edges = [inside(item, key) for key in ("low", "high", "inner_low", "inner_high", "grid_low", "grid_high")]
        shares, bulk, levels = (inside(item, key) for key in ("shares", "bulk_levels", "levels"))
        if not all(isinstance(edge, (int, float)) for edge in edges) or not isinstance(shares, Sequence) or not shares:
            continue
        caption = ABSENT
        if isinstance(bulk, (int, float)) and isinstance(levels, int):
            caption = f"99.9 % of the values have {number(bulk, 0)} of {levels} levels"
        cut = inside(item, "worst_channel_clipped")
        if isinstance(cut, float) and cut > 0.005:
            caption += f"; the worst channel loses {percent(cut, 0)} of its mass"
        panel = histogram(
            f"Values of {visible(name)}",
            shares,
            (float(edges[0]), float(edges[1])),
            (float(edges[2]), float(edges[3])),
            (float(edges[4]), float(edges[5])),
        )
        found.append(Range(visible(name), panel, caption))
    return tuple(found)
