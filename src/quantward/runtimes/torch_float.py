"""PyTorch in float arithmetic: the eager FP32 baseline, and the simulation of any quantized Plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantward.core.contracts import Batch, Executed, Session
from quantward.core.values import Variant


@dataclass(frozen=True)
class TorchFloat:
    """Runs Plan folders. Specs in the Plan are simulated by fake quantization; a float Plan runs as it is.

    A float Plan is the baseline that published speed-ups are counted from: PyTorch eager, float32, contiguous layout,
    `inference_mode`, batch normalisation folded (which makes it a little faster than the network as it was trained).
    """

    formats: tuple[str, ...] = ("plan",)

    def missing(self) -> str | None:
        """What to install, or None."""
        try:
            import torch  # noqa: F401
        except ImportError:
            return "torch is not installed; run: pip install 'quantward[train]'"
        return None

    def open(self, variant: Variant, threads: int = 1) -> Session:
        """Build the network from the Plan folder. The thread count holds for the whole process: torch has only that."""
        import torch

        from quantward.graph.files import load_plan
        from quantward.graph.simulate import simulate

        network = simulate(load_plan(variant.path)).eval()

        def run(batch: Batch) -> Batch:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            with torch.inference_mode():
                logits = network(torch.from_numpy(batch))
            return np.asarray(logits.numpy(), np.float32)

        return run

    def executed(self, variant: Variant) -> Executed | None:
        """None: a simulation computes in float32 whatever the Plan says."""
        return None
