"""LiteRT (TFLite) for phones and ARM boards: int8 from input to output, 16x8, dynamic, INT4 weights, half precision."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quantward.core.errors import Unsupported
from quantward.core.store import atomic
from quantward.core.values import Plan, QuantSpec, Variant
from quantward.graph.walk import inputs_of
from quantward.targets._variant import described

MARGIN = 0.05
"""Share of the observed range by which the grid of the logits is wider on both sides: a logit cut off is a tie."""


@dataclass(frozen=True)
class Litert:
    """`output` is how the logits leave the file: `int8` on the range that calibration observed, which NPUs and
    microcontrollers ask for; `float32` exactly, at the cost of one layer that rounds its input by itself; `auto` is
    `int8` where the input is and the range is known. `pack` stores weights of 4 bits and fewer two in a byte; without
    it they take a byte each, and convolutions run on kernels that are faster where XNNPACK has none for 4 bits."""

    output: Literal["auto", "int8", "float32"] = "auto"
    pack: bool = True
    format: str = "tflite"

    def write(self, plan: Plan, folder: Path) -> Variant:
        """Write `<recipe>.tflite` into `folder`.

        Raises Unsupported for what TFLite has no type or kernel for, and where `ai-edge-litert` is not installed.
        """
        try:
            from quantward.targets._litert_program import write_program
        except ImportError as error:
            raise Unsupported(
                f"Expected ai-edge-litert for .tflite files; {error.name} is not installed. "
                "Run: pip install 'quantward[litert]'."
            ) from None
        from quantward.targets._litert_file import Grid
        from quantward.targets._names import file_stem

        started = time.perf_counter()
        spec = self._logits(plan)
        data = write_program(plan, None if spec is None else Grid.of(spec), self.pack)
        path = folder / f"{file_stem(plan.recipe)}.tflite"
        with atomic(path) as temporary:
            temporary.write_bytes(data)
        return described(plan, "litert", self.format, path, started, batch=1, layout="NHWC")

    def _logits(self, plan: Plan) -> QuantSpec | None:
        """The spec of the logits, None where they stay in float."""
        entry = plan.tensors.get("input")
        whole = entry is not None and entry.bits == 8 and not entry.dynamic
        if self.output == "float32" or (self.output == "auto" and not whole):
            return None
        spec = logits_spec(plan)
        if spec is None and self.output == "int8":
            raise Unsupported(
                "Expected a Plan that knows the range of its logits for output=int8; this one does not. "
                "Quantize again with calibration images, or use output=float32."
            )
        return spec


def logits_spec(plan: Plan) -> QuantSpec | None:
    """The Plan's own spec for its logits, or a grid of 256 values over the range it observed, wider by `MARGIN`."""
    import numpy as np

    name = inputs_of(plan.program[-1])[0]
    if name in plan.tensors:
        return plan.tensors[name]
    notes: Any = plan.notes.get("activations", {})
    seen = notes.get(name) if isinstance(notes, Mapping) else None
    if not isinstance(seen, Mapping):
        return None
    reach = MARGIN * (seen["high"] - seen["low"])
    low, high = min(seen["low"] - reach, 0.0), max(seen["high"] + reach, 0.0)
    scale = np.float32(max((high - low) / 255, 2.0**-24))
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return QuantSpec("activation", 8, False, scheme="affine", scale=np.asarray(scale),
                     zero_point=np.asarray(zero, np.int32), source="range over the calibration images")  # fmt: skip
