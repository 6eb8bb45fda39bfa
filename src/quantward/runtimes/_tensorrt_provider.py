"""ONNX Runtime's TensorRT provider: the second way in; what TensorRT does not take falls back to CUDA or the CPU."""

from __future__ import annotations

import numpy as np

from quantward.core.contracts import Batch, Session
from quantward.core.errors import Refused
from quantward.core.values import Variant

PROVIDER = "TensorrtExecutionProvider"


def missing_provider() -> str | None:
    """What to install, or None."""
    try:
        import onnxruntime as ort
    except ImportError:
        return "onnxruntime-gpu is not installed; run: pip install onnxruntime-gpu"
    if PROVIDER not in ort.get_available_providers():
        return (
            "this onnxruntime has no TensorRT provider; on x86-64 run: pip install onnxruntime-gpu tensorrt, on a "
            "Jetson install NVIDIA's wheel of onnxruntime-gpu for your JetPack"
        )
    return None


def provider_options(variant: Variant, workspace: int) -> dict[str, str]:
    """Explicit quantization needs no precision flag; engines and timings are kept beside the file."""
    folder = str(variant.path.parent / f"{variant.path.stem}.{variant.sha256[:16]}.ort-tensorrt")
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        "trt_max_workspace_size": str(workspace << 20),
    }


def open_provider(variant: Variant, threads: int, workspace: int) -> Session:
    """Open the file with TensorRT first and CUDA behind it.

    Raises Refused where ONNX Runtime quietly left TensorRT out: its answers would be another runtime's.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # ONNX Runtime's own fusions would take the pairs apart before TensorRT sees them
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    wanted = [(PROVIDER, provider_options(variant, workspace)), "CUDAExecutionProvider", "CPUExecutionProvider"]
    try:
        session = ort.InferenceSession(str(variant.path), options, providers=wanted)
    except Exception as error:  # ONNX Runtime's own exception types live in a private module
        first = str(error).strip().partition("\n")[0]
        raise Refused(f"Expected an ONNX file that ONNX Runtime's TensorRT provider can load at {variant.path}; it "
                      f"said: {first}. Write it with the target onnx-tensorrt.") from None  # fmt: skip
    if PROVIDER not in session.get_providers():
        raise Refused(
            f"Expected ONNX Runtime to use TensorRT for {variant.path}; it fell back to "
            f"{', '.join(session.get_providers())}. Check that the CUDA and TensorRT libraries match its release."
        )
    name = session.get_inputs()[0].name

    def run(batch: Batch) -> Batch:
        step = variant.max_batch or len(batch)
        parts = [session.run(None, {name: batch[i : i + step]})[0] for i in range(0, len(batch), step)]
        return np.concatenate(parts).astype(np.float32, copy=False)

    return run
