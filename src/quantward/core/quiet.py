"""One measurement of time on a machine at a time: two at once would only measure each other.

The lock is a file in the system's folder for temporary files, and the system drops it when its process dies, so a
killed measurement never blocks the next.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from quantward.core.errors import Refused

NAME = "quantward-timing.lock"
WAIT = 3600.0
"""Seconds to wait for another measurement: long for a bench, short for a forgotten one."""


@contextmanager
def alone(
    *,
    tell: Callable[[str], None] = lambda text: None,
    wait: float = WAIT,
    folder: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the machine's lock while the block runs; wait up to `wait` seconds for another process that holds it.

    `tell` hears once that there is somebody to wait for. Raises Refused when the wait is over. Where locks do not exist
    (no `fcntl`, no folder that can be written), the block runs at once.
    """
    handle = _open((folder or Path(tempfile.gettempdir())) / NAME)
    if handle is None:
        yield
        return
    try:
        end = clock() + wait
        told = False
        while not _take(handle):
            if not told:
                tell("Another measurement of time is running on this machine; waiting for it to end.")
                told = True
            if clock() >= end:
                raise Refused(
                    f"Expected to be the only measurement of time on this machine; another one has run for {wait:g} s. "
                    "Wait for it, or stop it."
                )
            sleep(0.5)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int | None:
    """The lock's file: made where it is absent, only read where it is somebody else's."""
    safe = getattr(os, "O_NOFOLLOW", 0)
    for flags in (os.O_RDWR | os.O_CREAT | safe, os.O_RDONLY | safe):
        try:
            return os.open(path, flags, 0o666)
        except OSError:
            continue
    return None


def _take(handle: int) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: better a measurement than none
    return True
