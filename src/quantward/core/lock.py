"""One run a folder: a lock that the system drops when its process dies, so a killed run never blocks the next."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantward.core.errors import Refused

_held: set[Path] = set()


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process while the block runs; a second hold by the same process is the same hold.

    Raises Refused while another process holds it.
    """
    folder = folder.resolve()
    if folder in _held:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _take(handle):
            other = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            raise Refused(
                f"Expected to be the only run in {folder}; process {other} is at work there. "
                "Wait for it, or choose another folder."
            )
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        _held.add(folder)
        try:
            yield
        finally:
            _held.discard(folder)
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            # A byte far behind the text is locked, so that the other process can still read who holds it.
            os.lseek(handle, 1 << 20, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
