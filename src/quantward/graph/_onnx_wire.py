"""What an ONNX file declares, read straight from its bytes: needs neither the onnx package nor a runtime.

A file from elsewhere is looked at before any library allocates what it asks for: where its external data lies, how
large its tensors claim to be, what goes in and what comes out. Protocol buffers are self-describing enough for that:
a field is a number, a kind of four, and a length.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from quantward.core.errors import Refused

Dims = tuple["int | str | None", ...]

BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 8: 0, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128,
        16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}  # fmt: skip
"""Width of ONNX's element types by their number; strings (8) have none."""

TYPES = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
         10: "float16", 11: "float64", 16: "bfloat16"}  # fmt: skip

LARGEST = 1 << 31
"""Elements of one tensor beyond which a file is refused unread: no classifier's image tensor comes near."""

GROWING = {"ConstantOfShape", "Expand", "Tile", "Range"}
"""Operators that make a tensor as large as some stored integers say, out of nothing."""

DEEPEST = 16


@dataclass(frozen=True)
class Port:
    """An input or output of the graph: element type by name, and its sizes (a name or None where one is open)."""

    name: str
    kind: str
    dims: Dims | None


@dataclass(frozen=True)
class Stored:
    """A tensor in the file: where it says its data lies, and how much there should be."""

    name: str
    kind: int
    dims: tuple[int, ...]
    inline: int
    external: Mapping[str, str] | None = None
    integers: tuple[int, ...] = ()


@dataclass
class Outline:
    """What a file declares, without its numbers. `operators` counts `Op` or `domain:Op`, subgraphs included."""

    opsets: dict[str, int] = field(default_factory=dict)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    stored: list[Stored] = field(default_factory=list)
    external: tuple[Path, ...] = ()
    _grown: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)


