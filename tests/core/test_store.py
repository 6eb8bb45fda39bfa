"""Files appear whole or not at all, and hashes see every byte."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from quantward.core.errors import Refused
from quantward.core.store import atomic, decode, digest_arrays, digest_folder, plain, read_json, write_json


def test_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="stop"), atomic(path) as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    code = (
        "import os, sys; from quantward.core.store import atomic\n"
        "with atomic(sys.argv[1]) as t:\n    t.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize("text", ["{", '{"a": 1,}', ""])
def test_broken_json_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(Refused, match="line 1"):
        read_json(tmp_path / "a.json")


@dataclass(frozen=True)
class Pair:
    one: int
    two: tuple[str, ...] = ()


def test_decode_checks_every_field() -> None:
    assert decode(Pair, {"one": 1, "two": ["a"]}) == Pair(1, ("a",))
    with pytest.raises(Refused, match="at one"):
        decode(Pair, {"one": "x"})


def test_plain_turns_what_json_cannot_hold_into_null() -> None:
    assert plain({"a": np.array([1.0, np.nan]), "b": Pair(1), "c": float("inf")}) == {
        "a": [1.0, None],
        "b": {"one": 1, "two": []},
        "c": None,
    }


def test_digest_of_arrays_sees_type_shape_and_bytes_but_not_order() -> None:
    a, b = np.zeros(4, np.float32), np.ones((), np.int32)
    assert digest_arrays({"a": a, "b": b}) == digest_arrays({"b": b, "a": a})
    assert len({digest_arrays({"a": x}) for x in (a, a.reshape(2, 2), a.astype(np.int32), a + 1)}) == 4


def test_digest_of_a_folder_sees_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    before = digest_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_folder(tmp_path) != before
