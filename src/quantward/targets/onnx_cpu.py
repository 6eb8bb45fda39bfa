"""ONNX for CPUs: quantize/dequantize pairs with unsigned activations and signed weights, which ONNX Runtime and
OpenVINO fuse into integer kernels."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import onnx

from quantward.core.errors import Unsupported
from quantward.core.store import atomic
from quantward.core.values import Plan, Variant
from quantward.targets._names import file_stem
from quantward.targets._qdq import write_qdq
from quantward.targets._variant import described, one_image


@dataclass(frozen=True)
class OnnxCpu:
    """The U8S8 dialect. Signed 8-bit activations are refused: ONNX Runtime runs them two to eight times slower."""

    format: str = "onnx"

    def write(self, plan: Plan, folder: Path) -> Variant:
        """Write `<recipe>.onnx` into `folder`.

        Raises Unsupported for signed activations of 8 bits or fewer, and for widths that no ONNX type holds.
        """
        for name, spec in plan.tensors.items():
            if spec.kind == "activation" and spec.format == "integer" and spec.signed and spec.bits <= 8:
                raise Unsupported(
                    f"Expected unsigned activations for onnx-cpu; {name!r} is signed. Use the target onnx-tensorrt."
                )
        started = time.perf_counter()
        model = write_qdq(plan)
        path = folder / f"{file_stem(plan.recipe)}.onnx"
        with atomic(path) as temporary:
            onnx.save(model, str(temporary))
        return described(plan, "onnx-cpu", self.format, path, started, max_batch=one_image(plan))
