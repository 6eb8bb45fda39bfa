"""PyTorch's integer kernels on the CPU: fbgemm, qnnpack, x86 and oneDNN, called on the scales of the file."""

from __future__ import annotations

import platform
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from quantward.core.contracts import Batch, Executed, Session
from quantward.core.errors import Refused
from quantward.core.values import Variant

if TYPE_CHECKING:
    from quantward.runtimes._torch_int8_values import Steps

NEEDED = ("conv2d", "linear", "add_relu", "cat", "clamp", "linear_dynamic")
"""Operators without which a build of torch cannot run these files at all."""


@dataclass(frozen=True)
class TorchInt8:
    """Runs `.qtorch` files. `engine` names the kernels: `auto` is oneDNN on x86 and qnnpack elsewhere.

    `fused` leaves out the rounding between operators that one kernel can run together (a convolution and the SiLU
    behind it, a sum and its ReLU): faster, but no longer the Plan. A layer whose sums would saturate on the chosen
    engine (fbgemm adds pairs of products in 16 bits: in every depthwise convolution, and everywhere on processors
    without VNNI) runs on oneDNN, or in float where that saturates too; `executed` says how often.
    """

    engine: Literal["auto", "fbgemm", "qnnpack", "x86", "onednn"] = "auto"
    fused: bool = False
    formats: tuple[str, ...] = ("torch-int8",)

    def missing(self) -> str | None:
        """What to install or choose, or None."""
        try:
            import torch
        except ImportError:
            return "torch is not installed; run: pip install 'quantward[train]'"
        if not all(hasattr(torch.ops.quantized, name) for name in NEEDED):
            return "this torch has no quantized operators; install the CPU or CUDA build from the package index"
        if self._engine() not in torch.backends.quantized.supported_engines:
            able = ", ".join(name for name in torch.backends.quantized.supported_engines if name != "none")
            return f"this torch has no engine {self._engine()!r}; it has: {able or 'none'}"
        if self._engine() == "onednn" and not hasattr(torch.ops.onednn, "qconv_pointwise"):
            return "this torch has no oneDNN operators on plain integers; use torch 2.11 or newer, or engine=x86"
        return None

    def open(self, variant: Variant, threads: int = 1) -> Session:
        """Pack all weights for the engine. The thread count holds for the whole process: torch has only that.

        Raises Refused for a file that cannot be read.
        """
        import torch

        steps = self._steps(variant)

        def run(batch: Batch) -> Batch:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            step = variant.max_batch or len(batch)
            with torch.inference_mode():
                parts = [steps(torch.from_numpy(batch[i : i + step])).numpy() for i in range(0, len(batch), step)]
            return np.concatenate(parts).astype(np.float32, copy=False)

        return run

    def executed(self, variant: Variant) -> Executed | None:
        """The kernels that one image passes, as they were chosen for this processor."""
        steps = self._steps(variant)
        return Executed(steps.layers, steps.operators)

    def _engine(self) -> Literal["fbgemm", "qnnpack", "x86", "onednn"]:
        if self.engine != "auto":
            return self.engine
        return "onednn" if platform.machine().lower() in ("x86_64", "amd64") else "qnnpack"

    def _steps(self, variant: Variant) -> Steps:
        import torch

        from quantward.graph.archive import read_archive
        from quantward.runtimes._torch_int8_steps import steps_of

        archive = read_archive(variant.path)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # quantized tensors are announced to go; nothing a user could do
            try:
                return steps_of(archive, self._engine(), self.fused)
            except (KeyError, RuntimeError) as error:
                first = str(error).strip().partition("\n")[0]
                raise Refused(
                    f"Expected a program that torch's integer kernels can run in {variant.path}; {first}. "
                    "Write the file anew."
                ) from None
