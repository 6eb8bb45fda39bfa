"""Messages between a process and its children: a few facts as JSON and at most one array, as plain bytes in a pipe.

A frame is two lengths (little-endian, 4 and 8 bytes), the JSON text and the raw float32 values. Nothing is pickled, so
a child that went wrong can at worst send nonsense, never code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from quantward.core.contracts import Batch

_HEAD = struct.Struct("<IQ")
Message = tuple[dict[str, Any], Batch | None]


def send(stream: IO[bytes], facts: Mapping[str, Any], array: Batch | None = None) -> None:
    """Write one frame. Raises OSError where the other end is gone."""
    values = None if array is None else np.ascontiguousarray(array, np.float32)
    text = json.dumps({**facts, "shape": None if values is None else values.shape}).encode()
    _write(stream, _HEAD.pack(len(text), 0 if values is None else values.nbytes) + text)
    if values is not None and values.nbytes:
        _write(stream, values.data.cast("B"))


def receive(stream: IO[bytes]) -> Message | None:
    """Read one frame; None where the other end is gone, in the middle of a frame or between two."""
    head = _read(stream, _HEAD.size)
    if head is None:
        return None
    length, size = _HEAD.unpack(head)
    text, body = _read(stream, length), _read(stream, size)
    if text is None or body is None:
        return None
    facts: dict[str, Any] = json.loads(bytes(text))
    shape = facts.pop("shape")
    return facts, None if shape is None else np.frombuffer(body, np.float32).reshape(shape)


def _write(stream: IO[bytes], data: bytes | memoryview) -> None:
    """Write everything: a raw pipe takes what fits and says how much that was."""
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]


def _read(stream: IO[bytes], size: int) -> bytearray | None:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        found = stream.readinto(rest)  # type: ignore[attr-defined]  # raw files have it, the protocol class does not
        if not found:
            return None
        rest = rest[found:]
    return data
