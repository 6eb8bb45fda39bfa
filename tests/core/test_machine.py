"""What is said of a machine is enough to repeat a figure and names nobody."""

from __future__ import annotations

import getpass
import json
import platform

import pytest

from quantward.core import machine


def test_a_machine_is_described_without_its_name_or_its_user() -> None:
    found = machine.describe()
    assert found["cores"] >= 1 and found["processor"] and found["libraries"]["numpy"]
    words = json.dumps(found).lower().replace('"', " ").replace(",", " ").split()
    assert platform.node().lower() not in words and getpass.getuser().lower() not in words, found


def test_what_the_system_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise OSError("no such file")

    monkeypatch.setattr(machine.Path, "read_text", absent)
    assert machine.board() == "" and machine.governor() == "" and machine.free_memory() is None
    assert machine.cpu()[0]
    monkeypatch.undo()
    monkeypatch.setattr(machine, "board", lambda: "")
    assert "board" not in machine.describe()


def test_a_board_is_named_as_its_firmware_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.Path, "read_text", lambda *_, **__: "NVIDIA Jetson Orin Nano\0")
    assert machine.board() == "NVIDIA Jetson Orin Nano"


def test_memory_is_read_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.Path, "read_text", lambda *_, **__: "MemTotal:  8 kB\nMemAvailable:  5 kB\n")
    assert machine.free_memory() == 5120
