"""The sentences a report says about a comparison: what was lost, what was gained, what flipped, how it was measured."""

from __future__ import annotations

from quantward.core.values import Comparison, Delta, Efficiency
from quantward.report._rows import single
from quantward.report._words import (
    METRICS,
    change_bounds,
    count,
    milliseconds,
    number,
    percent,
    size,
    visible,
)


def lost(comparison: Comparison, name: str) -> str:
    """How accuracy moved, with its interval and on how many images, and how many images flipped."""
    delta = comparison.deltas.get("accuracy")
    if delta is None or delta.delta is None:
        return ""
    where = f"on {count(comparison.n, 'test image')}"
    if comparison.n_groups is not None:
        where += f" of {count(comparison.n_groups, 'group')}"
    reach = change_bounds(delta, METRICS["accuracy"])
    known = f" (95 % interval of the difference {reach})" if reach else ""
    return (
        f"Against {visible(name)}, accuracy {_moved(delta)}{known} {where}; "
        f"{percent(comparison.flips.rate)} of the images changed their most probable class."
    )


def _moved(delta: Delta) -> str:
    amount = number(abs(100 * (delta.delta or 0.0)), 1)
    if float(amount) == 0:
        return "stayed the same"
    word = "rose" if (delta.delta or 0.0) > 0 else "fell"
    return f"{word} by {amount} {'point' if amount == '1.0' else 'points'}"


def gained(comparison: Comparison, candidate: Efficiency | None, baseline: Efficiency | None) -> str:
    """How much smaller the file is and how much faster one image is answered; empty where nothing was measured."""
    parts = []
    if comparison.smaller is not None:
        sizes = f", {size(candidate.bytes)} instead of {size(baseline.bytes)}" if candidate and baseline else ""
        parts.append(f"the file is {times(comparison.smaller, 'smaller', 'larger')}{sizes}")
    new, old = single(candidate), single(baseline)
    if comparison.faster is not None:
        spent = ""
        if new is not None and old is not None and new.batch == old.batch:
            what = "an image" if new.batch == 1 else f"a batch of {new.batch}"
            spent = f", {milliseconds(new.p50)} ms instead of {milliseconds(old.p50)} ms {what}"
        noisy = any(line is not None and not line.reliable for line in (new, old))
        doubt = " (on a machine too noisy to rely on)" if noisy else ""
        parts.append(f"it is {times(comparison.faster, 'faster', 'slower')}{spent}{doubt}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def times(value: float, more: str, less: str) -> str:
    """A ratio in words.

    >>> times(3.74, "smaller", "larger"), times(0.71, "faster", "slower"), times(1.02, "faster", "slower")
    ('3.7 times smaller', '1.4 times slower', 'as good as equally fast')
    """
    if 0.95 < value < 1.05:
        return "as good as equally fast" if more == "faster" else "as good as equally large"
    return f"{number(value, 1)} times {more}" if value > 1 else f"{number(1 / value, 1)} times {less}"


def flipped(comparison: Comparison) -> str:
    """How many images changed their most probable class, and for better or worse."""
    flips = comparison.flips
    if not flips.count:
        return f"No image changed its most probable class (interval {percent(flips.low)} to {percent(flips.high)})."
    other = flips.count - flips.broken - flips.mended
    parts = [f"{flips.broken:,} from right to wrong", f"{flips.mended:,} from wrong to right"]
    if other:
        parts.append(f"{other:,} from one wrong class to another")
    rate = f"{percent(flips.rate)} of all, interval {percent(flips.low)} to {percent(flips.high)}"
    their = "its" if flips.count == 1 else "their"
    return f"{count(flips.count, 'image')} changed {their} most probable class ({rate}): {', '.join(parts)}."


def measured_how(comparison: Comparison) -> str:
    """On how many images, and how intervals and p-values came about."""
    parts = [f"{count(comparison.n, 'image')}, both models on each"]
    if comparison.n_groups is not None:
        parts.append(f"{count(comparison.n_groups, 'group')} (patients, lesions or look-alikes), resampled whole")
    if comparison.replicates:
        parts.append(f"{comparison.replicates:,} paired bootstrap replicates, seed {comparison.seed}")
    return "; ".join(parts) + "."
