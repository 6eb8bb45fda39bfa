"""What a failure signature is: a code, how grave it is, where, with which figures, and one sentence with the cure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quantward.core.store import plain

Severity = Literal["error", "warning", "note"]
"""`error`: the file is not what it should be, or its answers are worthless. `warning`: it costs accuracy, bytes or time
that a cure would give back. `note`: seen, too small to matter by itself."""

ORDER = {"error": 0, "warning": 1, "note": 2}

NAMED = 8
"""Layers that a signature names; its figures say how many there are."""

TITLES = {
    "single-class-collapse": "Nearly all answers are one class",
    "fp16-overflow": "Values beyond half precision, or answers that are no numbers",
    "dead-channels": "Channels that were rounded to nothing",
    "clipped-channels": "Channels whose values were cut off",
    "outlier-dominated": "A few large values take the levels of all others",
    "unequal-channels": "One scale for channels of very different size",
    "float-layers": "Layers meant as integers that run in float",
    "instruction-set": "Sums that an older processor cuts off",
    "not-smaller": "The file is larger than its bits",
    "slower": "Fewer bits that cost time",
}
"""Code -> title, in the order in which a reader should look for a cause."""


@dataclass(frozen=True)
class Signature:
    """One thing that went wrong: where (`layers`, the worst first), with which `figures`, and what to do about it."""

    code: str
    severity: Severity
    sentence: str
    layers: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What the code means, in words."""
        return TITLES[self.code]


def told(signature: Signature) -> dict[str, Any]:
    """A signature as plain data, with its title: what a dossier keeps."""
    return {"title": signature.title, **plain(signature)}


def points(share: float, digits: int = 1) -> str:
    """A share in per cent, without the sign.

    >>> points(0.9805), points(0.25, 0)
    ('98.0', '25')
    """
    return f"{100 * share:.{digits}f}"
