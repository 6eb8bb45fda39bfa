"""Weights in half precision, arithmetic in float32: half the bytes, and no range to calibrate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from quantward.core.contracts import Context
from quantward.core.errors import Unsupported
from quantward.core.registry import spelling
from quantward.core.values import Plan, QuantSpec


@dataclass(frozen=True)
class Fp16:
    """Stores every float weight as IEEE 754 binary16; runtimes read it back as float32 when they load the file."""

    needs: ClassVar[Literal["nothing"]] = "nothing"

    def plan(self, parent: Plan, context: Context) -> Plan:
        """Give every float weight a float16 spec.

        Raises Unsupported when a weight lies outside half precision's range (it would become infinite).
        """
        limit = float(np.finfo(np.float16).max)
        tensors = {}
        for name, array in parent.weights.items():
            if not np.issubdtype(array.dtype, np.floating):
                continue
            largest = float(np.abs(array).max(initial=0.0))
            if not largest <= limit:
                raise Unsupported(
                    f"Expected weights within +-{limit:g} for float16; {name!r} reaches {largest:g}. "
                    "Use bf16 or INT8, or rescale the layer."
                )
            tensors[name] = QuantSpec("weight", 16, format="float16", source="IEEE 754 binary16")
        return replace(parent, recipe=spelling(self), tensors=tensors)
