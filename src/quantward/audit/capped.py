"""Does a machine without VNNI give the same answers? The file is run again with the instruction set capped at AVX2.

The cap is oneDNN's, read when the library starts, so each run has a process of its own. OpenVINO computes with oneDNN
and honours it; ONNX Runtime's own kernels do not, so a file made for either is capped on OpenVINO, which reads the same
format. Both runs, capped and not, are OpenVINO's: what differs is the instruction set and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quantward.audit.child import Answer, run_apart
from quantward.core import machine
from quantward.core.contracts import Batch
from quantward.core.registry import Registry
from quantward.core.values import Variant

CAP = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
"""The newest instruction set of processors that have no VNNI in any form, as oneDNN names it."""

RUNTIME = "openvino"

IMAGES = 256
"""Images of the capped run: enough to see one flip in a hundred, few enough to take seconds."""

VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}
"""Instruction sets that add products of bytes in 32 bits."""


@dataclass(frozen=True)
class Capped:
    """Over `images` images: share with the same top class with and without the cap, and the largest |logit difference|.

    Both are None, with the `reason`, where they could not be measured.
    """

    agreement: float | None
    worst: float | None
    images: int
    reason: str = ""


def unmeasurable(variant: Variant) -> str:
    """Why a capped run would show nothing on this machine; empty where it can be made."""
    chosen = Registry("runtime", "quantward.runtimes").make(RUNTIME)
    absent = chosen.missing()
    if absent:
        return f"{absent} (no other runtime here honours the cap)"
    if variant.format not in chosen.formats:
        return f"no runtime that honours the cap reads {variant.format} files"
    if not VNNI & set(machine.cpu()[1]):
        return "this processor has no VNNI, so its uncapped answers are those of the cap already"
    return ""


def capped(variant: Variant, images: Callable[[], Batch], *, threads: int = 1) -> Capped:
    """Run the file on `images()`, (n, 3, size, size), with and without the cap and compare the answers."""
    reason = unmeasurable(variant)
    if reason:
        return Capped(None, None, 0, reason)
    seen = images()
    free = run_apart(variant, RUNTIME, seen, threads=threads)
    if free.logits is None:
        return Capped(None, None, 0, f"even without the cap, {free.reason}")
    return compared(free, run_apart(variant, RUNTIME, seen, threads=threads, environment=CAP))


def compared(free: Answer, held: Answer) -> Capped:
    """Two answers to the same images; the reason of the second where it has none."""
    if held.logits is None or free.logits is None:
        return Capped(None, None, 0, f"under the cap, {held.reason or free.reason}")
    same = held.logits.argmax(1) == free.logits.argmax(1)
    gap = np.abs(held.logits.astype(np.float64) - free.logits)
    return Capped(float(same.mean()), float(gap.max()), len(same))