def outline(path: Path) -> Outline:
    """Read what the file declares.

    Raises Refused where it is no ONNX file, where its external data is absent, too short or outside its folder, and
    where it declares a tensor that its bytes cannot hold or that no classifier has.
    """
    try:
        with path.open("rb") as stream:
            found = _model(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    except FileNotFoundError:
        raise Refused(f"Expected a file at {path}; there is none. Check the path.") from None
    except (_Damaged, ValueError, IndexError, struct.error, UnicodeDecodeError, OSError):
        raise Refused(f"Expected an ONNX file at {path}; its bytes are none, or damaged. Export it again.") from None
    if not found.operators or not found.outputs:
        raise Refused(f"Expected an ONNX graph in {path}; it has no operators or no outputs. Export it again.")
    found.external = tuple(sorted({_held(path, tensor) for tensor in found.stored if tensor.external is not None}))
    _sizes(path, found)
    return found


def _held(path: Path, tensor: Stored) -> Path:
    """The file that holds a tensor's data, checked: beside the model or below it, no link out, long enough."""
    assert tensor.external is not None
    location = tensor.external.get("location", "")
    folder = path.parent.resolve()
    file = folder / location
    if not location or Path(location).is_absolute() or "\\" in location or "\0" in location:
        inside = False
    else:
        inside = ".." not in Path(location).parts and file.resolve().is_relative_to(folder)
    if not inside:
        raise Refused(
            f"Expected the external data of {path.name} inside its folder; tensor {tensor.name!r} names {location!r}. "
            "Export it again with its data beside it."
        )
    if not file.is_file():
        raise Refused(f"Expected {location} with the weights beside {path.name}; there is none. Copy both files.")
    start, length = (int(tensor.external.get(key) or 0) for key in ("offset", "length"))
    need = _bytes(tensor)
    if start < 0 or length < 0 or (length and length != need) or start + need > file.stat().st_size:
        raise Refused(
            f"Expected {need:,} bytes of {tensor.name!r} at {start:,} in {location}; it holds {file.stat().st_size:,} "
            "in all. Copy the file again."
        )
    return file


def _bytes(tensor: Stored) -> int:
    return -(-prod(tensor.dims) * BITS.get(tensor.kind, 0) // 8)


def _sizes(path: Path, found: Outline) -> None:
    """Raise Refused where a declared size is absurd or does not fit what is stored."""
    for port in (*found.inputs, *found.outputs):
        known = [size for size in port.dims or () if isinstance(size, int)]
        if any(size < 0 for size in known) or prod(known) > LARGEST:
            raise Refused(
                f"Expected tensors of a classifier in {path.name}; {port.name!r} is declared "
                f"{' x '.join(map(str, port.dims or ()))}. Check where the file comes from."
            )
    for tensor in found.stored:
        if any(size < 0 for size in tensor.dims) or prod(tensor.dims) > LARGEST:
            raise Refused(
                f"Expected weights of a classifier in {path.name}; {tensor.name!r} is declared "
                f"{' x '.join(map(str, tensor.dims))}. Check where the file comes from."
            )
        if tensor.external is None and tensor.kind != 8 and tensor.inline < _bytes(tensor):
            raise Refused(
                f"Expected {_bytes(tensor):,} bytes of {tensor.name!r} in {path.name}; it holds {tensor.inline:,}. "
                "The file is cut off or forged: export it again."
            )
    small = {tensor.name: tensor.integers for tensor in found.stored if tensor.integers}
    for op, names in found._grown:
        for values in (small[name] for name in names if name in small):
            if (max(values, key=abs) if op == "Range" else prod(abs(v) or 1 for v in values)) > LARGEST:
                raise Refused(
                    f"Expected tensors of a classifier in {path.name}; an operator {op} makes one of "
                    f"{' x '.join(map(str, values))}. Check where the file comes from."
                )


class _Damaged(Exception):
    """The bytes are no protocol buffer, or end too early."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise _Damaged


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, value) in order: an int, or the bytes of a string, a message or a packed list."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if not key >> 3:
            raise _Damaged
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise _Damaged
        if at + size > end:
            raise _Damaged
        yield key >> 3, data[at : at + size]
        at += size


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8")


def _integers(value: Any) -> list[int]:
    """A repeated integer field: one number, or many packed."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_signed(number))
    return found


def _model(data: memoryview) -> Outline:
    found = Outline()
    for number, value in _fields(data):
        if number == 7:
            _graph(value, found, top=True)
        elif number == 8:
            domain, version = "", 0
            for part, inner in _fields(value):
                if part == 1:
                    domain = _text(inner)
                elif part == 2:
                    version = int(inner)
            found.opsets["" if domain == "ai.onnx" else domain] = version
        elif number == 25:
            for part, inner in _fields(value):
                if part == 7:
                    _node(inner, found, 1)
    return found


def _graph(data: memoryview, found: Outline, top: bool = False, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise _Damaged
    inputs: list[Port] = []
    stored = len(found.stored)
    for number, value in _fields(data):
        if number == 1:
            _node(value, found, depth)
        elif number == 5:
            found.stored.append(_tensor(value))
        elif number == 11 and top:
            inputs.append(_port(value))
        elif number == 12 and top:
            found.outputs.append(_port(value))
    given = {tensor.name for tensor in found.stored[stored:]}
    found.inputs += [port for port in inputs if port.name not in given]


def _node(data: memoryview, found: Outline, depth: int) -> None:
    op = domain = ""
    inputs: list[str] = []
    outputs: list[str] = []
    constants: list[Stored] = []
    for number, value in _fields(data):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            op = _text(value)
        elif number == 7:
            domain = _text(value)
        elif number == 5:
            for part, inner in _fields(value):
                if part in (5, 10):
                    constants.append(_tensor(inner))
                elif part in (6, 11):
                    _graph(inner, found, depth=depth + 1)
    found.operators[op if domain in ("", "ai.onnx") else f"{domain}:{op}"] += 1
    for tensor in constants:
        known = op == "Constant" and outputs
        found.stored.append(Stored(outputs[0], *_rest(tensor)) if known else tensor)
    if op in GROWING:
        found._grown.append((op, tuple(inputs if op in ("ConstantOfShape", "Range") else inputs[1:])))


def _rest(tensor: Stored) -> tuple[Any, ...]:
    return tensor.kind, tensor.dims, tensor.inline, tensor.external, tensor.integers


def _tensor(data: memoryview) -> Stored:
    name, kind, dims, inline, where = "", 0, [], 0, 0
    external: dict[str, str] = {}
    raw: memoryview | None = None
    integers: list[int] = []
    for number, value in _fields(data):
        if number == 1:
            dims += _integers(value)
        elif number == 2:
            kind = int(value)
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw, inline = value, len(value)
        elif number == 13:
            pair = {part: _text(inner) for part, inner in _fields(value)}
            external[pair.get(1, "")] = pair.get(2, "")
        elif number == 14:
            where = int(value)
        elif number in (4, 10):  # floats or doubles, packed or one by one: as many bytes as they say
            inline += len(value)
        elif number == 7 and (isinstance(value, int) or len(value) <= 256):
            integers += _integers(value)
            inline = 8 * len(integers)
        elif number in (5, 7, 11):  # integers of any length: at least a byte for each element
            each = 1 if isinstance(value, int) else int((np.frombuffer(value, np.uint8) < 128).sum())
            inline += each * max(1, BITS.get(kind, 8) // 8)
    if kind == 7 and raw is not None and len(raw) <= 64:
        integers = list(struct.unpack(f"<{len(raw) // 8}q", raw[: len(raw) // 8 * 8]))
    return Stored(name, kind, tuple(dims), inline, external if where == 1 else None, tuple(integers))


def _port(data: memoryview) -> Port:
    name, kind, dims = "", "", None
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for part, inner in _fields(value):
                if part == 1:
                    kind, dims = _tensor_type(inner)
                else:
                    kind = "no tensor"
    return Port(name, kind, dims)


def _tensor_type(data: memoryview) -> tuple[str, Dims | None]:
    kind, dims = "", None
    for number, value in _fields(data):
        if number == 1:
            kind = TYPES.get(int(value), f"type {value}")
        elif number == 2:
            sizes: list[int | str | None] = []
            for part, inner in _fields(value):
                if part != 1:
                    continue
                size: int | str | None = None
                for detail, said in _fields(inner):
                    size = _signed(said) if detail == 1 else _text(said) if detail == 2 else size
                sizes.append(size)
            dims = tuple(sizes)
    return kind, dims
