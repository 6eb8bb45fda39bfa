"""Where things lie in a copy, however it was nested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantward.core.errors import Refused
from quantward.fetch import trees
from quantward.fetch.trees import walk

Put = Callable[[dict[str, bytes], Path], Path]


def test_pictures_below_a_chain_of_folders(tmp_path: Path, put: Put) -> None:
    put({f"x/{name}": b"1" for name in (
        "Training/Glioma/b.JPG", "Training/Glioma/deep/a.png", "training/glioma.jpg", "Testing/Glioma/c.jpg",
        "Training/other/Glioma/d.jpg", "Training/Glioma/notes.txt",
    )}, tmp_path)  # fmt: skip
    found = walk(tmp_path)
    assert [name for name, _ in found.pictures("Training", "glioma")] == ["b.JPG", "deep/a.png"]
    assert [path.name for _, path in found.pictures("glioma")] == ["c.jpg", "b.JPG", "a.png", "d.jpg"]
    assert sorted(name for name, _ in found.pictures()) == ["a.png", "b.JPG", "c.jpg", "d.jpg", "glioma.jpg"]
    assert found.named("nothing", "NOTES.txt") == tmp_path / "x/Training/Glioma/notes.txt"
    assert found.named("nothing") is None


def test_what_systems_leave_behind_and_links_are_passed_over(tmp_path: Path, put: Put) -> None:
    put({"a/b.png": b"1", "__MACOSX/a/._b.png": b"2", "a/.DS_Store": b"3", ".git/c.png": b"4", "a/Thumbs.db": b"5"},
        tmp_path / "in")  # fmt: skip
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "in/a/b.png")
    (tmp_path / "in" / "round").symlink_to(tmp_path)
    assert list(walk(tmp_path / "in").files) == ["a/b.png"]


def test_several_places(tmp_path: Path, put: Put) -> None:
    put({"one/a.png": b"1", "two/b.png": b"2", "three/a.png": b"3"}, tmp_path)
    assert list(walk(tmp_path / "two", tmp_path / "one/a.png").files) == ["a.png", "b.png"]
    with pytest.raises(Refused, match=r"a\.png is in two places"):
        walk(tmp_path / "one", tmp_path / "three")


def test_the_folder_of_one_set_is_not_a_whole_disk(tmp_path: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MOST_FILES", 3)
    put({f"{i}.png": b"" for i in range(4)}, tmp_path)
    with pytest.raises(Refused, match="holds over 3 files"):
        walk(tmp_path)
