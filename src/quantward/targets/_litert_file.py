"""The TFLite file while it is being written: tensors, constants and operators in order, then the flatbuffer.

The schema comes with the runtime's own package, so writing needs no converter: what a Plan says goes into the file as
it stands, integer by integer and scale by scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from quantward.core.values import QuantSpec

Array = npt.NDArray[Any]

FILE_IDENTIFIER = b"TFL3"
ALIGNMENT = 16
"""Bytes to which the runtime's kernels expect constants to be aligned."""

VERSIONS = {
    "ADD": {"int8": 2, "int16": 4},
    "AVERAGE_POOL_2D": {"int8": 2, "int16": 3},
    "CONCATENATION": {"int8": 2, "int16": 3},
    "CONV_2D": {"int8": 3, "int16": 4, "hybrid": 5, "int4": 6},
    "DEPTHWISE_CONV_2D": {"int8": 3, "int16": 5, "hybrid": 6, "int4": 7},
    "DEQUANTIZE": {"int8": 2, "int16": 3, "float16": 3, "int4": 6},
    "FULLY_CONNECTED": {"float32": 5, "int8": 5, "int16": 7, "hybrid": 9, "int4": 10},
    "LOGISTIC": {"int8": 2, "int16": 3},
    "MAX_POOL_2D": {"int8": 2, "int16": 3},
    "MEAN": {"int8": 2, "int16": 3},
    "MINIMUM": {"int8": 2, "int16": 4},
    "MUL": {"int8": 2, "int16": 4},
    "PAD": {"int8": 2, "int16": 3},
    "PADV2": {"int8": 2, "int16": 3},
    "QUANTIZE": {"float32": 1, "int8": 2, "int16": 2},
    "RELU": {"int8": 2, "int16": 3},
    "RELU6": {"int8": 2, "int16": 3},
    "SLICE": {"int8": 2, "int16": 4},
    "SUB": {"int8": 2, "int16": 5},
    "TRANSPOSE": {"int8": 2, "int16": 4},
    "BATCH_MATMUL": {"int8": 2, "int16": 3},
}  # fmt: skip
"""Operator -> what it multiplies or moves -> the first version of the operator that can; 1 where nothing is said."""


@dataclass(frozen=True)
class Grid:
    """The integers of one tensor, as the file has them: x = scale (q - zero), with q at most `top`.

    TFLite knows no unsigned activations, so the unsigned grids of a Plan move down by half their type's range. `top` is
    the type's own largest value, or less where the Plan has fewer bits than the type.
    """

    kind: str
    scale: float
    zero: int
    top: int

    @classmethod
    def of(cls, spec: QuantSpec) -> Grid:
        """A spec of an activation with one scale.

        >>> Grid.of(QuantSpec("activation", 8, False, scheme="affine", scale=np.float32(0.5), zero_point=np.int32(3)))
        Grid(kind='int8', scale=0.5, zero=-125, top=127)
        """
        kind = "int8" if spec.bits <= 8 else "int16"
        shift = 0 if spec.signed else 1 << (7 if kind == "int8" else 15)
        return cls(kind, float(np.float32(spec.scale)), int(spec.zero_point) - shift, spec.high - shift)

    @property
    def low(self) -> int:
        """The type's own smallest value."""
        return int(np.iinfo(self.kind).min)

    @property
    def whole(self) -> Grid:
        """The same steps with all values of the type."""
        return replace(self, top=int(np.iinfo(self.kind).max))

    @property
    def clips_negatives(self) -> bool:
        """Whether nothing below 0 has a place on it, so that a ReLU in front of it changes nothing."""
        return self.zero == self.low


