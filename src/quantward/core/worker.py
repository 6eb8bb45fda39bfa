"""The child's side of `quantward.core.apart`: opens one deployed file on one runtime and answers requests in a pipe.

Only `apart` starts it. Standard input carries the requests and nothing else; when it ends, the parent is gone and this
process leaves at once, whatever it is computing. Answers go out where standard output was; what libraries print is
turned to standard error, whose end the parent reads if this process dies.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from quantward.core.contracts import Batch, Session
from quantward.core.errors import QuantwardError, Refused
from quantward.core.frames import Message, receive, send
from quantward.core.registry import Registry
from quantward.core.store import plain
from quantward.core.values import Preprocess, Variant

RUNTIMES = Registry("runtime", "quantward.runtimes")


class Worker:
    """What is open in this process, and what it can be asked. Each request has a method of its name."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.size = 0
        self.drawn: dict[int, Batch] = {}

    def library(self, runtime: str) -> dict[str, Any]:
        """Load the runtime's library. Raises Refused where it is not installed."""
        start = time.perf_counter()
        absent = RUNTIMES.make(runtime).missing()
        if absent:
            raise Refused(f"Expected an installed runtime; {absent}.")
        return {"seconds": time.perf_counter() - start}

    def open(self, variant: dict[str, Any], runtime: str, threads: int) -> dict[str, Any]:
        """Open a file; one that was open before is closed."""
        self.shut()
        found = _variant(variant)
        start = time.perf_counter()
        self.session = RUNTIMES.make(runtime).open(found, threads)
        self.size = found.preprocess.size
        return {"seconds": time.perf_counter() - start}

    def shut(self) -> None:
        """Let go of the open file, its memory and its threads."""
        self.session = None
        self.drawn = {}
        gc.collect()

    def run(self, batch: Batch) -> Batch:
        """Logits of a batch."""
        return self._opened()(batch)

    def time(self, batch: int, calls: int, touch: int) -> dict[str, Any]:
        """Seconds of each of some calls on the same random images, after `touch` calls that are not counted: others had
        the processor before, and its caches."""
        session = self._opened()
        if batch not in self.drawn:
            draw = np.random.default_rng(batch)
            self.drawn = {batch: draw.standard_normal((batch, 3, self.size, self.size), np.float32)}
        images = self.drawn[batch]
        clock, seconds = time.perf_counter, []
        for _ in range(touch):
            session(images)
        gc.disable()
        try:
            for _ in range(calls):
                start = clock()
                session(images)
                seconds.append(clock() - start)
        finally:
            gc.enable()
        return {"seconds": seconds}

    def executed(self, variant: dict[str, Any], runtime: str) -> dict[str, Any]:
        """What a runtime says it runs of a file."""
        return {"executed": plain(RUNTIMES.make(runtime).executed(_variant(variant)))}

    def peak(self) -> dict[str, Any]:
        """The most memory this process ever held, in bytes; None where the system does not tell."""
        return {"bytes": _peak()}

    def _opened(self) -> Session:
        if self.session is None:
            raise Refused("Expected an opened file; there is none. Open one first.")
        return self.session


def answer(worker: Worker, facts: dict[str, Any], batch: Batch | None) -> Message:
    """One request's answer; whatever goes wrong becomes a sentence and the name of its class."""
    ask = facts.pop("ask")
    try:
        if ask == "run":
            assert batch is not None
            return {}, worker.run(batch)
        told: dict[str, Any] = getattr(worker, ask)(**facts)
        return told, None
    except QuantwardError as error:
        return {"error": str(error), "class": type(error).__name__}, None
    except Exception as error:  # whatever a runtime raises: the parent tells it as a sentence
        first = str(error).strip().partition("\n")[0]
        return {"error": f"{type(error).__name__}: {first}" if first else type(error).__name__, "class": ""}, None


def _variant(data: dict[str, Any]) -> Variant:
    """A Variant from plain data that this program itself wrote; a library for checking would cost half the start."""
    how = data["preprocess"]
    preprocess = Preprocess(**{**how, "mean": tuple(how["mean"]), "std": tuple(how["std"])})
    return Variant(**{**data, "path": Path(data["path"]), "classes": tuple(data["classes"]), "preprocess": preprocess})


def _peak() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _listen(stream: BinaryIO, requests: queue.SimpleQueue[Message]) -> None:
    """Hand requests on; leave when there will be no more, even in the middle of a long computation."""
    while (message := receive(stream)) is not None:
        requests.put(message)
    os._exit(0)


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process with the thread that started it: a process that is stopped between its turns
    cannot see that its standard input has ended."""
    import ctypes

    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError, TypeError):
        return
    if os.getppid() != parent:
        os._exit(0)


def main(arguments: list[str]) -> None:
    """Serve until standard input ends."""
    if arguments:
        _die_with(int(arguments[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent: it ends its children itself
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
    stream = os.fdopen(os.dup(0), "rb", buffering=0)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_listen, args=(stream, requests), daemon=True).start()
    worker = Worker()
    send(out, {"ready": os.getpid()})
    while True:
        facts, batch = requests.get()
        if facts["ask"] == "shut":
            worker.shut()
        else:
            send(out, *answer(worker, facts, batch))


if __name__ == "__main__":
    main(sys.argv[1:])
