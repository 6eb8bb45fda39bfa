"""ONNX for TensorRT: quantize/dequantize pairs on signed grids around 0, with biases and all else in float.

TensorRT reads the pairs as orders ("explicit quantization"): what stands behind one runs in integers, the rest in the
type it is written in. So the file must hold only what TensorRT takes, and nothing that would split one of its kernels.
docs/tensorrt.md has the rules with their sources; `quantward.audit.tensorrt` checks any file against them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from quantward.core.errors import Unsupported, UsageError
from quantward.core.store import atomic
from quantward.core.values import Node, Plan, QuantSpec, Variant
from quantward.graph.to_onnx import OPSET
from quantward.graph.walk import LINEAR, layers, weight_of
from quantward.targets._dialect import TENSORRT
from quantward.targets._names import file_stem
from quantward.targets._opset import oldest
from quantward.targets._qdq import write_qdq
from quantward.targets._variant import described
from quantward.targets._weights import multiplied_as_integers, read_by

BLOCKS = (64, 128)
"""Block lengths of TensorRT's INT4 weights ("Quantization schemes", TensorRT 10 and 11)."""

FLOOR = 17
"""The opset of TensorRT 8.5, which JetPack 5 has; newer releases read older opsets."""


@dataclass(frozen=True)
class OnnxTensorrt:
    """Signed 8-bit activations with zero point 0 and INT8 weights (`signed=true` of the recipes); INT4 weights in
    blocks of 64 or 128 for linear layers (`int4-weights`); FP16 weights; or plain float32. Everything else is refused.

    `opset` is the lowest opset that the file may have; it gets a newer one only where it needs it (INT4: 21).
    """

    opset: int = FLOOR
    format: str = "onnx"

    def __post_init__(self) -> None:
        if not FLOOR <= self.opset <= OPSET:
            raise UsageError(f"Expected opset from {FLOOR} to {OPSET}; got {self.opset}. Choose one of these.")

    def write(self, plan: Plan, folder: Path) -> Variant:
        """Write `<recipe>.tensorrt.onnx` into `folder`.

        Raises Unsupported, naming the option that helps, for what TensorRT does not take.
        """
        refuse(plan)
        started = time.perf_counter()
        model = oldest(write_qdq(plan, TENSORRT), self.opset)
        path = folder / f"{file_stem(plan.recipe)}.tensorrt.onnx"
        with atomic(path) as temporary:
            onnx.save(model, str(temporary))
        return described(plan, "onnx-tensorrt", self.format, path, started)


def refuse(plan: Plan) -> None:
    """Raise Unsupported for the first spec that TensorRT does not take."""
    for name, spec in plan.tensors.items():
        if spec.kind == "activation":
            _refuse_activation(name, spec)
    integer, of_weight = multiplied_as_integers(plan), {weight_of(layer): layer for layer in layers(plan.program)}
    for name, spec in plan.tensors.items():
        if spec.kind == "weight" and spec.format == "integer":
            _refuse_weight(plan, name, spec, of_weight.get(name), name in integer)


def _refuse_activation(name: str, spec: QuantSpec) -> None:
    if spec.dynamic:
        raise Unsupported(
            f"Expected activations whose range is fixed for onnx-tensorrt; that of {name!r} is found at run time. "
            "Use int8-static:signed=true."
        )
    if spec.format != "integer" or spec.bits != 8:
        kind = f"{spec.bits} bits" if spec.format == "integer" else spec.format
        raise Unsupported(f"Expected 8-bit activations for onnx-tensorrt; {name!r} has {kind}. "
                          "Use int8-static:signed=true.")  # fmt: skip
    if not spec.signed or np.any(spec.zero_point):
        found = "unsigned" if not spec.signed else f"signed with zero point {int(np.ravel(spec.zero_point)[0])}"
        raise Unsupported(
            f"Expected signed activations with zero point 0 for onnx-tensorrt; {name!r} is {found}. "
            "Add signed=true to the recipe, as in int8-static:signed=true."
        )


def _refuse_weight(plan: Plan, name: str, spec: QuantSpec, layer: Node | None, integer: bool) -> None:
    if integer:
        if spec.bits < 5:
            raise Unsupported(
                f"Expected INT8 weights beside 8-bit activations for onnx-tensorrt; {name!r} has {spec.bits} bits. "
                "Use 8, or int4-weights with float activations."
            )
        return
    if layer is not None and read_by(plan, layer) is not None:
        raise Unsupported(
            f"Expected weights on symmetric grids, one scale an output, beside 8-bit activations for onnx-tensorrt; "
            f"{name!r} is {spec.scheme}{' in blocks' if spec.block else ''}. Use int8-static:signed=true."
        )
    told = "Use int4-weights:scheme=symmetric,group=128 and name the rest in keep=, or int8-static:signed=true."
    if spec.bits != 4 or spec.block is None:
        raise Unsupported(
            f"Expected integer weights beside float activations only as INT4 in blocks for onnx-tensorrt; {name!r} has "
            f"{spec.bits} bits{'' if spec.block else ', one scale a row'}. {told}"
        )
    if layer is None or layer.op != LINEAR:
        raise Unsupported(
            f"Expected INT4 weights only in linear layers for onnx-tensorrt, which has no such convolution; {name!r} "
            f"is in another kind. {told}"
        )
    if not spec.signed or np.any(spec.zero_point):
        raise Unsupported(f"Expected symmetric INT4 weights for onnx-tensorrt; {name!r} is affine. {told}")
    inputs = int(np.prod(plan.weights[name].shape[1:]))
    if spec.block not in BLOCKS or inputs % spec.block:
        raise Unsupported(
            f"Expected blocks of 64 or 128 that divide the {inputs} inputs of {name!r} for onnx-tensorrt; got "
            f"{spec.block}. Use group=64 or group=128, or keep the layer."
        )