class _Aligned(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes begin at a multiple of `ALIGNMENT` from the start of the file."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802
        data = self.data.tobytes()
        builder.StartVector(1, len(data), ALIGNMENT)
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        packed: int = schema.BufferEnd(builder)
        return packed


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Remembers the vectors it has written, so that equal ones lie in the file once."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.written: dict[Any, int] = {}

    def vector(self, array: Array) -> int:
        """Where a vector of these numbers lies."""
        key = (array.dtype.str, array.tobytes())
        if key not in self.written:
            self.written[key] = self.CreateNumpyVector(array)
        return self.written[key]


class _Steps(schema.QuantizationParametersT):  # type: ignore[misc]
    """Scales and zero points, shared where they are equal: 8 bytes of zero a channel, for each weight and each bias,
    would else be a tenth of a small network."""

    def Pack(self, builder: _Builder) -> int:  # noqa: N802
        scale, zero = builder.vector(self.scale), builder.vector(self.zeroPoint)
        schema.QuantizationParametersStart(builder)
        schema.QuantizationParametersAddScale(builder, scale)
        schema.QuantizationParametersAddZeroPoint(builder, zero)
        schema.QuantizationParametersAddQuantizedDimension(builder, self.quantizedDimension)
        packed: int = schema.QuantizationParametersEnd(builder)
        return packed


class Draft:
    """Grows by one tensor or operator at a time; `data` finishes it."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]
        self._operators: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}
        self._constants: dict[Any, int] = {}
        self._names: dict[str, int] = {}

    def tensor(self, name: str, shape: tuple[int, ...], grid: Grid | None = None, kind: str = "float32") -> int:
        """A tensor that an operator will write; its number."""
        made = _tensor(self._name(name), shape, grid.kind if grid else kind)
        if grid is not None:
            made.quantization = _quantization(np.asarray(grid.scale), np.asarray(grid.zero), 0)
        self._tensors.append(made)
        return len(self._tensors) - 1

    def constant(self, name: str, array: Array, kind: str, scale: Array | None = None, zero: Array | None = None,
                 axis: int = 0) -> int:  # fmt: skip
        """A stored tensor of type `kind` (`int4`: two in a byte), once for all that are equal; its number."""
        data = _four_bits(array) if kind == "int4" else np.asarray(array, kind, order="C")
        grid = None if scale is None else _quantization(scale, np.zeros(1) if zero is None else zero, axis)
        steps = () if grid is None else (grid.scale.tobytes(), grid.zeroPoint.tobytes(), axis)
        key = (kind, array.shape, data.tobytes(), steps)
        if key not in self._constants:
            made = _tensor(self._name(name), array.shape, kind)
            made.quantization = grid
            made.buffer = len(self._buffers)
            self._buffers.append(_Aligned(data=np.frombuffer(data.tobytes(), np.uint8)))
            self._constants[key] = len(self._tensors)
            self._tensors.append(made)
        return self._constants[key]

    def add(self, op: str, inputs: list[int], outputs: list[int], arithmetic: str = "float32", **options: Any) -> None:
        """An operator by its name in the schema; `options` by their names there."""
        code = (op, VERSIONS.get(op, {}).get(arithmetic, 1))
        made = schema.OperatorT()
        made.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        made.inputs, made.outputs = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
        table = OPTIONS.get(op)
        if table is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            made.builtinOptions = getattr(schema, f"{table}T")()
            for name, value in options.items():
                setattr(made.builtinOptions, name, value)
        self._operators.append(made)

    def data(self, inputs: dict[str, int], outputs: dict[str, int]) -> bytes:
        """The file's bytes; `inputs` and `outputs` name the tensors that a caller sees."""
        graph = schema.SubGraphT(name="main", tensors=self._tensors, operators=self._operators)
        graph.inputs = np.asarray(list(inputs.values()), np.int32)
        graph.outputs = np.asarray(list(outputs.values()), np.int32)
        codes = [_code(op, version) for op, version in self._codes]
        model = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=self._buffers)
        model.description = "quantward"
        signature = schema.SignatureDefT(signatureKey="serving_default")
        signature.inputs = [schema.TensorMapT(name, number) for name, number in inputs.items()]
        signature.outputs = [schema.TensorMapT(name, number) for name, number in outputs.items()]
        model.signatureDefs = [signature]
        builder = _Builder(1024 + sum(b.data.size for b in self._buffers[1:]))
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _name(self, name: str) -> str:
        """A name that no other tensor has: steps that became several operators number theirs."""
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name};{count}"


OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GELU": "GeluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "QUANTIZE": "QuantizeOptions",
    "RESHAPE": "ReshapeOptions",
    "SLICE": "SliceOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
    "SUB": "SubOptions",
    "TRANSPOSE": "TransposeOptions",
}
"""Operator -> the table of its options in the schema."""


def _code(op: str, version: int) -> Any:
    number = getattr(schema.BuiltinOperator, op)
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(number, 127), version=version, builtinCode=number)


def _tensor(name: str, shape: tuple[int, ...], kind: str) -> Any:
    return schema.TensorT(
        shape=np.asarray(shape, np.int32), type=getattr(schema.TensorType, kind.upper()), name=name, hasRank=True
    )


def _quantization(scale: Array, zero: Array, axis: int) -> Any:
    steps = np.atleast_1d(np.asarray(scale, np.float32))
    zeros = np.broadcast_to(np.atleast_1d(np.asarray(zero, np.int64)), steps.shape).copy()
    return _Steps(scale=steps, zeroPoint=zeros, quantizedDimension=axis)


def _four_bits(array: Array) -> npt.NDArray[np.uint8]:
    """Two integers in a byte, the first in the low half."""
    halves = np.append(array.ravel(), np.zeros(array.size % 2, array.dtype)).astype(np.int64) & 15
    return (halves[0::2] | (halves[1::2] << 4)).astype(np.uint8)
