"""A Plan's program as ONNX, with a named marker (`Tap`) on every weight and every step, for targets to replace.

torch's exporter renames, reshapes and shares tensors as it likes; a marker operator of our own survives all of it.
A target then needs no torch: it turns each marker into quantize/dequantize nodes, a stored initializer, or nothing.
"""

from __future__ import annotations

from importlib.util import find_spec

import onnx

from quantward.core.values import Plan
from quantward.graph.emit_onnx import DOMAIN, OPSET, ORIGIN, emit, emits

__all__ = ["DOMAIN", "OPSET", "tapped"]


def tapped(plan: Plan) -> onnx.ModelProto:
    """The float program as ONNX with `quantward::Tap(name=...)` after every weight (`weight:NAME`), after every step
    (`output:NAME`) and before every layer (`input:NAME`); input `input` (batch, 3, size, size), output `logits`.

    Programs that came from ONNX files are written step by step, with torch or without, so that a file does not depend
    on what is installed; traced ones by torch's exporter, or step by step where there is no torch. Raises Unsupported,
    with the reason, for an operator that ONNX cannot express, or that needs torch.
    """
    if find_spec("torch") is None or (ORIGIN in plan.notes and emits(plan)):
        return emit(plan)
    from quantward.graph.trace_onnx import exported

    return exported(plan)
