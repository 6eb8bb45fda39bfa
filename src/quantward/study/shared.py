"""The store of a study on any fsspec URL: what one machine finished is there for all others, whatever dies.

The layout is that of a folder store: `KEY[:2]/KEY/` holds a step's files, and its `result.json` is written last, so a
step whose machine dies in the middle has no result. Steps work in a folder of their own machine; what they leave is
sent whole. What others left is fetched once into this machine's cache and compared with its SHA-256. That cache may be
deleted at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from quantward.core.errors import Refused
from quantward.core.lock import only_run
from quantward.core.store import digest_file, digest_text, plain
from quantward.data.cache import default_folder
from quantward.study.remote import Remote, remote
from quantward.study.store import LOCK, RESULT, FolderStore
from quantward.study.values import Done, Failed, Step, Store

FRESH = 5.0
"""Seconds for which one listing of the store answers for files that were not asked for since."""

SINGLY = 32
"""Absent files, one after the other, after which the store is listed again."""

AT_ONCE, BATCH = 8, 256
"""Files, and `result.json`s, that travel at the same time."""


def open_store(address: str | Path, *, many: bool = True) -> Store:
    """The store at a folder or an fsspec URL. `many` is for those who ask for thousands of keys (`SharedStore`).

    Raises UsageError for an address that nothing here can open.
    """
    text = str(address)
    return SharedStore(text, many=many) if "://" in text else FolderStore(text)


class SharedStore:
    """A store that many machines share. `many` says that thousands of keys will be asked for: then listings of the
    whole store answer, where each key would cost a question of its own; those who work out single steps do without."""

    def __init__(self, address: str, cache: Path | None = None, *, many: bool = True) -> None:
        self.address = address
        self.there: Remote = remote(address)
        self.home = cache or default_folder() / "stores" / digest_text(self.there.address)[:16]
        self.local, self.copies = FolderStore(str(self.home / "made")), FolderStore(str(self.home / "fetched"))
        self.many = many
        self.heard: dict[str, Done] = {}
        self.listed: set[str] = set()
        self.when = 0.0
        self.asked: set[str] = set()
        self.singly = 0

    def find(self, key: str) -> Done | None:
        """What a step left, as its `result.json` says; its files are looked at when `folder` fetches them.

        Raises Refused where the store cannot be reached.
        """
        if self.many and not self.when:
            self._list()
        known = self._known(key)
        if known is not None:
            return known
        mine = self.local.find(key)
        if mine is not None:  # this machine was stopped before, or while, it sent what it had finished
            return self._send(mine)
        content = self._ask(_result(key))
        return None if content is None else self._learn(key, content)

    def folder(self, key: str) -> Path:
        """The files of a finished step on this machine; fetched, and compared with their hashes, the first time.

        Raises Refused where there is no such result, or it is not whole; then it is set aside and its step runs again.
        """
        done = self._required(key)
        here = self._here(done) or self._fetch(done)
        if isinstance(here, str):  # torn on its way, or carried out anew by another machine since this one heard of it
            self._forget(key)
            done = self._required(key)
            here = self._here(done) or self._fetch(done)
        if isinstance(here, str):
            raise Refused(
                f"Expected the files of {done.label!r} in {self.there.address} as they were made; {here} is not. "
                f"They lie in {self._set_aside(key)} now. Run the study again: the step is carried out anew."
            )
        return here

    def scratch(self, key: str) -> Path:
        """A folder of this machine to work in: a step goes on in it after a kill, as long as it runs here again."""
        return self.local.scratch(key)

    def keep(self, step: Step, facts: Mapping[str, Any], seconds: float) -> Done:
        """Send what lies in the scratch folder; `result.json` goes last. What another machine has finished meanwhile
        stays as it is."""
        return self._send(self.local.keep(step, facts, seconds))

    def fail(self, failed: Failed) -> None:
        """Note a reason where all can read it."""
        self.there.write(_failure(failed.key), _json(failed))

    def failure(self, key: str) -> Failed | None:
        """The reason noted last; None where there is none or the step has succeeded since."""
        if self._known(key) is not None:
            return None
        content = self._ask(_failure(key))
        if content is None or self.find(key) is not None:
            return None
        try:
            return Failed(**json.loads(content))
        except (ValueError, TypeError):
            return None  # torn: the step has no result, and no reason that can be read

    def _send(self, done: Done) -> Done:
        """Make a result of this machine everybody's."""
        theirs = self.there.read(_result(done.key))
        if theirs is not None and (first := self._learn(done.key, theirs)) is not None:
            return first
        folder = self.local.folder(done.key)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self.there.send(folder / name, f"{_place(done.key)}/{name}"), done.files))
        content = _json(done)
        self.there.write(_result(done.key), content)
        self.there.remove(_failure(done.key))
        self._note(done, content)
        return done

    def _required(self, key: str) -> Done:
        done = self.find(key)
        if done is None:
            raise Refused(
                f"Expected the result {key[:12]} in {self.there.address}; there is none. Run the study again."
            )
        return done

    def _here(self, done: Done) -> Path | None:
        """The files of a result, where this machine has made or fetched them."""
        for store in (self.local, self.copies):
            found = store.find(done.key)
            if found is not None and found.files == done.files:
                return store.folder(done.key)
        return None

    def _fetch(self, done: Done) -> Path | str:
        """Bring a result's files here; the name of the first that did not come as it was made, where one did not.
        Processes of one machine take turns."""
        folder = self.copies.scratch(done.key)
        with _turn(folder):
            there = self._here(done)  # another process has fetched it meanwhile
            if there is not None:
                shutil.rmtree(folder, ignore_errors=True)
                return there
            shutil.rmtree(self.copies.root / _place(done.key), ignore_errors=True)  # of the same step, made earlier

            def whole(name: str) -> bool:
                path = folder / name
                return self.there.fetch(f"{_place(done.key)}/{name}", path) and digest_file(path) == done.files[name]

            with ThreadPoolExecutor(AT_ONCE) as pool:
                came = dict(zip(done.files, pool.map(whole, done.files), strict=True))
            torn = next((name for name, is_whole in came.items() if not is_whole), "")
            if torn:
                return torn
            for path in folder.rglob("*"):  # what an earlier try may have left
                if path.is_file() and path.name != LOCK and path.relative_to(folder).as_posix() not in done.files:
                    path.unlink()
            self.copies.keep(Step(done.key, done.kind, done.label), done.facts, done.seconds)
            return self.copies.folder(done.key)

    def _set_aside(self, key: str) -> str:
        """Take a broken result out of the readers' sight, its `result.json` first."""
        held = self.there.names(_place(key))
        taken = {name.split("/")[1] for name in self.there.names(key[:2])}
        number = next(n for n in range(1, 1 << 30) if f"{key}.broken-{n}" not in taken)
        aside = f"{key[:2]}/{key}.broken-{number}"
        for name in sorted(held, key=lambda name: name != _result(key)):
            self.there.move(name, f"{aside}/{name.removeprefix(_place(key) + '/')}")
        self._forget(key)
        return aside

    def _known(self, key: str) -> Done | None:
        """What this machine has heard of a result. Results never change, so it need not ask twice."""
        if key not in self.heard:
            path = self._noted(key)
            try:
                self.heard[key] = _done(path.read_bytes(), path)
            except FileNotFoundError:
                return None
            except Refused:
                path.unlink(missing_ok=True)
                return None
        return self.heard[key]

    def _learn(self, key: str, content: bytes) -> Done | None:
        """Read a `result.json`; one that is broken, or another step's, is set aside."""
        try:
            done = _done(content, f"{self.there.address}/{_result(key)}")
        except Refused:
            done = None
        if done is None or done.key != key:
            self._set_aside(key)
            return None
        self._note(done, content)
        return done

    def _note(self, done: Done, content: bytes) -> None:
        """Remember a result. Torn by a power cut, it is asked for again, so nothing waits here for the disk."""
        path = self._noted(done.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(path)
        self.heard[done.key] = done

    def _noted(self, key: str) -> Path:
        return self.home / "heard" / key[:2] / f"{key}.json"

    def _forget(self, key: str) -> None:
        self._noted(key).unlink(missing_ok=True)
        self.heard.pop(key, None)

    def _ask(self, path: str) -> bytes | None:
        """A file's bytes; None where there is none, by a fresh listing or by the store itself.

        A listing answers once for each file: who asks again expects news.
        """
        if self.many:
            fresh = self.when and time.monotonic() - self.when < FRESH and path not in self.asked
            if not fresh and self.singly >= SINGLY:
                self._list()
                fresh = True
            if fresh:
                self.asked.add(path)
                if path not in self.listed:
                    return None
        content = self.there.read(path)
        self.singly = 0 if content is not None else self.singly + 1
        return content

    def _list(self) -> None:
        """List the store, hear of all that is new to this machine, and forget what is no longer there."""
        self.listed = self.there.names()
        keys = {parts[1] for name in self.listed if _is_result(parts := name.split("/"))}
        known = {path.stem for path in (self.home / "heard").glob("*/*.json")}
        for key in known - keys:
            self._forget(key)
        new = sorted(keys - known)
        for start in range(0, len(new), BATCH):
            told = self.there.read_all(map(_result, new[start : start + BATCH]))
            for path, content in told.items():
                self._learn(path.split("/")[1], content)
        self.when, self.asked, self.singly = time.monotonic(), set(), 0


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold a scratch folder, as whoever works in it does; wait while another process has it."""
    while True:
        with ExitStack() as stack:
            try:
                stack.enter_context(only_run(folder))
            except Refused:
                time.sleep(0.2)
            else:
                yield
                return


def _place(key: str) -> str:
    return f"{key[:2]}/{key}"


def _result(key: str) -> str:
    return f"{_place(key)}/{RESULT}"


def _failure(key: str) -> str:
    return f"{_place(key)}.failed.json"


def _is_result(parts: list[str]) -> bool:
    return len(parts) == 3 and parts[2] == RESULT and parts[1].startswith(parts[0]) and "." not in parts[1]


def _json(value: Any) -> bytes:
    return (json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _done(content: bytes, where: Path | str) -> Done:
    """A result from its bytes; checked by hand, since thousands are read at once.

    Raises Refused where they are not one.
    """
    try:
        made = Done(**json.loads(content))
    except (ValueError, TypeError):
        made = None
    kinds = (("key", str), ("kind", str), ("label", str), ("facts", dict), ("files", dict), ("seconds", (int, float)))
    if made is None or not all(isinstance(getattr(made, name), kind) for name, kind in kinds):
        raise Refused(f"Expected the result of a step in {where}; got something else. Run the step again.")
    return made
