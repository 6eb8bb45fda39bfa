"""The image cache: bit-exact, resumable, shared, and honest about faults."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.core.errors import Refused
from quantward.core.preprocess import geometry, normalise
from quantward.core.values import Dataset, Preprocess
from quantward.data import batches, default_folder, open_dataset
from quantward.data import cache as cached
from quantward.data.cache import ROWS_PER_MARK

HOW = Preprocess(size=16, resize=20)
Memory = Callable[..., Dataset]


def test_rows_are_geometrys_own(memory: Memory, tmp_path: Path) -> None:
    data = memory([0, 1] * 5)
    pixels = cached(data, None, HOW, tmp_path)
    assert pixels.shape == (10, 16, 16, 3)
    assert pixels.dtype == np.uint8
    assert all(np.array_equal(pixels[i], geometry(data.read(i), HOW)) for i in range(10))
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_chosen_rows_in_the_order_asked_for(memory: Memory, tmp_path: Path) -> None:
    data = memory([0, 1] * 5)
    pixels = cached(data, [7, 2], HOW, tmp_path)
    assert np.array_equal(pixels[0], geometry(data.read(7), HOW))
    assert np.array_equal(pixels[1], geometry(data.read(2), HOW))
    assert cached(data, [], HOW, tmp_path).shape == (0, 16, 16, 3)


def test_a_finished_cache_is_not_decoded_again(memory: Memory, tmp_path: Path) -> None:
    data = memory([0, 1] * 5)
    first = np.array(cached(data, None, HOW, tmp_path))
    blind = replace(data, reader=lambda i: pytest.fail("decoded again"))
    assert np.array_equal(cached(blind, None, HOW, tmp_path), first)
    other_numbers = replace(HOW, mean=(0.0, 0.0, 0.0))
    assert np.array_equal(cached(blind, None, other_numbers, tmp_path), first)


@pytest.mark.parametrize("change", [{"size": 12}, {"resize": 18}, {"squash": True}, {"interpolation": "bicubic"}])
def test_another_geometry_or_dataset_is_another_cache(
    memory: Memory, tmp_path: Path, change: dict[str, object]
) -> None:
    data = memory([0, 1] * 3)
    cached(data, None, HOW, tmp_path)
    other = replace(HOW, **change)  # type: ignore[arg-type]
    assert np.array_equal(cached(data, None, other, tmp_path)[3], geometry(data.read(3), other))
    renamed = memory([0, 1] * 3, fingerprint="a" * 64, same={3: 100})
    assert np.array_equal(cached(renamed, None, HOW, tmp_path)[3], geometry(renamed.read(3), HOW))


def test_a_killed_run_goes_on_where_it_stopped(memory: Memory, tmp_path: Path) -> None:
    data = memory([0, 1] * ROWS_PER_MARK)
    stop = ROWS_PER_MARK + 10
    asked: list[int] = []

    def dying(i: int) -> np.ndarray:
        if i >= stop:
            raise KeyboardInterrupt
        return data.read(i)

    def noting(i: int) -> np.ndarray:
        asked.append(i)
        return data.read(i)

    with pytest.raises(KeyboardInterrupt):
        cached(replace(data, reader=dying), None, HOW, tmp_path)
    assert not list(tmp_path.glob("*.npy"))
    pixels = cached(replace(data, reader=noting), None, HOW, tmp_path)
    assert min(asked) == ROWS_PER_MARK
    assert all(np.array_equal(pixels[i], geometry(data.read(i), HOW)) for i in range(0, len(data), 37))
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".lock", ".npy"]


def test_kill_nine_leaves_nothing_that_passes_for_whole(tree: Path, tmp_path: Path) -> None:
    code = (
        "import time; from dataclasses import replace; from quantward.core.values import Preprocess\n"
        "from quantward.data import cache, open_dataset\n"
        f"data = open_dataset({str(tree)!r}); slow = lambda i: (print(i, flush=True), time.sleep(i), data.read(i))[2]\n"
        f"cache(replace(data, reader=slow), None, Preprocess(size=16, resize=20), {str(tmp_path / 'c')!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    process.kill()
    process.wait()
    process.stdout.close()
    assert not list((tmp_path / "c").glob("*.npy"))
    data = open_dataset(tree)
    pixels = cached(data, None, HOW, tmp_path / "c")
    assert all(np.array_equal(pixels[i], geometry(data.read(i), HOW)) for i in range(6))


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY rubbish", None])
def test_a_damaged_cache_is_made_anew(memory: Memory, tmp_path: Path, damage: bytes | None) -> None:
    data = memory([0, 1] * 5)
    first = np.array(cached(data, None, HOW, tmp_path))
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:500] if damage is None else damage)
    assert np.array_equal(cached(data, None, HOW, tmp_path), first)


def test_an_unreadable_image_stops_and_is_named(tree: Path, tmp_path: Path) -> None:
    data = open_dataset(tree)
    (tree / "malign/3.png").write_bytes(b"")
    with pytest.raises(Refused, match=r"malign/3\.png; it has zero bytes"):
        cached(data, None, HOW, tmp_path / "c")


def test_a_full_disk_is_a_sentence(memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(Refused, match="free disk"):
        cached(memory([0, 1]), None, HOW, tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_batches_are_the_normalised_pictures_in_order(memory: Memory, tmp_path: Path) -> None:
    data = memory([0, 1] * 5)
    rows = np.array([9, 0, 4, 4, 1])
    found = list(batches(data, rows, HOW, 2, folder=tmp_path))
    assert [batch.shape for batch in found] == [(2, 3, 16, 16), (2, 3, 16, 16), (1, 3, 16, 16)]
    assert found[0].dtype == np.float32
    expected = normalise(np.stack([geometry(data.read(int(i)), HOW) for i in rows]), HOW)
    assert np.array_equal(np.concatenate(found), expected)


def test_where_caches_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTWARD_CACHE", str(tmp_path / "asked"))
    assert default_folder() == tmp_path / "asked"
    monkeypatch.delenv("QUANTWARD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg/quantward"


def test_a_read_only_home_falls_back_to_a_private_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.delenv("QUANTWARD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file/below"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = default_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o077 == 0
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(Refused, match="belong to this user"):
        default_folder()
