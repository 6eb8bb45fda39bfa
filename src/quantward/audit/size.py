"""Is a file as small as its bits promise? Bytes that the Plan accounts for, against bytes on the disk, and what type
each weight really lies in: a file can call itself INT8 and keep its weights in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quantward.core.values import Plan, QuantSpec, Variant
from quantward.graph.stored import stored_scale

Held = dict[str, tuple[str, int]]
"""Weight name -> the type that it lies in, in ONNX's words, and its bytes."""


@dataclass(frozen=True)
class Size:
    """`promised` bytes follow from the Plan (bits of each weight, its scales); `overhead` is the rest of the file.

    `stored_as` counts the weights by what the file makes of them ("4-bit in INT4", "float32"), `stored` is their
    bytes without scales; both are None for formats that are not looked into. `kept_float` names the weights that the
    Plan stores in few bits and the file in float32.
    """

    bytes: int
    promised: int
    overhead: float
    stored: int | None = None
    stored_as: Mapping[str, int] | None = None
    kept_float: tuple[str, ...] = field(default=())

    @property
    def honest(self) -> bool:
        """Whether no weight that the Plan stores in few bits lies in the file as float32."""
        return not self.kept_float


def size(plan: Plan, variant: Variant) -> Size:
    """Compare the file with what its Plan promises: sum over weights of bits / 8, plus their scales (4 bytes each, 2
    where half precision holds them exactly) and, on affine grids, zero points. Scales of biases follow from others."""
    promised = sum(_promised(array, plan.tensors.get(name)) for name, array in plan.weights.items())
    overhead = variant.bytes / max(promised, 1) - 1.0
    found = _held(variant)
    if found is None:
        return Size(variant.bytes, promised, overhead)
    kinds: Counter[str] = Counter()
    stored, kept = 0, []
    for name, array in plan.weights.items():
        if name in found:
            spec, (kind, held) = plan.tensors.get(name), found[name]
            kinds[_told(array.size, spec, kind, held)] += 1
            stored += held
            if spec is not None and spec.bits < 32 and kind == "FLOAT":  # a bias takes four bytes either way
                kept.append(name)
    return Size(variant.bytes, promised, overhead, stored, dict(sorted(kinds.items())), tuple(kept))


def _promised(array: np.ndarray[Any, Any], spec: QuantSpec | None) -> int:
    if spec is None:
        return array.nbytes
    data = -(-array.size * spec.bits // 8)
    if spec.format == "float16":
        return data
    if spec.kind == "bias":
        return data
    zero = -(-np.asarray(spec.zero_point).size * spec.bits // 8) if np.any(spec.zero_point) else 0
    return data + stored_scale(spec).nbytes + zero


def _told(count: int, spec: QuantSpec | None, kind: str, held: int) -> str:
    """What a weight of `count` entries is in the file, in words."""
    if spec is None or kind.startswith("FLOAT"):
        return {"FLOAT": "float32", "FLOAT16": "float16"}.get(kind, kind)
    if kind == "UINT8" and held < count:
        return f"{spec.bits}-bit, {-(-count // held)} in a byte"
    return f"{spec.bits}-bit in {kind}"


def _held(variant: Variant) -> Held | None:
    """What a file says that it holds, None for formats (and libraries) that are not there to be asked."""
    readers = {"onnx": _initializers, "tflite": _buffers, "torch-int8": _archived}
    reader = readers.get(variant.format)
    try:
        return None if reader is None else reader(variant)
    except ImportError:
        return None


def _initializers(variant: Variant) -> Held:
    """The initializers of an ONNX file. It names a weight `WEIGHT` or `WEIGHT:FORM`, with FORM the type or how it is
    packed; scales and zero points have their own forms."""
    import onnx

    found = {}
    for tensor in onnx.load(str(variant.path)).graph.initializer:
        name, _, form = tensor.name.partition(":")
        if form == "" or form.startswith(("int", "uint", "float16", "shaped")):
            bits = {"INT4": 4, "UINT4": 4}.get(kind := onnx.TensorProto.DataType.Name(tensor.data_type), 0)
            count = int(np.prod(tensor.dims))
            wide = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize if not bits else 0
            found[name] = kind, -(-count * bits // 8) + count * wide
    return found


def _buffers(variant: Variant) -> Held:
    """The constants of a TFLite file, which have the names of the weights."""
    from ai_edge_litert import schema_py_generated as schema

    words = {number: word for word, number in vars(schema.TensorType).items() if isinstance(number, int)}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(variant.path.read_bytes(), 0))
    found = {}
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            word = words[tensor.type]
            found[tensor.name.decode()] = "FLOAT" if word == "FLOAT32" else word, len(data)
    return found


def _archived(variant: Variant) -> Held:
    """The arrays of a torch-int8 file, whose header alone is read."""
    from safetensors import safe_open

    words = {"F32": ("FLOAT", 4), "F16": ("FLOAT16", 2), "I8": ("INT8", 1), "I32": ("INT32", 4)}
    found = {}
    with safe_open(variant.path, framework="numpy") as stream:
        for key in stream.keys():  # noqa: SIM118 (not a mapping)
            kind, _, name = key.partition(":")
            piece = stream.get_slice(key)
            word, wide = words.get(piece.get_dtype(), (piece.get_dtype(), 8))
            if kind == "weight":
                found[name] = word, int(np.prod(piece.get_shape())) * wide
    return found
