"""Other tests beside the bootstrap: where they disagree with it, somebody should look."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from quantward.core.values import Predictions
from quantward.evaluate import metrics
from quantward.evaluate.bootstrap import Replicates
from quantward.evaluate.delong import delong, delong_macro
from quantward.evaluate.differences import difference
from quantward.evaluate.intervals import p_value_eq3, percentile
from quantward.evaluate.proportions import mcnemar, tango


def witnesses(baseline: Predictions, candidate: Predictions, drawn: tuple[Replicates, ...]) -> dict[str, Any]:
    """Independent witnesses of the main figures: McNemar, Tango and the bootstrap on accuracy, DeLong on AUROC."""
    truth = baseline.truth
    right = [metrics.predicted(p.probabilities) == truth for p in (baseline, candidate)]
    broken, mended = int(np.sum(right[0] & ~right[1])), int(np.sum(~right[0] & right[1]))
    found: dict[str, Any] = {
        "accuracy": {
            "broken": broken,
            "mended": mended,
            "discordance": (broken + mended) / len(baseline),
            "mcnemar_p": mcnemar(broken, mended),
            "tango": tango(broken, mended, len(baseline)),
            "bootstrap": percentile(difference(drawn, "accuracy", None)),
            "p_eq3": p_value_eq3(difference(drawn, "accuracy", None)),
        }
    }
    if baseline.groups is not None and len(set(baseline.groups)) < len(baseline):
        found["delong"] = None
        found["reason"] = "DeLong, McNemar and the plain Tango interval take images as independent; these are grouped"
        return found
    rows = {
        name: delong(truth == k, baseline.probabilities[:, k], candidate.probabilities[:, k])
        for k, name in enumerate(baseline.classes)
    }
    whole = delong_macro(truth, baseline.probabilities, candidate.probabilities)
    found["delong"] = {
        "macro": None if whole is None else asdict(whole),
        "per_class": {name: None if row is None else asdict(row) for name, row in rows.items()},
    }
    return found
