"""Pictures decoded and resized once, on disk, memory-mapped: on two cores JPEG decoding would bound every epoch.

The rows are made by `core.preprocess.geometry`, the same function that every runtime uses, so that a network trained
from the cache meets bit-identical inputs in the clinic. A cache is addressed by what it was made from; there is
nothing to invalidate.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused
from quantward.core.preprocess import geometry, normalise
from quantward.core.progress import Track, silent
from quantward.core.store import digest_text
from quantward.core.values import Dataset, ImageArray, Preprocess
from quantward.data._files import threaded

ROWS_PER_MARK = 256
SPARE = 64 << 20
GEOMETRY = 1
"""Part of every cache's name; raised whenever `geometry` would give other pixels."""


def cache(
    dataset: Dataset,
    indices: Sequence[int] | npt.NDArray[np.integer] | None = None,
    preprocess: Preprocess | None = None,
    folder: Path | str | None = None,
    track: Track = silent,
) -> ImageArray:
    """The images at `indices` (all by default) after `geometry`: uint8, (n, size, size, 3), memory-mapped, read-only.

    Row k is image `indices[k]`. A killed run goes on where it stopped; a finished cache is opened as it is.

    Raises Refused for an unreadable image (named) or a disk without room.
    """
    how = preprocess or Preprocess()
    rows = list(range(len(dataset))) if indices is None else [int(i) for i in indices]
    home = Path(folder) if folder is not None else default_folder()
    home.mkdir(parents=True, exist_ok=True)
    chosen = "all" if indices is None else ",".join(map(str, rows))
    shape_of = f"{how.size} {how.resize} {how.squash} {how.interpolation}"
    key = digest_text(f"geometry {GEOMETRY}", dataset.fingerprint, shape_of, chosen)[:32]
    path = home / f"{key}.npy"
    shape = (len(rows), how.size, how.size, 3)
    if not rows:
        return np.zeros(shape, np.uint8)
    ready = _open(path, shape)
    if ready is not None:
        return ready
    with _locked(home / f"{key}.lock"):
        ready = _open(path, shape)
        if ready is not None:
            return ready
        _fill(dataset, rows, how, path, shape, track)
    ready = _open(path, shape)
    if ready is None:
        raise Refused(f"Expected the image cache {path} to be whole; it is not. Check the disk and run again.")
    return ready


def batches(
    dataset: Dataset,
    indices: Sequence[int] | npt.NDArray[np.integer],
    preprocess: Preprocess,
    size: int = 32,
    *,
    folder: Path | str | None = None,
    track: Track = silent,
) -> Iterator[npt.NDArray[np.float32]]:
    """Network inputs for the images at `indices`, in order, through the cache: float32, (<= size, 3, side, side)."""
    pixels = cache(dataset, None, preprocess, folder, track)
    rows = np.asarray(indices, np.int64)
    for start in range(0, len(rows), size):
        yield normalise(pixels[rows[start : start + size]], preprocess)


def default_folder() -> Path:
    """Where caches live: $QUANTWARD_CACHE, else the user's cache folder, else (read-only home) a temporary one."""
    asked = os.environ.get("QUANTWARD_CACHE")
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(base) if base else Path.home() / ".cache") / "quantward"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    return _private_temporary()


def _private_temporary() -> Path:
    """A folder of this user's own in the shared temporary one: somebody else's would let them choose the pixels."""
    owner = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"quantward-{owner}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or (hasattr(os, "getuid") and folder.stat().st_uid != owner):
        raise Refused(f"Expected {folder} to belong to this user; it does not. Set QUANTWARD_CACHE to a folder.")
    return folder


def _open(path: Path, shape: tuple[int, ...]) -> ImageArray | None:
    """The finished array at `path`, or None where there is none or it is not whole."""
    try:
        found: ImageArray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None


def _fill(dataset: Dataset, rows: list[int], how: Preprocess, path: Path, shape: tuple[int, ...], track: Track) -> None:
    """Decode in blocks into a partial file; the count of sure rows is written after each block has reached the disk."""
    partial, counter = path.with_suffix(".part"), path.with_suffix(".rows")
    done = _rows_done(partial, counter, shape)
    if not done:
        _make_room(partial, shape)
    pixels = np.lib.format.open_memmap(partial, mode="r+")

    ready = threaded(lambda k: geometry(dataset.read(rows[k]), how), range(done, len(rows)))
    for k, image in enumerate(track(ready, "decoding images", len(rows) - done), done):
        pixels[k] = image
        if (k + 1) % ROWS_PER_MARK == 0:
            pixels.flush()
            counter.write_text(str(k + 1), encoding="utf-8")
    pixels.flush()
    del pixels
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(path)
    counter.unlink(missing_ok=True)


def _make_room(partial: Path, shape: tuple[int, ...]) -> None:
    """Create the file in full: writing through a memory map to a full disk would kill the process without a word."""
    partial.unlink(missing_ok=True)
    need = int(np.prod(shape)) + 4096
    try:
        if shutil.disk_usage(partial.parent).free < need + SPARE:
            raise OSError(errno.ENOSPC, "too little free space")
        np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with partial.open("r+b") as handle:
                os.posix_fallocate(handle.fileno(), 0, partial.stat().st_size)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Refused(
            f"Expected {need >> 20} MiB of free disk for the image cache in {partial.parent}; got: {error.strerror}. "
            "Set QUANTWARD_CACHE to a larger disk."
        ) from None


def _rows_done(partial: Path, counter: Path, shape: tuple[int, ...]) -> int:
    try:
        done = int(counter.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return done if _open(partial, shape) is not None and 0 <= done <= shape[0] else 0


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process fills a cache; another one waits, then finds it finished. The system frees it after a kill."""
    try:
        import fcntl
    except ImportError:  # no such lock outside POSIX; two writers there write the same bytes
        yield
        return
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
