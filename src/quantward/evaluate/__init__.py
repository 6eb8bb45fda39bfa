"""Predictions -> figures with intervals, paired comparisons, gates and verdicts. Never imports torch.

The names below load their module when they are first used, so that importing this room costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantward.evaluate.document import compare_document as compare_document
    from quantward.evaluate.efficiency import Timing as Timing
    from quantward.evaluate.efficiency import bench as bench
    from quantward.evaluate.evidence import Evidence as Evidence
    from quantward.evaluate.paired import assess as assess
    from quantward.evaluate.paired import compare as compare
    from quantward.evaluate.paired import measured as measured
    from quantward.evaluate.predictions import load as load_predictions  # noqa: F401
    from quantward.evaluate.predictions import save as save_predictions  # noqa: F401
    from quantward.evaluate.single import evaluate as evaluate
    from quantward.evaluate.verdict import Gates as Gates
    from quantward.evaluate.verdict import judge as judge
    from quantward.evaluate.verdict import read_gates as read_gates

_HOMES = {
    "Evidence": ("evidence", "Evidence"),
    "Gates": ("verdict", "Gates"),
    "Timing": ("efficiency", "Timing"),
    "assess": ("paired", "assess"),
    "bench": ("efficiency", "bench"),
    "compare": ("paired", "compare"),
    "compare_document": ("document", "compare_document"),
    "evaluate": ("single", "evaluate"),
    "judge": ("verdict", "judge"),
    "load_predictions": ("predictions", "load"),
    "measured": ("paired", "measured"),
    "read_gates": ("verdict", "read_gates"),
    "save_predictions": ("predictions", "save"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
