"""A Plan's program as ONNX, with a named marker (`Tap`) on every weight and every step, for targets to replace.

A target turns each marker into quantize/dequantize nodes, a stored initializer, or nothing; so it needs neither torch
nor the names of an exporter, and every target's file has the same steps.
"""

from __future__ import annotations

import onnx

from quantward.core.values import Plan
from quantward.graph.emit_onnx import DOMAIN, OPSET, emit

__all__ = ["DOMAIN", "OPSET", "tapped"]


def tapped(plan: Plan) -> onnx.ModelProto:
    """The float program as ONNX with `quantward::Tap(name=...)` after every weight (`weight:NAME`), after every step
    (`output:NAME`) and before every layer (`input:NAME`); input `input` (batch, 3, size, size), output `logits`.

    Raises Unsupported, by name, for an operator that cannot be written.
    """
    return emit(plan)
