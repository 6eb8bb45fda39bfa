"""Joules from counters: summed over packages, across their turn-over, and absent with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quantward.core.energy import meter


def zone(root: Path, name: str, kind: str, value: int, highest: int = 1_000_000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "energy_uj").write_text(f"{value}\n")
    (folder / "max_energy_range_uj").write_text(f"{highest}\n")
    return folder / "energy_uj"


def test_packages_are_summed_and_parts_of_them_are_not(tmp_path: Path) -> None:
    one = zone(tmp_path, "intel-rapl:0", "package-0", 100)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 100)
    two = zone(tmp_path, "intel-rapl:1", "package-1", 999_000)
    found, reason = meter(tmp_path)
    assert found is not None and reason == "" and found() == 0.0
    one.write_text("2100\n")
    core.write_text("900100\n")
    assert found() == pytest.approx(0.002)
    two.write_text("499\n")  # the counter has started over: 999,000 -> 1,000,000 -> 499
    assert found() == pytest.approx(0.002 + 0.0015)


def test_a_counter_that_goes_away_adds_nothing(tmp_path: Path) -> None:
    one = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    found, _ = meter(tmp_path)
    assert found is not None
    one.write_text("5000\n")
    assert found() == pytest.approx(0.005)
    one.unlink()
    assert found() == pytest.approx(0.005)


def test_absence_has_a_reason(tmp_path: Path) -> None:
    assert meter(tmp_path / "none") == (None, "this machine has no RAPL counters")
    zone(tmp_path, "intel-rapl:0", "psys", 0)
    assert meter(tmp_path) == (None, "this machine has no RAPL counter of a whole processor")
    locked = zone(tmp_path, "intel-rapl:1", "package-0", 0)
    locked.chmod(0)
    if os.geteuid() == 0:
        locked.unlink()
    assert meter(tmp_path) == (None, "the RAPL counters may be read by the administrator only")
