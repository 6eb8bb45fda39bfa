"""Memory that stays between steps: no bit changes, nesting is counted, and other systems are left alone."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest
import torch

from quantward.train import memory
from quantward.train.memory import kept_memory


class Library:
    """Notes what glibc is asked for."""

    def __init__(self) -> None:
        self.told: list[tuple[int, ...]] = []

    def mallopt(self, *given: int) -> int:
        self.told.append(given)
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.told.append((pad,))
        return 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes here")
def test_it_is_set_once_and_taken_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("glibc", "2.39"))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    with kept_memory(), kept_memory():
        assert library.told == list(memory._KEPT.items())
    assert library.told[3:] == [*memory._USUAL.items(), (0,)] and memory._depth == 0
    with pytest.raises(RuntimeError), kept_memory():
        raise RuntimeError
    assert memory._depth == 0 and library.told[-1] == (0,)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = Library()
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    with kept_memory():
        pass
    assert not library.told


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="training on a Linux processor")
def test_a_later_step_uses_the_memory_of_earlier_ones() -> None:
    import resource

    if memory.platform.libc_ver()[0] != "glibc":
        pytest.skip("not glibc")

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        _ = [torch.ones(2_000_000) for _ in range(8)]
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert faults() > 64_000_000 / 2**22
    with kept_memory():
        found = [faults() for _ in range(6)]
    assert found[-1] < 64_000_000 / 4096 / 10
