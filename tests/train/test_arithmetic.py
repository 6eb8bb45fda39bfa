"""Precision follows the hardware; seeds and settings are given back."""

from __future__ import annotations

import pytest
import torch

from quantward.core import machine
from quantward.train.arithmetic import precision, repeatable


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ((), "32-true"),
        (("avx2", "avx512_vnni"), "32-true"),
        (("avx512_bf16",), "bf16-mixed"),
        (("amx_bf16",), "bf16-mixed"),
    ],
)
def test_bf16_only_where_the_processor_computes_it(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], kind: str
) -> None:
    monkeypatch.setattr(machine, "cpu", lambda: ("some processor", flags))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision("auto") == kind
    assert precision("32") == "32-true" and precision("bf16") == "bf16-mixed"


@pytest.mark.parametrize(("capability", "kind"), [((7, 5), "32-true"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")])
def test_bf16_only_where_the_gpu_computes_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], kind: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert precision("auto") == kind


def test_generators_and_settings_come_back() -> None:
    before = torch.get_rng_state()
    with repeatable(7, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        first = torch.rand(3)
    with repeatable(7, deterministic=True):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
