"""The store of a study in a folder: one folder a step, which appears whole or not at all.

`KEY[:2]/KEY/` holds what a step left, with `result.json`; `KEY.part` is where it works, `KEY.failed.json` says why it
has no result, `KEY.broken-N` is what was found changed. A step works in its scratch folder, which becomes the result by
one rename, so a kill leaves either nothing or all. A result's files are compared with their SHA-256 before anything is
built on them; to only know that a result is there, size and time of change have to be those that they had when they
were last compared, as a version control system does it: whoever writes into a file changes its time.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from quantward.core.errors import Refused
from quantward.core.machine import describe
from quantward.core.store import decode, digest_file, plain, read_json, write_json
from quantward.study.values import Done, Failed, Step

RESULT, SEEN = "result.json", "seen.json"
LOCK = ".lock"

Stamp = tuple[int, ...]
"""Size and time of the last change of a file."""


class Full(Refused):
    """No room is left on a disk: the study stops, as every other step would fail of it too."""


class FolderStore:
    """A store in a folder of this machine, or of a drive that several share. `tell` hears a line of each result that
    was found broken."""

    def __init__(self, address: str, tell: Callable[[str], None] = lambda line: None) -> None:
        self.address = address
        self.root = Path(address)
        self.tell = tell
        self._read: dict[str, tuple[Stamp, Done, Mapping[str, Stamp]]] = {}
        self._compared: set[str] = set()

    def find(self, key: str) -> Done | None:
        """The whole result of a step: None where there is none, or where it is broken (then it is set aside)."""
        home = f"{self.root}/{key[:2]}/{key}"  # text, and no Path: ten thousand are asked for at a time
        try:
            stamp = _stamp(f"{home}/{RESULT}")
        except OSError:
            return None  # nothing, or what another machine is still sending
        known = self._read.get(key)
        if known is None or known[0] != stamp:
            try:
                known = (stamp, _done(f"{home}/{RESULT}", key), _seen(f"{home}/{SEEN}"))
            except Refused:
                self._set_aside(key, f"{RESULT} is broken")
                return None
            self._read[key] = known
        _, done, seen = known
        if all(_is_as(f"{home}/{name}", seen.get(name)) for name in done.files):
            return done
        return done if self._compare(done) else None

    def folder(self, key: str) -> Path:
        """The folder with the files of a finished step, each compared with its hash the first time.

        Raises Refused where there is no such result, or it is broken.
        """
        done = self.find(key)
        if done is None or (key not in self._compared and not self._compare(done)):
            raise Refused(f"Expected a whole result {key[:12]} in {self.address}; there is none. Run the study again.")
        return self._home(key)

    def scratch(self, key: str) -> Path:
        """The folder in which a step works; it outlives a kill, so that a long step goes on where it was."""
        home = self._home(key).with_name(f"{key}.part")
        home.mkdir(parents=True, exist_ok=True)
        return home

    def keep(self, step: Step, facts: Mapping[str, Any], seconds: float) -> Done:
        """Make the scratch folder the step's result, all at once. A result that is there already stays."""
        there = self.find(step.key)
        scratch = self.scratch(step.key)
        if there is None:
            for name in (RESULT, SEEN, LOCK):
                (scratch / name).unlink(missing_ok=True)
            for torn in scratch.rglob(".*.part"):  # what a kill left of a file that was being written
                torn.unlink()
            paths = {path.relative_to(scratch).as_posix(): path for path in _files(scratch)}
            for path in paths.values():
                _to_disk(path)
            files = {name: digest_file(path) for name, path in paths.items()}
            done = Done(step.key, step.kind, step.label, plain(facts), files, round(seconds, 3), describe())
            write_json(scratch / SEEN, {name: _stamp(path) for name, path in paths.items()})
            write_json(scratch / RESULT, done)
            _to_disk(scratch)
            if self._appear(scratch, step.key):
                self._compared.add(step.key)
            _to_disk(scratch.parent)
            there = self.find(step.key) or done  # as it will be read, whoever was first
        shutil.rmtree(scratch, ignore_errors=True)
        self._failure(step.key).unlink(missing_ok=True)
        return there

    def fail(self, failed: Failed) -> None:
        """Note the reason; the next run tries the step again."""
        write_json(self._failure(failed.key), failed)

    def failure(self, key: str) -> Failed | None:
        """The reason noted last, None where there is none or the step has succeeded since."""
        path = self._failure(key)
        if not path.exists() or (self._home(key) / RESULT).exists():
            return None
        return decode(Failed, read_json(path), path)

    def _appear(self, scratch: Path, key: str) -> bool:
        """The one rename that makes a result; False where another process was first."""
        for _ in range(2):
            try:
                scratch.replace(self._home(key))
                return True
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if self.find(key) is not None:
                return False
            self._set_aside(key, f"{RESULT} is missing")
        return False

    def _home(self, key: str) -> Path:
        return self.root / key[:2] / key

    def _failure(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.failed.json"

    def _compare(self, done: Done) -> bool:
        """Whether every file still has its hash; then their times are noted, else the result is set aside."""
        home, stamps = self._home(done.key), {}
        for name, digest in done.files.items():
            try:
                stamps[name] = _stamp(home / name)  # before the file is read: a later change must not go unseen
                same = digest_file(home / name) == digest
            except OSError:
                same = False
            if not same:
                self._set_aside(done.key, f"{name} is {'changed' if (home / name).exists() else 'missing'}", done.label)
                return False
        self._compared.add(done.key)
        if stamps != _seen(home / SEEN):
            with suppress(OSError):  # a store that may only be read: the files are compared again next time
                write_json(home / SEEN, stamps)
            self._read[done.key] = (_stamp(home / RESULT), done, stamps)
        return True

    def _set_aside(self, key: str, why: str, label: str = "") -> None:
        """Take a broken result out of sight; it is kept for whoever wants to know what happened to it."""
        home = self._home(key)
        number = 1
        while (aside := home.with_name(f"{key}.broken-{number}")).exists():
            number += 1
        self._read.pop(key, None)
        self._compared.discard(key)
        try:
            home.rename(aside)
        except FileNotFoundError:
            return  # another process was quicker
        self.tell(f"Set aside a broken result{f' ({label})' if label else ''}: {why}. It lies in {aside}.")


def full_disk(error: BaseException | None) -> OSError | None:
    """The error of a full disk behind another, where there is one: libraries wrap it in their own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = error.__cause__ or error.__context__
    return None


def no_room(address: str) -> Full:
    """The sentence that a study stops with when a disk is full."""
    return Full(
        f"Expected room on the disks of this study ({address}); one is full. Make room and run the same command again: "
        "what is finished stays."
    )


def _done(path: str, key: str) -> Done:
    """A result as it was written. Checked by hand: ten thousand of them must take no seconds.

    Raises Refused for anything else.
    """
    try:
        with open(path, "rb") as stream:  # noqa: PTH123  # a Path each would double the time of ten thousand
            made = Done(**json.load(stream))
    except (OSError, ValueError, TypeError):
        made = None
    if made is None or made.key != key or not all(isinstance(getattr(made, name), kind) for name, kind in _KINDS):
        raise Refused(f"Expected the result of a step in {path}; got something else. Run the step again.")
    return made


_KINDS = (("key", str), ("kind", str), ("label", str), ("facts", dict), ("files", dict), ("seconds", (int, float)))


def _seen(path: str | Path) -> Mapping[str, Stamp]:
    """Sizes and times of the files when they were last compared; none where that is not known."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            return {name: tuple(stamp) for name, stamp in json.load(stream).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _stamp(path: str | Path) -> Stamp:
    told = os.stat(path)  # noqa: PTH116
    return told.st_size, told.st_mtime_ns


def _is_as(path: str, stamp: Stamp | None) -> bool:
    try:
        return stamp is not None and _stamp(path) == stamp
    except OSError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, but for locks."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder, where the system does not open these
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
