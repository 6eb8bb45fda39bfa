"""TensorRT on an NVIDIA device: the file becomes an engine for this very GPU, kept beside it, and runs there.

Networks are strongly typed: what the file says is float32, float16 or an integer stays that, so the engine computes
what was measured elsewhere. Written against the documented Python API of TensorRT 10 and 11; ONNX Runtime's TensorRT
provider is the second way in. Neither has run on a device in this project yet (docs/tensorrt.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantward.core.contracts import Executed, Session
from quantward.core.errors import UsageError
from quantward.core.values import Variant

OLDEST = 10
"""The first major release with strongly typed networks and named tensors throughout."""


@dataclass(frozen=True)
class Tensorrt:
    """Runs `.onnx` files, above all those of the target onnx-tensorrt.

    `via=onnxruntime` lets ONNX Runtime hand the graph to TensorRT. `batch` is the largest batch that the engine is
    built for, `workspace` the MiB that a kernel may use while building and running.
    """

    via: Literal["tensorrt", "onnxruntime"] = "tensorrt"
    batch: int = 32
    workspace: int = 1024
    formats: tuple[str, ...] = ("onnx",)

    def __post_init__(self) -> None:
        for name in ("batch", "workspace"):
            if getattr(self, name) < 1:
                raise UsageError(f"Expected {name} of at least 1; got {getattr(self, name)}. Choose another number.")

    def missing(self) -> str | None:
        """What to install, or None."""
        if self.via == "onnxruntime":
            from quantward.runtimes._tensorrt_provider import missing_provider

            return missing_provider()
        return _missing_library()

    def open(self, variant: Variant, threads: int = 1) -> Session:
        """Build the engine, or load the one beside the file, and open it. The work is the GPU's: `threads` counts
        only for what ONNX Runtime leaves on the CPU.

        Raises Refused, with TensorRT's own words, for a file that it cannot build.
        """
        if self.via == "onnxruntime":
            from quantward.runtimes._tensorrt_provider import open_provider

            return open_provider(variant, threads, self.workspace)
        from quantward.runtimes._tensorrt_engine import Engine

        return Engine(variant, self.batch, self.workspace)

    def executed(self, variant: Variant) -> Executed | None:
        """The engine's own description of its layers; None through ONNX Runtime, which does not tell."""
        if self.via == "onnxruntime":
            return None
        from quantward.runtimes._tensorrt_engine import Engine

        return Engine(variant, self.batch, self.workspace).described()


def _missing_library() -> str | None:
    try:
        import tensorrt
    except ImportError:
        return (
            "tensorrt is not installed; on a Jetson it comes with JetPack (sudo apt install nvidia-jetpack), elsewhere "
            "run: pip install tensorrt cuda-python"
        )
    version = str(getattr(tensorrt, "__version__", "0"))
    if int(version.partition(".")[0] or 0) < OLDEST:
        return f"tensorrt {version} is installed and {OLDEST} or newer is needed; use JetPack 6 or newer, or trtexec"
    from quantward.runtimes._cuda import missing_cuda

    return missing_cuda()
