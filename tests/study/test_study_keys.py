"""What a key is made of, and what it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quantward.study import keys


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small house of three rooms in place of ours."""
    (tmp_path / "train" / "stages").mkdir(parents=True)
    (tmp_path / "train" / "loop.py").write_text("EPOCHS = 1\n")
    (tmp_path / "train" / "stages" / "fit.py").write_text("RATE = 1\n")
    (tmp_path / "runs.py").write_text("ONE = 1\n")
    monkeypatch.setattr(keys, "HOUSE", tmp_path)
    keys.sources.cache_clear()
    yield tmp_path
    keys.sources.cache_clear()


def kind(rooms: tuple[str, ...], libraries: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(rooms=rooms, libraries=libraries)


def key_of(rooms: tuple[str, ...], asked: dict[str, Any], needs: dict[str, str] | None = None) -> str:
    keys.sources.cache_clear()
    return keys.keys_of("train", kind(rooms))(asked, needs or {})


def test_the_order_and_the_form_of_what_is_asked_decide_nothing() -> None:
    make = keys.keys_of("plan", kind(("core",), ("numpy",)))
    one = make({"a": (1, 2), "b": {"x": 1, "y": None}}, {"run": "k", "@t": "l"})
    assert one == make({"b": {"y": None, "x": 1}, "a": [1, 2]}, {"@t": "l", "run": "k"})
    assert len(one) == 64


def test_everything_that_decides_a_result_changes_its_key() -> None:
    make = keys.keys_of("plan", kind(("core",), ("numpy",)))
    base = make({"recipe": "fp32", "seed": 0}, {"run": "k"})
    others = [
        make({"recipe": "fp16", "seed": 0}, {"run": "k"}),
        make({"recipe": "fp32", "seed": "0"}, {"run": "k"}),
        make({"recipe": "fp32", "seed": 0}, {"run": "l"}),
        make({"recipe": "fp32", "seed": 0}, {"plan": "k"}),
        keys.keys_of("file", kind(("core",), ("numpy",)))({"recipe": "fp32", "seed": 0}, {"run": "k"}),
        keys.keys_of("plan", kind(("core", "data"), ("numpy",)))({"recipe": "fp32", "seed": 0}, {"run": "k"}),
        keys.keys_of("plan", kind(("core",), ("numpy", "scipy")))({"recipe": "fp32", "seed": 0}, {"run": "k"}),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_a_changed_source_changes_the_keys_of_its_rooms_alone(house: Path) -> None:
    train, runs = key_of(("train",), {"a": 1}), key_of(("runs",), {"a": 1})
    part = key_of(("train.stages",), {"a": 1})
    (house / "train" / "loop.py").write_text("EPOCHS = 2\n")
    assert key_of(("train",), {"a": 1}) != train
    assert key_of(("runs",), {"a": 1}) == runs and key_of(("train.stages",), {"a": 1}) == part
    (house / "train" / "stages" / "more.py").write_text("")
    assert key_of(("train.stages",), {"a": 1}) != part


def test_a_file_that_moves_to_another_room_changes_the_key(house: Path) -> None:
    before = key_of(("train",), {})
    (house / "train" / "loop.py").rename(house / "train" / "stages" / "loop.py")
    assert key_of(("train",), {}) != before


def test_the_order_of_rooms_decides_nothing(house: Path) -> None:
    assert key_of(("train", "runs"), {}) == key_of(("runs", "train", "runs"), {})


def test_another_version_of_a_library_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(version: str) -> str:
        keys.version.cache_clear()
        monkeypatch.setattr(keys.metadata, "version", lambda name: version)
        return keys.keys_of("train", kind(("core",), ("torch",)))({}, {})

    try:
        assert made("2.14") != made("2.15")
    finally:
        keys.version.cache_clear()


@pytest.mark.parametrize("room", ["no_such_room", "train.no_such_file"])
def test_a_room_that_does_not_exist_is_told(house: Path, room: str) -> None:
    with pytest.raises(ImportError, match="has no room"):
        keys.sources(room)


def test_what_is_no_plain_data_is_no_key() -> None:
    with pytest.raises(TypeError):
        keys.canonical({"a": object()})
