"""Archives from anybody: good ones come out whole, bad ones leave nothing outside and say why in a sentence."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import tempfile
import zipfile
from collections import namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantward.core.errors import Refused
from quantward.fetch import unpack as module
from quantward.fetch.unpack import Broken, unpack

Zipped = Callable[[Mapping[str, bytes]], bytes]
GOOD = {"top/a.txt": b"a" * 5000, "top/deep/b.bin": b"\0\1", "c": b""}


def there(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def refused(archive: Path, match: str) -> None:
    """It is refused, and nothing was written, inside or outside."""
    home = archive.parent
    before = there(home)
    with pytest.raises(Broken, match=match):
        unpack(archive, home / "in" / "deep")
    assert there(home) == before


def test_zip(tmp_path: Path, archive_of: Zipped) -> None:
    (tmp_path / "a.zip").write_bytes(archive_of(GOOD))
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert there(tmp_path / "out") == GOOD


@pytest.mark.parametrize(("name", "mode"), [("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar", "w")])
def test_tar(tmp_path: Path, name: str, mode: str) -> None:
    folder = tarfile.TarInfo("./")
    folder.type = tarfile.DIRTYPE
    path = tar(tmp_path / name, (folder, b""), *((tarfile.TarInfo(f"./{n}"), c) for n, c in GOOD.items()), mode=mode)
    unpack(path, tmp_path / "out")
    assert there(tmp_path / "out") == GOOD


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "C:/evil", "..\\evil", "\\\\host\\evil"])
def test_paths_that_leave(tmp_path: Path, archive_of: Zipped, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(archive_of({"good.txt": b"x", name: b"evil"}))
    refused(tmp_path / "a.zip", "points outside")
    refused(tar(tmp_path / "a.tar.gz", (tarfile.TarInfo("good"), b"x"), (tarfile.TarInfo(name), b"evil")), "outside")


def test_links_and_devices(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path / "a.zip", "'link' is a link or a device")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        info = tarfile.TarInfo("odd")
        info.type, info.linkname = kind, "../../evil"
        refused(tar(tmp_path / "a.tar.gz", (tarfile.TarInfo("good"), b"x"), (info, b"")), "'odd' is a link or a device")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREELY", 1_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(5_000_000))
    refused(tmp_path / "a.zip", r"would unpack to 0\.0 GB or more in 1 files")
    refused(tar(tmp_path / "a.tar.gz", (tarfile.TarInfo("zeros"), bytes(5_000_000))), "would unpack to")
    monkeypatch.setattr(module, "MOST_MEMBERS", 3)
    (tmp_path / "a.tar.gz").unlink()
    refused(tar(tmp_path / "a.tar", *((tarfile.TarInfo(f"{i}"), b"") for i in range(9)), mode="w"), "in 4 files")


def test_members_twice_encrypted_or_in_each_others_way(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    refused(tmp_path / "a.zip", "'a' is in it twice")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a", b"1")
        archive.filelist[0].flag_bits |= 1
    refused(tmp_path / "b.zip", "'a' is encrypted")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a/b", b"2")
    with pytest.raises(Broken, match="cannot be unpacked"):
        unpack(tmp_path / "c.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_files_that_are_no_archives(tmp_path: Path, name: str, archive_of: Zipped) -> None:
    for content in (
        b"",
        b"<html>Sign in</html>" * 100,
        archive_of(GOOD)[:2000] if name == "a.zip" else b"\x1f\x8b\x08",
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "Expected a whole archive at .*Fetch or copy it anew")


def test_a_byte_that_flipped(tmp_path: Path, archive_of: Zipped) -> None:
    data = bytearray(archive_of(GOOD))
    data[100] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(Broken, match="cannot be unpacked"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_full_disk(tmp_path: Path, archive_of: Zipped, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(archive_of(GOOD))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(1, 1, 0))
    with pytest.raises(
        Refused, match=r"free disk to unpack into .*; it is full.*what was downloaded is kept"
    ) as caught:
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not isinstance(caught.value, Broken) and there(tmp_path / "out") == {}


def test_a_disk_that_fills_up(tmp_path: Path, archive_of: Zipped, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(archive_of(GOOD))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.shutil, "copyfileobj", full)
    with pytest.raises(Refused, match="it is full"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_rar_needs_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match=r"none of bsdtar, unrar, .* is installed\. Install one .* with --from"):
        unpack(tmp_path / "a.rar", tmp_path / "out")


@pytest.mark.usefixtures("rar_tool")
def test_rar_with_a_program(tmp_path: Path, archive_of: Zipped) -> None:
    (tmp_path / "a.rar").write_bytes(archive_of(GOOD))
    unpack(tmp_path / "a.rar", tmp_path / "out")
    assert there(tmp_path / "out") == GOOD
    (tmp_path / "b.rar").write_bytes(b"Rar!")
    with pytest.raises(Broken, match="bsdtar: bsdtar: Unrecognized archive format"):
        unpack(tmp_path / "b.rar", tmp_path / "out2")


def test_links_that_a_program_left(tmp_path: Path, rar_tool: Path) -> None:
    rar_tool.write_text('#!/bin/sh\nln -s /etc/passwd "$4/link"\n')
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(Broken, match="'link' is a link or a device"):
        unpack(tmp_path / "a.rar", tmp_path / "out")


@given(st.lists(st.text(st.sampled_from("a./\\\\:C~ \0\n"), min_size=1, max_size=12), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_whatever_members_are_called_nothing_leaves_the_folder(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        tar(home / "a.tar", *((tarfile.TarInfo(name), b"x") for name in names), mode="w")
        with contextlib.suppress(Refused):
            unpack(home / "a.tar", home / "out" / "in")
        outside = [p for p in home.rglob("*") if p.is_file() and not p.is_relative_to(home / "out" / "in")]
        assert outside == [home / "a.tar"]
