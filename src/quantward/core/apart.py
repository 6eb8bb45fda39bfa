"""A deployed file opened in a process of its own: a crash or a hang becomes a reason, memory and start are its own.

A runtime that dies of a bad file would take a whole search with it; some settings (an instruction-set cap, thread
pools) are read once, when a library is loaded; and what one file needs in memory cannot be told in a process that holds
ten. So a file is opened by `python -m quantward.core.worker`, which answers over pipes (`core.frames`) until it is
closed.

Starting a process and loading a library take about a second. A process whose file was closed is therefore kept for the
next file of the same runtime, unless the caller wants a `private` one, as whoever measures does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np

import quantward
from quantward.core.contracts import Batch, Executed
from quantward.core.errors import Refused, Unsupported, UsageError
from quantward.core.frames import receive, send
from quantward.core.store import plain
from quantward.core.values import Variant

LIMIT = 300.0
"""Seconds an answer may take before the process is stopped: minutes are a large file, more is a hang."""

KEPT = 2
"""Processes kept for the next file, in all."""

_CLASSES = {kind.__name__: kind for kind in (Refused, Unsupported, UsageError)}


class Broken(Refused):
    """The process crashed, hung, or failed in a way that no runtime foresaw; `reason` says how in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Expected an answer; {reason}. Try another runtime or target for this file.")
        self.reason = reason


class Process:
    """One child and its two pipes. One request at a time; threads take turns."""

    def __init__(self, environment: Mapping[str, str], *, private: bool) -> None:
        self.errors: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process, by `_end`
        arguments = [sys.executable, "-P", "-m", "quantward.core.worker", *([str(os.getpid())] if private else [])]
        try:
            child = subprocess.Popen(
                arguments,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                bufsize=0,
            )
        except OSError as error:
            self.errors.close()
            raise Broken(f"no process could be started ({error})") from None
        self.child: subprocess.Popen[bytes] = child
        self.environment = dict(environment)
        self.owner = os.getpid()
        self.turn = threading.Lock()
        self.idle = True
        self.end = weakref.finalize(self, _end, child, self.errors)

    def ask(self, what: str, name: str, limit: float, array: Batch | None = None, /, **facts: Any) -> tuple[Any, Any]:
        """Send a request and wait for its answer. Raises Broken, with `name` in it, where none comes."""
        with self.turn:
            self.idle = False
            late = threading.Event()
            alarm = threading.Timer(limit, self._stop, (late,))
            alarm.daemon = True
            alarm.start()
            try:
                told = self._exchange({"ask": what, **facts}, array)
            except BaseException:
                self.kill()  # the answer would be taken for that of the next request
                raise
            finally:
                alarm.cancel()
            if told is None:
                raise Broken(f"{name} gave no answer within {limit:g} s" if late.is_set() else self._why(name))
            self.idle = True
        facts, values = told
        if "error" in facts:
            if facts["class"] in _CLASSES:
                raise _CLASSES[facts["class"]](facts["error"])
            raise Broken(f"{name} failed ({facts['error']})")
        return facts, values

    def tell(self, what: str) -> None:
        """Send a request that has no answer."""
        stdin = self.child.stdin
        assert stdin is not None
        with self.turn:
            send(stdin, {"ask": what})

    def signal(self, name: Literal["SIGSTOP", "SIGCONT"]) -> None:
        """Stop the process in its tracks or let it go on, where the system can."""
        number = getattr(signal, name, None)
        if number is not None and self.child.poll() is None:
            self.child.send_signal(number)

    def kill(self) -> None:
        """End the process and let go of its pipes."""
        self.idle = False
        self.end()

    def _stop(self, late: threading.Event) -> None:
        late.set()
        self.child.kill()

    def _exchange(self, facts: Mapping[str, Any], array: Batch | None) -> tuple[dict[str, Any], Batch | None] | None:
        stdin, stdout = self.child.stdin, self.child.stdout
        assert stdin is not None and stdout is not None
        try:
            if facts["ask"] == "ready":
                return receive(stdout)
            send(stdin, facts, array)
            return receive(stdout)
        except (OSError, ValueError):  # a broken pipe, or one that is closed already
            return None

    def _why(self, name: str) -> str:
        """Why the process ended: the signal that killed it, or the last line it printed."""
        if self.errors.closed:
            return f"{name} was closed before"
        try:
            code = self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return f"{name} closed its pipes"
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", "replace")
        self.kill()
        return ended(name, code, said)


def ended(name: str, code: int, said: str) -> str:
    """The exit code of a process and what it printed, as a reason.

    >>> ended("openvino", -11, "")
    'openvino crashed (SIGSEGV)'
    >>> ended("x", 1, "Traceback ...\\nKeyError: 'a'\\n")
    "x failed with exit code 1 (KeyError: 'a')"
    """
    if code < 0:
        try:
            name_of_signal = signal.Signals(-code).name
        except ValueError:
            name_of_signal = f"signal {-code}"
        if name_of_signal == "SIGKILL":
            return f"{name} was killed (SIGKILL), as systems do when memory runs out"
        return f"{name} crashed ({name_of_signal})"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"{name} failed with exit code {code}{f' ({lines[-1][:200]})' if lines else ''}"


