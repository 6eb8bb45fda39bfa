"""Weights as a file holds them: in as few bits as they have, read back in the way their runtime multiplies fastest.

Two ways lead back. A layer that multiplies integers reads INT8 behind a DequantizeLinear, the form that runtimes fuse.
Every other layer reads float32 from a Cast and a Mul, which runtimes compute once, when they load the file; behind a
DequantizeLinear they would compute it anew for every image. Narrower weights lie packed in the file: 3 and 4 bits as
INT4 or UINT4, 2 bits as digits of a byte, since neither ONNX Runtime nor OpenVINO reads a type of 2 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from quantward.core.values import Node, Plan, QuantSpec
from quantward.graph.stored import stored_scale, stored_weight, to_integers
from quantward.graph.walk import CONV, LINEAR, input_key, layers, weight_of, weights_of
from quantward.targets._dialect import CPU, Dialect
from quantward.targets._draft import Draft

Integers = npt.NDArray[np.integer[Any]]

WORTH_A_PRODUCT = 48
"""Scales from which on a node that multiplies two others is shorter in the file than four bytes each."""


def multiplied_as_integers(plan: Plan) -> dict[str, Node]:
    """Weights and biases of the layers that multiply integers, each with its layer.

    Both the weight and what the layer reads have 8 bits or fewer, and the weight's grid is symmetric with one scale a
    row (or one in all): what integer kernels take.
    """
    found = {}
    for layer in layers(plan.program):
        spec, source = plan.tensors.get(weight_of(layer)), read_by(plan, layer)
        if spec is None or source is None or "float16" in (spec.format, source.format):
            continue
        plain = spec.signed and spec.block is None and spec.axis in (None, 0) and not np.any(spec.zero_point)
        if plain and spec.bits <= 8 and source.bits <= 8:
            found.update(dict.fromkeys(weights_of(layer), layer))
    return found


def read_by(plan: Plan, layer: Node) -> QuantSpec | None:
    """The grid of what a layer reads: its own, or that of the tensor."""
    return plan.tensors.get(input_key(layer.name), plan.tensors.get(layer.args[0]["node"]))


def put_weight(draft: Draft, plan: Plan, output: str, name: str, layer: Node | None, dialect: Dialect = CPU) -> None:
    """A marker on a weight becomes an initializer in its stored form, then what reads it back; `layer` is the one that
    multiplies it as integers, if one does."""
    array, spec = plan.weights[name], plan.tensors.get(name)
    if spec is None:
        draft.renamed[output] = draft.constant(name, array.astype(np.float32))
    elif spec.format == "float16":
        half = draft.constant(f"{name}:float16", array.astype(np.float16))
        draft.renamed[output] = draft.add("Cast", [half], name, to=TensorProto.FLOAT)
    elif spec.kind == "bias" and not dialect.integer_biases:
        draft.renamed[output] = draft.constant(name, stored_weight(array, spec))
    elif layer is not None:
        kind = np.int32 if spec.kind == "bias" else np.int8
        stored = draft.constant(stored_name(name, spec), to_integers(array, spec).astype(kind))
        inputs = [stored, _scale(draft, plan, name, spec, layer)]
        if layer.op == LINEAR:  # ONNX Runtime fuses these only with their zeros written out, convolutions without
            inputs.append(draft.constant(f"{name}:zero", np.asarray(spec.zero_point).astype(kind)))
        axis = {} if spec.axis is None else {"axis": spec.axis}
        draft.renamed[output] = draft.add("DequantizeLinear", inputs, name, **axis)
    else:
        draft.renamed[output] = _folded(draft, name, array, spec)


def _scale(draft: Draft, plan: Plan, name: str, spec: QuantSpec, layer: Node) -> str:
    """The scales of a weight, or of a convolution's bias: input scale x weight scale, which is shorter written so."""
    own, source = np.asarray(spec.scale, np.float32), read_by(plan, layer)
    if spec.kind == "bias" and layer.op == CONV and own.size >= WORTH_A_PRODUCT and source is not None:
        factor = np.asarray(source.scale, np.float32)
        if np.array_equal(factor * np.asarray(plan.tensors[weight_of(layer)].scale, np.float32), own):
            step = draft.constant(f"{name}:input-scale", factor)
            return draft.add("Mul", [f"{weight_of(layer)}:scale", step], f"{name}:scale")
    return draft.constant(f"{name}:scale", own)


def stored_name(name: str, spec: QuantSpec) -> str:
    """The initializer that holds a weight's integers."""
    return f"{name}:{'' if spec.signed else 'u'}int{spec.bits}"


