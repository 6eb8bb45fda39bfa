"""Two prediction sets of the same images, brought into one order; refused where they are not of the same images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantward.core.errors import Refused
from quantward.core.values import Predictions


def aligned(baseline: Predictions, candidate: Predictions) -> tuple[Predictions, Predictions]:
    """The candidate with images and classes in the baseline's order, and the groups that either of them names.

    Raises Refused where the two do not cover the same images, classes, truth or groups.
    """
    named = [repr(p.source) for p in (baseline, candidate)]
    if named[0] == named[1]:
        named = ["the baseline", "the candidate"]
    if set(baseline.classes) != set(candidate.classes):
        only = sorted(set(baseline.classes) ^ set(candidate.classes))
        raise Refused(
            f"Expected both predictions to name the same classes; {', '.join(map(repr, only))} stand in one of "
            f"{named[0]} and {named[1]} only. Rename the columns of one of them."
        )
    for p, name in zip((baseline, candidate), named, strict=True):
        if len(set(p.ids)) < len(p.ids):
            twice = next(i for i in p.ids if p.ids.count(i) > 1)
            raise Refused(f"Expected every id once in {name}; {twice!r} is there twice. Remove one of them.")
    place = {name: i for i, name in enumerate(candidate.ids)}
    ours = set(baseline.ids)
    missing = [name for name in baseline.ids if name not in place]
    extra = [name for name in candidate.ids if name not in ours]
    if missing or extra:
        parts = [
            f"{len(names)} {'is' if len(names) == 1 else 'are'} only in {where} (first {names[0]!r})"
            for names, where in ((missing, named[0]), (extra, named[1]))
            if names
        ]
        raise Refused(
            f"Expected both predictions to cover the same {len(baseline)} images; {' and '.join(parts)}. "
            "Evaluate both on the same fold."
        )
    rows = np.array([place[name] for name in baseline.ids])
    columns = [candidate.classes.index(name) for name in baseline.classes]
    truth = np.array([baseline.classes.index(name) for name in candidate.classes])[candidate.truth[rows]]
    off = truth != baseline.truth
    if off.any():
        first = int(off.argmax())
        raise Refused(
            f"Expected the same truth in both predictions; {int(off.sum())} of {len(baseline)} images differ, first "
            f"{baseline.ids[first]!r}: {baseline.classes[baseline.truth[first]]!r} in {named[0]}, "
            f"{baseline.classes[truth[first]]!r} in {named[1]}. Use one label file for both."
        )
    groups = None if candidate.groups is None else tuple(candidate.groups[i] for i in rows)
    if groups is not None and baseline.groups is not None and groups != baseline.groups:
        first = next(i for i, pair in enumerate(zip(groups, baseline.groups, strict=True)) if pair[0] != pair[1])
        raise Refused(
            f"Expected the same groups in both predictions; {baseline.ids[first]!r} is of {baseline.groups[first]!r} "
            f"in {named[0]} and of {groups[first]!r} in {named[1]}. Use one patient list for both."
        )
    groups = baseline.groups if baseline.groups is not None else groups
    other = replace(
        candidate,
        ids=baseline.ids,
        truth=truth,
        probabilities=candidate.probabilities[rows][:, columns],
        classes=baseline.classes,
        groups=groups,
    )
    return replace(baseline, groups=groups), other