class Apart:
    """A Variant opened on a runtime in a child process: a Session that can also be timed, watched and closed.

    A `private` process serves no other file and, on Linux, dies with the thread that opened it even while it is paused.
    `process_seconds`, `library_seconds` and `file_seconds` say what starting it took; the first two are 0.0 where the
    process was kept from an earlier file.
    """

    def __init__(
        self,
        variant: Variant,
        runtime: str,
        threads: int = 1,
        *,
        environment: Mapping[str, str] | None = None,
        limit: float = LIMIT,
        private: bool = False,
    ) -> None:
        """Open the file. Raises what the runtime raises, and Broken where the process dies or gives no answer."""
        self.runtime, self.limit, self.private = runtime, limit, private
        self.process, self.process_seconds = _process(runtime, environment or {}, limit, private)
        self.release = weakref.finalize(self, _give_back, self.process, runtime, private)
        try:
            self.library_seconds = float(self._ask("library", runtime=runtime)[0]["seconds"])
            given = plain(replace(variant, path=variant.path.resolve()))
            self.file_seconds = float(self._ask("open", variant=given, runtime=runtime, threads=threads)[0]["seconds"])
        except BaseException:
            self.close()
            raise

    def __call__(self, batch: Batch) -> Batch:
        """Logits of a batch. Raises Broken where the process dies of it."""
        logits: Batch = self._ask("run", np.asarray(batch, np.float32))[1]
        return logits

    def time(self, batch: int, calls: int, touch: int = 1) -> list[float]:
        """Seconds of each of `calls` calls on random images, clocked in the child, where no pipe is in between."""
        found: list[float] = self._ask("time", batch=batch, calls=calls, touch=touch)[0]["seconds"]
        return found

    def peak_bytes(self) -> int | None:
        """The most memory the child ever held; None where the system does not tell."""
        found: int | None = self._ask("peak")[0]["bytes"]
        return found

    def pause(self) -> None:
        """Stop the child in its tracks: its idle threads must not spin while others are timed."""
        self.process.signal("SIGSTOP")

    def resume(self) -> None:
        """Let a paused child go on."""
        self.process.signal("SIGCONT")

    def close(self) -> None:
        """Let go of the file. The process ends, or serves the next file of its runtime."""
        self.release()

    def __enter__(self) -> Apart:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, what: str, array: Batch | None = None, /, **facts: Any) -> tuple[Any, Any]:
        return self.process.ask(what, self.runtime, self.limit, array, **facts)


def executed(
    variant: Variant, runtime: str, *, environment: Mapping[str, str] | None = None, limit: float = LIMIT
) -> Executed | None:
    """What a runtime really runs of a file, asked in a child process; None where it does not tell.

    Raises what the runtime raises, and Broken where the process dies or gives no answer.
    """
    with _borrowed(runtime, environment or {}, limit) as process:
        process.ask("library", runtime, limit, runtime=runtime)
        given = plain(replace(variant, path=variant.path.resolve()))
        told = process.ask("executed", runtime, limit, variant=given, runtime=runtime)[0]["executed"]
    return None if told is None else Executed(**told)


@contextmanager
def _borrowed(runtime: str, environment: Mapping[str, str], limit: float) -> Iterator[Process]:
    process, _ = _process(runtime, environment, limit, False)
    try:
        yield process
    finally:
        _give_back(process, runtime, False)


_kept: list[tuple[str, Process]] = []
_keeping = threading.RLock()  # a collected session gives its process back wherever this thread happens to be


def _process(runtime: str, added: Mapping[str, str], limit: float, private: bool) -> tuple[Process, float]:
    """A process for a runtime, and the seconds its start took: a kept one where there is one like it."""
    environment = _environment(added)
    start = time.perf_counter()
    while not private and (taken := _take(_library(runtime), environment)) is not None:
        if taken.owner == os.getpid() and _lives(taken, runtime, limit):
            return taken, 0.0
    made = Process(environment, private=private)
    made.ask("ready", runtime, limit)
    return made, time.perf_counter() - start


def _lives(process: Process, runtime: str, limit: float) -> bool:
    """Whether a kept process still answers: one that was killed a moment ago may not be known as dead yet."""
    try:
        process.ask("peak", runtime, limit)
    except Broken:
        process.kill()
        return False
    return True


def _take(library: str, environment: Mapping[str, str]) -> Process | None:
    """The process that was kept last for this library and environment; None where there is none."""
    with _keeping:
        for kept in reversed(_kept):
            if kept[0] == library and kept[1].environment == environment:
                _kept.remove(kept)
                return kept[1]
    return None


def _give_back(process: Process, runtime: str, private: bool) -> None:
    """Keep a process that waits for a request, end any other."""
    surplus = process
    if not private and process.idle and process.owner == os.getpid() and not sys.is_finalizing():
        try:
            process.tell("shut")
        except (OSError, ValueError):
            pass
        else:
            with _keeping:
                _kept.append((_library(runtime), process))
                if len(_kept) <= KEPT:
                    return
                surplus = _kept.pop(0)[1]
    surplus.kill()


def close_kept() -> int:
    """End the processes that are kept for a next file; how many there were."""
    with _keeping:
        ending, _kept[:] = [process for _, process in _kept], []
    for process in ending:
        process.kill()
    return len(ending)


def _library(runtime: str) -> str:
    """A runtime's name without its options: what is loaded into the process."""
    return runtime.partition(":")[0]


def _environment(added: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, what is added, and where this package lies, so that the child finds the same one."""
    both = {**os.environ, **added}
    here = str(Path(quantward.__file__).resolve().parents[1])
    paths = [here, *filter(None, both.get("PYTHONPATH", "").split(os.pathsep))]
    return {**both, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _end(child: subprocess.Popen[bytes], errors: BinaryIO) -> None:
    """Kill, reap, close: nothing of a child outlives its Process."""
    if child.poll() is None:
        child.kill()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()
    child.wait()
    errors.close()
