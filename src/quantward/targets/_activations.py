"""Activations as a file holds them: quantize, clip where the type has more values than the grid, dequantize.

The clip works on integers, behind the quantizer: a clamp of floats in front of it would keep runtimes from fusing the
quantizer into the layer. So ReLU and ReLU6 become part of that clip, or go where the type's own range does their work.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from quantward.core.errors import Unsupported
from quantward.core.values import QuantSpec
from quantward.targets._draft import Draft

Ends = tuple[float, float]

TYPES = {(8, False): np.uint8, (8, True): np.int8, (16, False): np.uint16, (16, True): np.int16}


def put_output(
    draft: Draft,
    spec: QuantSpec | None,
    tap: onnx.NodeProto,
    name: str,
    sources: Mapping[str, onnx.NodeProto],
    counts: Mapping[str, int],
    integer_clips: bool = True,
) -> None:
    """A marker on an activation becomes quantize + dequantize, or vanishes; `integer_clips` lets it take a clamp in."""
    source = draft.known(tap.input[0])
    if spec is None or spec.dynamic:
        draft.renamed[tap.output[0]] = source
        return
    producer, ends = sources.get(tap.input[0]), None
    alone = integer_clips and counts[tap.input[0]] == 1
    if producer is not None and alone and spec.bits <= 8:  # runtimes clip no wider integers
        ends = _clamp(draft, producer)
    if producer is not None and ends is not None:
        draft.nodes = [node for node in draft.nodes if node.output[0] != tap.input[0]]
        source = draft.known(producer.input[0])
    draft.renamed[tap.output[0]] = quantized(draft, source, spec, name, ends)


def put_input(draft: Draft, spec: QuantSpec | None, tap: onnx.NodeProto, name: str) -> None:
    """A marker on what one layer reads: a grid of its own where the Plan has one; layers that share it share nodes."""
    source = draft.known(tap.input[0])
    if spec is None or spec.dynamic:
        draft.renamed[tap.output[0]] = source
        return
    key = (source, spec.bits, spec.signed, spec.scheme, float(spec.scale), int(spec.zero_point))
    if key not in draft.made:
        draft.made[key] = quantized(draft, source, spec, f"{name}:input")
    draft.renamed[tap.output[0]] = draft.made[key]


def quantized(draft: Draft, source: str, spec: QuantSpec, name: str, ends: Ends | None = None) -> str:
    """`source`, held within `ends`, rounded to the grid; returns the name of the float value that is left.

    Rounding keeps order, so the ends are rounded and held in integers: q(clip(x, a, b)) = clip(q(x), q(a), q(b)).
    """
    if spec.format != "integer":
        raise Unsupported(f"Expected integer activations; {name!r} is {spec.format}. Use float weights only.")
    if np.asarray(spec.scale).ndim:
        raise Unsupported(f"Expected one scale for all of {name!r}; got one a channel. Quantize it as a whole.")
    kind = TYPES[8 if spec.bits <= 8 else 16, spec.signed]
    step = np.asarray(spec.scale, np.float32)
    scale = draft.constant(f"{name}:scale", step)
    zero = draft.constant(f"{name}:zero", np.asarray(spec.zero_point).astype(kind))
    stored = draft.add("QuantizeLinear", [source, scale, zero], f"{name}:quantized")
    low, high = spec.low, spec.high
    if ends is not None:
        low = max(low, round(float(np.rint(np.float32(ends[0]) / step))) + int(spec.zero_point))
        if np.isfinite(ends[1]):
            high = min(high, round(float(np.rint(np.float32(ends[1]) / step))) + int(spec.zero_point))
    if spec.bits < 8 or (low, high) != (spec.low, spec.high):
        bounds = [draft.constant(f"{name}:{end}", np.asarray(value, kind))
                  for end, value in (("low", low), ("high", high))]  # fmt: skip
        stored = draft.add("Clip", [stored, *bounds], f"{name}:clipped")
    return draft.add("DequantizeLinear", [stored, scale, zero], f"{name}:value")


def _clamp(draft: Draft, producer: onnx.NodeProto) -> Ends | None:
    """What a ReLU or a Clip with constant ends holds its input to, None for every other step."""
    if producer.op_type == "Relu":
        return 0.0, np.inf
    if producer.op_type != "Clip" or any(name not in draft.initializers for name in producer.input[1:3]):
        return None
    bounds = [float(numpy_helper.to_array(draft.initializers[name])) for name in producer.input[1:3]]
    return (bounds[0], bounds[1]) if len(bounds) == 2 else None
