"""Frames survive the pipe whatever their size, and half a frame is no frame."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantward.core.frames import receive, send


class Slow(io.RawIOBase):
    """A stream that gives and takes a few bytes at a time, as pipes may."""

    def __init__(self, data: bytes = b"", step: int = 7) -> None:
        self.data, self.step = bytearray(data), step

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, room: memoryview) -> int:  # type: ignore[override]
        n = min(len(room), self.step, len(self.data))
        room[:n] = self.data[:n]
        del self.data[:n]
        return n

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        self.data += data[: self.step]
        return min(len(data), self.step)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5), st.integers(0, 9), st.integers(1, 50), st.text(max_size=20))
def test_what_goes_in_comes_out(n: int, k: int, step: int, text: str) -> None:
    stream = Slow(step=step)
    array = np.random.default_rng(n * k).normal(size=(n, k)).astype(np.float32)
    send(stream, {"ask": text, "n": n}, array)
    send(stream, {"ask": text})
    found = receive(stream)
    assert found is not None and found[0] == {"ask": text, "n": n}
    assert found[1] is not None and found[1].shape == (n, k) and np.array_equal(found[1], array)
    assert receive(stream) == ({"ask": text}, None)
    assert receive(stream) is None


@pytest.mark.parametrize("keep", [0, 5, 12, 20, 60])
def test_half_a_frame_is_none(keep: int) -> None:
    stream = Slow()
    send(stream, {"ask": "run"}, np.zeros((2, 3), np.float32))
    assert receive(Slow(bytes(stream.data[:keep]))) is None


def test_a_frame_larger_than_a_pipe_goes_through() -> None:
    read, write = (os.fdopen(fd, mode, buffering=0) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    array = np.arange(500_000, dtype=np.float32)
    with read, write:
        sender = threading.Thread(target=send, args=(write, {"a": 1}, array[::2]))
        sender.start()
        found = receive(read)
        sender.join()
    assert found is not None and np.array_equal(found[1], array[::2])  # type: ignore[arg-type]
