"""Keeps the memory of one step for the next, where the system would take it back and clear every page anew.

The C library returns each large tensor to the system when it is freed. Training on the processor frees and asks for
the same gigabyte in every step, so a good part of a step is spent on page faults.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2
"""Numbers of glibc's `mallopt`."""
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
_USUAL = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 * 2**10, _TOP_PAD: 128 * 2**10}

_depth = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """While the block runs, freed memory stays with the process; afterwards it is given back.

    Changes no result. Does nothing where a GPU computes, or where the C library is not glibc.
    """
    global _depth
    libc = None if torch.cuda.is_available() or platform.libc_ver()[0] != "glibc" else ctypes.CDLL(None)
    if libc is not None and not _depth:
        _set(libc, _KEPT)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if libc is not None and not _depth:
            _set(libc, _USUAL)
            libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, values: dict[int, int]) -> None:
    for name, value in values.items():
        libc.mallopt(name, value)
