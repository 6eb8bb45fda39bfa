"""Archives to a folder, trusting nothing in them: no path leaves the folder, no links, no devices, no bombs.

Archives of data sets come from anybody's server. Members are listed and judged before the first byte is written, and
one bad member refuses the whole: an archive that tries to climb out is not the data set it says it is.
"""

from __future__ import annotations

import errno
import lzma
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import IO

from quantward.core.errors import Refused
from quantward.core.progress import Track, silent

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar")
MOST_MEMBERS = 1_000_000
MOST_BYTES = 64 << 30
RATIO, FREELY = 100, 1 << 30
"""Pictures hardly compress: over a hundredfold and a gigabyte is no data set but a bomb."""
SPARE = 64 << 20
FAULTS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
)
RAR_TOOLS = ("bsdtar", "unrar", "unar", "7z", "7zz")


class Broken(Refused):
    """The archive itself is at fault: not whole, or not what it should be. Another copy may do."""


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive this room unpacks.

    >>> is_archive(Path("a.tar.gz")), is_archive(Path("a.npz"))
    (True, False)
    """
    return path.name.lower().endswith(ARCHIVES)


def unpack(archive: Path, folder: Path, track: Track = silent) -> None:
    """Unpack a .zip, .tar, .tar.gz or .rar below `folder` (made here). RAR needs a tool of the system.

    Raises Broken for anything but a whole archive of plain files inside `folder`, Refused for a full disk or no tool.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = archive.name.lower()
    try:
        if name.endswith(".rar"):
            _unrar(archive, folder)
        elif name.endswith(".zip"):
            _unzip(archive, folder, track)
        else:
            _untar(archive, folder, track)
    except FAULTS as error:
        raise _broken(archive, str(error) or type(error).__name__) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(folder) from None
        if error.errno is None or isinstance(error, (FileExistsError, NotADirectoryError)):
            raise _broken(archive, str(error)) from None  # gzip's own error has no number; a file where a folder was
        raise


def _unzip(archive: Path, folder: Path, track: Track) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        total = 0
        seen: set[str] = set()
        for count, info in enumerate(members, 1):
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _bad(archive, info.filename, "is a link or a device")
            if info.flag_bits & 1:
                raise _bad(archive, info.filename, "is encrypted")
            _judge(archive, info.filename, seen)
            total += info.file_size
            _bounded(archive, count, total)
        _room(folder, total)
        for info in track(members, f"unpacking {archive.name}", len(members)):
            if not info.is_dir():
                with packed.open(info) as source:
                    _write(source, folder / _plain(info.filename))


def _untar(archive: Path, folder: Path, track: Track) -> None:
    """Twice through the archive: a stream shows its members only as it is read, and nothing is written before."""
    total, count, seen = 0, 0, set[str]()
    for member, _ in _members(archive):
        if not (member.isreg() or member.isdir()):
            raise _bad(archive, member.name, "is a link or a device")
        _judge(archive, member.name, seen)
        total, count = total + member.size, count + 1
        _bounded(archive, count, total)
    _room(folder, total)
    for member, content in track(_members(archive), f"unpacking {archive.name}", count):
        if content is not None:
            with content:
                _write(content, folder / _plain(member.name))


def _members(archive: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    try:
        opened = tarfile.open(archive, "r|*")  # noqa: SIM115  # closed below
    except TypeError:  # what tarfile makes of a gzip header that ends early
        raise tarfile.ReadError("it ends early") from None
    with opened as packed:
        for member in packed:
            yield member, packed.extractfile(member) if member.isreg() else None


def _plain(name: str) -> str:
    """Some programs on Windows write backslashes, against the format's rule."""
    return name.replace("\\", "/")


def _judge(archive: Path, name: str, seen: set[str]) -> None:
    """Refuse a member whose path is absolute, climbs, or comes twice."""
    plain = _plain(name)
    parts = plain.rstrip("/").split("/")
    if plain.startswith("/") or PureWindowsPath(name).drive or ".." in parts or "\0" in name or not plain.strip("/."):
        if plain in (".", "./"):
            return
        raise _bad(archive, name, "points outside of it")
    if not plain.endswith("/"):
        if plain in seen:
            raise _bad(archive, name, "is in it twice")
        seen.add(plain)


def _bounded(archive: Path, count: int, total: int) -> None:
    packed = max(archive.stat().st_size, 1)
    if count > MOST_MEMBERS or total > MOST_BYTES or (total > FREELY and total > RATIO * packed):
        raise Broken(
            f"Expected an archive of pictures at {archive}; it would unpack to {total / 1e9:,.1f} GB or more in "
            f"{count:,} files. Do not unpack it; look where it came from."
        )


def _broken(archive: Path, why: str) -> Broken:
    return Broken(f"Expected a whole archive at {archive}; it cannot be unpacked ({why}). Fetch or copy it anew.")


def _bad(archive: Path, name: str, why: str) -> Broken:
    return Broken(f"Expected only plain files in {archive}; {name!r} {why}. Do not unpack it; look where it came from.")


def _room(folder: Path, need: int) -> None:
    if shutil.disk_usage(folder).free < need + SPARE:
        raise _full(folder, need)


def _full(folder: Path, need: int = 0) -> Refused:
    much = f"{need / 1e6:,.1f} MB of " if need else ""
    return Refused(
        f"Expected {much}free disk to unpack into {folder}; it is full. "
        "Free some, or choose another folder with --out; what was downloaded is kept."
    )


def _write(source: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        shutil.copyfileobj(source, out, 1 << 20)


def _unrar(archive: Path, folder: Path) -> None:
    """Python cannot read RAR. The tools keep to the folder by themselves; what they leave is judged all the same."""
    tool = next((found for found in map(shutil.which, RAR_TOOLS) if found), None)
    if tool is None:
        raise Refused(
            f"Expected a program that unpacks RAR for {archive.name}; none of {', '.join(RAR_TOOLS)} is installed. "
            "Install one (Debian: apt install libarchive-tools), or unpack it elsewhere and give the folder with "
            "--from."
        )
    kind = Path(tool).name
    options = {
        "bsdtar": ["-xf", str(archive), "-C", str(folder)],
        "unrar": ["x", "-idq", "-o-", str(archive), f"{folder}/"],
        "unar": ["-quiet", "-no-directory", "-output-directory", str(folder), str(archive)],
    }.get(kind, ["x", "-y", "-bso0", f"-o{folder}", str(archive)])
    done = subprocess.run([tool, *options], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise _broken(archive, f"{kind}: {lines[-1]}")
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise _bad(archive, path.relative_to(folder).as_posix(), "is a link or a device")
