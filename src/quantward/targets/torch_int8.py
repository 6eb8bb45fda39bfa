"""PyTorch's own integer kernels (fbgemm, qnnpack, oneDNN): the Plan with its weights as integers, in one file.

The traced program already says what to compute, so the file needs neither torch's graph modes (which leave torch) nor
a pickle: the runtime `torch-int8` reads it and calls the kernels on the Plan's own scales.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantward.core.errors import Unsupported
from quantward.core.values import Node, Plan, QuantSpec, Variant
from quantward.graph.archive import write_archive
from quantward.graph.walk import input_key, layers, weight_of
from quantward.targets._names import file_stem
from quantward.targets._variant import described, one_image

NARROWEST = 7
"""Fewest bits of a weight: 7 is what processors without VNNI need; below, torch has no kernel that gains from it."""


@dataclass(frozen=True)
class TorchInt8:
    """INT8 weights (one scale a row, or one in all) and 8-bit activations, fixed beforehand or found at run time.

    Signed activations are stored unsigned, 128 higher, which is the same grid. The engine is the runtime's choice: one
    file runs on all of them.
    """

    format: str = "torch-int8"

    def write(self, plan: Plan, folder: Path) -> Variant:
        """Write `<recipe>.qtorch` into `folder`.

        Raises Unsupported for anything but 8 bits (weights also 7), for blocks, asymmetric weights and half precision,
        and for Plans in which no layer would multiply integers.
        """
        started = time.perf_counter()
        _check(plan)
        path = folder / f"{file_stem(plan.recipe)}.qtorch"
        write_archive(plan, path)
        return described(plan, "torch-int8", self.format, path, started, max_batch=one_image(plan))


def _check(plan: Plan) -> None:
    """Raise Unsupported for what torch's integer kernels cannot run."""
    for name, spec in plan.tensors.items():
        refusal = _refusal(spec)
        if refusal:
            raise Unsupported(f"Expected {refusal}; {name!r} has {_told(spec)}. Use the target onnx-cpu.")
    integer = [layer for layer in layers(plan.program) if weight_of(layer) in plan.tensors]
    for layer in integer:
        if _read(plan, layer) is None:
            raise Unsupported(
                f"Expected 8-bit activations in front of integer weights; {layer.name!r} reads floats. "
                "Use the target onnx-cpu."
            )
    if not integer:
        raise Unsupported(
            f"Expected a Plan with integer layers for torch-int8; {plan.recipe!r} has none. "
            "Use the recipe int8-static or int8-dynamic, or the target simulation."
        )


def _refusal(spec: QuantSpec) -> str:
    """What was expected of a spec that no kernel takes; empty where one does."""
    if spec.format != "integer":
        return "integers for torch-int8"
    if spec.kind == "bias":
        return "" if spec.bits == 32 and not np.any(spec.zero_point) else "biases of 32 bits for torch-int8"
    if spec.block is not None:
        return "one scale a row for torch-int8"
    if spec.kind == "activation":
        one = np.asarray(spec.scale).ndim == 0
        return "" if spec.bits == 8 and one else "activations of 8 bits with one scale for torch-int8"
    if not spec.signed or np.any(spec.zero_point) or spec.axis not in (None, 0):
        return "signed symmetric weights for torch-int8"
    return "" if NARROWEST <= spec.bits <= 8 else f"weights of {NARROWEST} or 8 bits for torch-int8"


def _told(spec: QuantSpec) -> str:
    """A spec in a few words."""
    if spec.format != "integer":
        return spec.format
    held = f"{spec.bits} bits, {'' if spec.signed else 'un'}signed {spec.scheme}"
    return f"{held}, in blocks of {spec.block}" if spec.block is not None else held


def _read(plan: Plan, layer: Node) -> QuantSpec | None:
    return plan.tensors.get(input_key(layer.name), plan.tensors.get(layer.args[0]["node"]))
