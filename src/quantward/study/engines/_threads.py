"""How many threads a step computes with: as many as the processors it reserves, whatever ran in its process before.

The order in which threads add up decides the last bits of a trained network. A number that came from the machine, from
the environment, or from what a runtime was told for an earlier step, would make results depend on where and after what
a step ran.
"""

from __future__ import annotations

import os
import sys

POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What libraries read, once, when they are loaded."""


def limit(threads: int) -> None:
    """Give what this process computes from now on so many threads."""
    os.environ.update(dict.fromkeys(POOLS, str(threads)))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
