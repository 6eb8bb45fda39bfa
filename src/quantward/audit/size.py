"""Is a file as small as its bits promise? Bytes that the Plan accounts for, against bytes on the disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantward.core.values import Plan, Variant


@dataclass(frozen=True)
class Size:
    """`promised` bytes follow from the Plan (bits of each weight, its scales); `overhead` is the rest of the file."""

    bytes: int
    promised: int
    overhead: float


def size(plan: Plan, variant: Variant) -> Size:
    """Compare the file with what its Plan promises: sum over weights of bits / 8, plus 4 bytes a scale."""
    promised = 0
    for name, array in plan.weights.items():
        spec = plan.tensors.get(name)
        if spec is None:
            promised += array.nbytes
        else:
            scales = 0 if spec.format == "float16" else np.asarray(spec.scale).size * 4
            promised += -(-array.size * spec.bits // 8) + scales
    return Size(variant.bytes, promised, variant.bytes / max(promised, 1) - 1.0)
