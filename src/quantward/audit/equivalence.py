"""Do two sessions say the same of the same images? Used twice: the exported float file against PyTorch, and the
deployed integer file against its Plan's simulation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from quantward.core.contracts import Batch, Session
from quantward.core.errors import QuantwardError


@dataclass(frozen=True)
class Agreement:
    """Over n images: share with the same top class, and the largest and mean |difference| of a logit."""

    n: int
    top1: float
    worst: float
    mean: float


class NotEquivalent(QuantwardError):
    """A file does not compute what it was made from; nothing measured on it would mean anything."""


def agreement(first: Session, second: Session, batches: Iterable[Batch]) -> Agreement:
    """Run both sessions on the same batches and compare their logits."""
    same, n, worst, total, count = 0, 0, 0.0, 0.0, 0
    for batch in batches:
        a, b = first(batch).astype(np.float64), second(batch).astype(np.float64)
        same += int((a.argmax(1) == b.argmax(1)).sum())
        gap = np.abs(a - b)
        worst, total = max(worst, float(gap.max(initial=0.0))), total + float(gap.sum())
        n, count = n + len(a), count + gap.size
    return Agreement(n, same / max(n, 1), worst, total / max(count, 1))


def require_equal(found: Agreement, what: str, tolerance: float = 1e-3, top1: float = 0.999) -> None:
    """Stop unless the largest |logit difference| is within `tolerance` and the top class agrees on a share `top1`.

    Raises NotEquivalent. The tolerance is absolute, in logits: 1e-3 moves no probability by more than 0.00025.
    """
    if not (found.worst <= tolerance and found.top1 >= top1):
        raise NotEquivalent(
            f"Expected {what} to give the same logits within {tolerance:g} on {found.n} images; the largest difference "
            f"is {found.worst:.3g}, the top class agrees on {found.top1:.2%}. Quantizing it would measure the export."
        )
