"""Which arithmetic the hardware is fast at, and how to make its results repeat."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from quantward.core import machine

Precision = Literal["auto", "32", "bf16"]


def precision(wish: Precision) -> Literal["32-true", "bf16-mixed"]:
    """Fabric's name for the arithmetic. `auto` takes bf16 only where it is computed, never where it is emulated.

    A processor without AVX512-BF16 or AMX runs bf16 training slower than float32, so there it stays at float32.
    """
    if wish == "32":
        return "32-true"
    if wish == "bf16":
        return "bf16-mixed"
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "32-true"
    flags = set(machine.cpu()[1])
    return "bf16-mixed" if flags & {"avx512_bf16", "amx_bf16"} else "32-true"


@contextmanager
def repeatable(seed: int, deterministic: bool) -> Iterator[None]:
    """Seed torch and ask for deterministic kernels; the caller's generators and settings come back afterwards."""
    cudnn: Any = torch.backends.cudnn
    fresh: Any = torch.utils.deterministic
    before: tuple[Any, ...] = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        fresh.fill_uninitialized_memory,
        cudnn.deterministic,
        cudnn.benchmark,
    )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            # Filling fresh memory with NaN finds bugs in torch, costs a pass over every activation, repeats nothing.
            fresh.fill_uninitialized_memory = False
            cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            fresh.fill_uninitialized_memory = before[2]
            cudnn.deterministic, cudnn.benchmark = before[3], before[4]