def _folded(draft: Draft, name: str, array: npt.NDArray[Any], spec: QuantSpec) -> str:
    """(q - z) s as Cast, Sub, Mul of initializers; blocks are the last axis of (outputs, blocks, block)."""
    integers, scale, zero = to_integers(array, spec), stored_scale(spec), np.asarray(spec.zero_point, np.int64)
    shape: tuple[int, ...] = array.shape
    if spec.block is not None:
        rows, blocks = scale.shape
        filled = np.zeros((rows, blocks * spec.block), np.int64)
        filled[:, : array.size // rows] = integers.reshape(rows, -1)
        integers, scale, zero = filled.reshape(rows, blocks, spec.block), scale[..., None], zero[..., None]
    elif spec.axis is not None:
        slices = [-1 if axis == spec.axis else 1 for axis in range(array.ndim)]
        scale, zero = scale.reshape(slices), zero.reshape(slices)
    value = _as_float(draft, _narrow(draft, stored_name(name, spec), integers, spec), f"{name}:whole")
    if np.any(zero):
        level = _as_float(draft, _narrow(draft, f"{name}:zero", zero, spec, digits=False), f"{name}:level")
        value = draft.add("Sub", [value, level], f"{name}:centred")
    step = draft.constant(f"{name}:scale", scale)
    if scale.dtype == np.float16:
        step = _as_float(draft, step, f"{name}:step")
    if spec.block is None:
        return draft.add("Mul", [value, step], name)
    value = draft.add("Mul", [value, step], f"{name}:blocks")
    if filled.size != array.size:
        value = draft.add("Reshape", [value, _shape(draft, filled.shape)], f"{name}:rows")
        ends = [_shape(draft, (end,)) for end in (0, array.size // rows, 1)]
        value = draft.add("Slice", [value, *ends], f"{name}:matrix")
    return draft.add("Reshape", [value, _shape(draft, shape)], name)


def _as_float(draft: Draft, value: str, output: str) -> str:
    return draft.add("Cast", [value], output, to=TensorProto.FLOAT)


def _narrow(draft: Draft, name: str, integers: Integers, spec: QuantSpec, digits: bool = True) -> str:
    """Store integers in as few bits as the file can; returns the value that has them, in a type of 4 or 8 bits."""
    if spec.bits > 4:
        kind = np.int32 if spec.bits > 8 else np.int8 if spec.signed else np.uint8
        return draft.constant(name, integers.astype(kind))
    if spec.bits == 2 and digits:
        return _digits(draft, name, integers, spec)
    draft.initializers[name] = four_bits(name, integers, spec.signed)
    return name


def four_bits(name: str, integers: Integers, signed: bool) -> onnx.TensorProto:
    """Integers as an ONNX tensor of type INT4 or UINT4: two in a byte, the first in the low half."""
    halves = integers.ravel().astype(np.int8).view(np.uint8) & 15
    if halves.size % 2:
        halves = np.append(halves, np.uint8(0))
    kind = TensorProto.INT4 if signed else TensorProto.UINT4
    data = (halves[0::2] | (halves[1::2] << 4)).tobytes()
    return TensorProto(name=name, data_type=kind, dims=integers.shape, raw_data=data)


def _digits(draft: Draft, name: str, integers: Integers, spec: QuantSpec) -> str:
    """As many integers in a byte as its 256 values can tell apart: the digits of a number to the base `levels`.

    Three levels (2 bits, symmetric) go five in a byte, four levels four in a byte. A table of all bytes, shared by the
    whole file, gives the digits back.
    """
    levels = spec.high - spec.low + 1
    together = int(math.log(256.0) / math.log(levels) + 1e-9)
    flat = (integers.ravel() - spec.low).astype(np.int64)
    bytewise = np.append(flat, np.zeros(-len(flat) % together, np.int64)).reshape(-1, together)
    packed = draft.constant(f"{name}:packed", (bytewise @ levels ** np.arange(together)).astype(np.uint8))
    every = np.arange(levels**together)[:, None] // levels ** np.arange(together) % levels + spec.low
    table = draft.constant(f"digits:{spec.low}:{spec.high}", every.astype(np.int8))
    index = draft.add("Cast", [packed], f"{name}:index", to=TensorProto.INT32)
    value = draft.add("Gather", [table, index], f"{name}:digits", axis=0)
    if bytewise.size != integers.size:
        value = draft.add("Reshape", [value, _shape(draft, (-1,))], f"{name}:flat")
        ends = [_shape(draft, (end,)) for end in (0, integers.size)]
        value = draft.add("Slice", [value, *ends], f"{name}:cut")
    return draft.add("Reshape", [value, _shape(draft, integers.shape)], name)


def _shape(draft: Draft, sizes: tuple[int, ...]) -> str:
    """A constant of int64, shared by all that need the same."""
    return draft.constant(f"shape:{'x'.join(map(str, sizes))}", np.asarray(sizes, np.int64))


def pack(draft: Draft, plan: Plan, integer: Iterable[str]) -> None:
    """Store the INT8 initializers of weights with 4 bits or fewer in fewer bytes and widen them again in the graph.

    Comes last, when every weight lies as its layer reads it. Runtimes widen once, when they load the file, and then
    fuse as if INT8 had been stored.
    """
    after, draft.nodes = draft.nodes, []
    for name in integer:
        spec = plan.tensors.get(name)
        stored = "" if spec is None else stored_name(name, spec)
        if spec is None or spec.bits > 4 or stored not in draft.initializers:
            continue
        integers = draft.array(stored)
        del draft.initializers[stored]
        if spec.bits == 2:
            _digits(draft, stored, integers, spec)
        else:
            draft.initializers[f"{stored}:packed"] = four_bits(f"{stored}:packed", integers, spec.signed)
            draft.add("Cast", [f"{stored}:packed"], stored, to=TensorProto.INT8)
    draft.nodes += after
