"""ONNX Runtime on the CPU: the runtime of the base install."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantward.core.contracts import Executed, Session
from quantward.core.errors import Refused
from quantward.core.values import Variant
from quantward.runtimes._feeding import blank, fed

_INTEGER = {"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat",
            "DynamicQuantizeMatMul", "QAttention"}  # fmt: skip
_FLOAT = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "NhwcFusedConv", "Attention"}


@dataclass(frozen=True)
class Onnxruntime:
    """Runs `.onnx` files with the CPU provider, all graph optimisations on."""

    formats: tuple[str, ...] = ("onnx",)

    def missing(self) -> str | None:
        """None: ONNX Runtime belongs to the base install."""
        try:
            import onnxruntime  # noqa: F401
        except ImportError:
            return "onnxruntime is not installed; run: pip install onnxruntime"
        return None

    def open(self, variant: Variant, threads: int = 1) -> Session:
        """Load the file; batches are fed as `runtimes._feeding` says: in pieces, in the file's own layout."""
        session = _session(variant, _options(threads))
        name = session.get_inputs()[0].name
        return fed(variant, lambda batch: session.run(None, {name: batch})[0])

    def executed(self, variant: Variant) -> Executed | None:
        """Run one blank image with profiling on and count the kernels: what is listed has really run."""
        with tempfile.TemporaryDirectory() as folder:
            options = _options(1)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = _session(variant, options)
            session.run(None, {session.get_inputs()[0].name: blank(variant)})
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        operators = Counter(
            event["args"]["op_name"]
            for event in events
            if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time")
        )
        layers: Counter[str] = Counter()
        for name, count in operators.items():
            if name in _INTEGER or name in _FLOAT:
                layers["int8" if name in _INTEGER else "float32"] += count
        return Executed(dict(layers), dict(operators))


def _options(threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Weights alone are stored in few bits there: rounding what they multiply as well would be another Plan.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return options


def _session(variant: Variant, options: Any) -> Any:
    import onnxruntime as ort

    # One pass puts float weights and biases between integers on grids of its own. In our files what is float is meant
    # to be; files from elsewhere may need the pass to run in integers at all.
    left_out = ["WeightBiasQuantization"] if variant.target else []
    try:
        return ort.InferenceSession(
            str(variant.path), options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out
        )
    except Exception as error:  # ONNX Runtime's own exception types live in a private module
        first = str(error).strip().partition("\n")[0]
        raise Refused(
            f"Expected an ONNX file that ONNX Runtime can load at {variant.path}; it said: {first}."
        ) from None
