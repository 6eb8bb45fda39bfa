"""OpenVINO on the CPU: reads the same ONNX file; often the fastest integer runtime on Intel processors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quantward.core.contracts import Batch, Executed, Session
from quantward.core.errors import Refused
from quantward.core.values import Variant

_LAYERS = {"Convolution", "FullyConnected", "MatMul"}


@dataclass(frozen=True)
class Openvino:
    """Runs `.onnx` files. Float arithmetic is pinned to float32: on some processors OpenVINO would use bf16 unasked."""

    precision: Literal["f32", "bf16"] = "f32"
    formats: tuple[str, ...] = ("onnx",)

    def missing(self) -> str | None:
        """What to install, or None."""
        try:
            import openvino  # noqa: F401
        except ImportError:
            return "openvino is not installed; run: pip install 'quantward[openvino]'"
        return None

    def open(self, variant: Variant, threads: int = 1) -> Session:
        """Compile the file for this CPU."""
        request = self._compile(variant, threads).create_infer_request()

        def run(batch: Batch) -> Batch:
            step = variant.max_batch or len(batch)
            parts = []
            for i in range(0, len(batch), step):
                request.infer({0: batch[i : i + step]})
                parts.append(np.array(request.get_output_tensor(0).data, np.float32))
            return np.concatenate(parts)

        return run

    def executed(self, variant: Variant) -> Executed | None:
        """Read OpenVINO's own description of the compiled graph: the kind and the arithmetic of each step."""
        layers: Counter[str] = Counter()
        operators: Counter[str] = Counter()
        for step in self._compile(variant, 1).get_runtime_model().get_ordered_ops():
            facts = step.get_rt_info()
            kind, precision = (facts[key].value if key in facts else "" for key in ("layerType", "runtimePrecision"))
            operators[kind] += 1
            if kind in _LAYERS:
                layers["int8" if precision in ("u8", "i8") else {"f32": "float32"}.get(precision, precision)] += 1
        return Executed(dict(layers), dict(operators))

    def _compile(self, variant: Variant, threads: int) -> Any:
        import openvino as ov

        settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": "1",
        }
        try:
            return ov.Core().compile_model(str(variant.path), "CPU", settings)
        except RuntimeError as error:
            first = str(error).strip().partition("\n")[0]
            raise Refused(f"Expected a file that OpenVINO can compile at {variant.path}; it said: {first}.") from None
