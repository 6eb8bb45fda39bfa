"""Steps in processes of this machine: several at once, each kept for the next step, each replaced where it dies.

A process of its own makes a crash, or a process that the system stops for want of memory, the reason of one step. They
are kept because loading the libraries takes seconds, and because what a step opened serves the next.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from quantward.core.apart import ended
from quantward.core.errors import Refused, UsageError
from quantward.core.machine import cores, free_memory
from quantward.core.registry import Registry
from quantward.core.store import plain
from quantward.study.engines._order import Order
from quantward.study.engines._threads import POOLS
from quantward.study.execute import ACCIDENT
from quantward.study.keys import made_by
from quantward.study.values import Design, Failed, News, Step, Store

KINDS = Registry("step", "quantward.study.steps")

ROOM = 3_000_000_000
"""Bytes of free memory for each process where nobody says how many: what training a usual network takes."""

PATIENCE = 20.0
"""Seconds that a process has to write down where it is when it is interrupted."""


@dataclass(frozen=True)
class Local:
    """`jobs` is how many steps run at once: one a core, as far as memory goes, where it is not said. Each computes with
    as many threads as it reserves processors, so that no result depends on the machine."""

    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"Expected at least one job for the engine local; got {self.jobs}. Say local:jobs=1.")

    def missing(self) -> str | None:
        """Nothing: the base install has it all."""
        return None

    def run(self, design: Design, store: Store, wanted: Sequence[str]) -> Iterator[News]:
        """Carry out the steps `wanted`, telling each change. Leaving the loop, or Ctrl-C, stops what runs: a training
        writes down where it is.

        Raises Refused where no room is left on a disk, or the code changes meanwhile.
        """
        order = Order(design, store, wanted)
        yield from order.begin()
        if not order.open:
            return
        team = _Team(self.jobs or _jobs(), store)
        try:
            while order.open:
                while team.has_room and (step := order.next(alone=not team.working)) is not None:
                    team.give(step)
                    yield News(step, "running")
                for news in team.hear():
                    yield from order.note(news)
        finally:
            team.end()


def _jobs() -> int:
    """One a core, as far as memory goes."""
    free = free_memory()
    return max(1, min(cores(), cores() if free is None else free // ROOM))


@dataclass(eq=False)
class _Worker:
    """A process and the step that it is at."""

    process: subprocess.Popen[str]
    errors: IO[str]
    step: Step | None = None
    reader: threading.Thread | None = None


@dataclass(eq=False)
class _Team:
    """Up to `jobs` processes, started when they are first needed."""

    jobs: int
    store: Store
    workers: list[_Worker] = field(default_factory=list)
    told: queue.SimpleQueue[tuple[_Worker, str]] = field(default_factory=queue.SimpleQueue)

    @property
    def working(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.step is not None]

    @property
    def has_room(self) -> bool:
        """Whether another step may be given: never beside one that wants the machine to itself."""
        working = self.working
        return len(working) < self.jobs and not any(worker.step is not None and worker.step.alone for worker in working)

    def give(self, step: Step) -> None:
        """Hand a step to a process that has none."""
        worker = next((one for one in self.workers if one.step is None), None) or self._start()
        kind = KINDS.get(step.kind)
        worker.step = step
        order = {"step": plain(step), "code": made_by(kind.rooms, kind.libraries)}
        assert worker.process.stdin is not None
        with suppress(OSError):  # it has died since: its reader tells
            worker.process.stdin.write(json.dumps(order) + "\n")
            worker.process.stdin.flush()

    def hear(self) -> list[News]:
        """Wait for the next word of any process."""
        worker, line = self.told.get()
        step = worker.step
        if line and step is not None:
            worker.step = None
            return [self._news(step, json.loads(line))]
        if worker in self.workers:
            self.workers.remove(worker)
        if step is None:
            _let_go(worker)
            return []
        return [self._failed(step, f"{ACCIDENT}; {self._why(worker)}. Run the study again, with fewer jobs at once "
                                   "where memory is short.")]  # fmt: skip

    def end(self) -> None:
        """Interrupt what runs, let it write down where it is, and end all processes."""
        for worker in self.workers:
            with suppress(OSError):
                if worker.step is not None:
                    worker.process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
                elif worker.process.stdin is not None:
                    worker.process.stdin.close()
        for worker in self.workers:
            try:
                worker.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
            _let_go(worker)
        self.workers.clear()

    def _start(self) -> _Worker:
        environment = {**os.environ, **dict.fromkeys(POOLS, "1")}  # until a step says how many it reserves
        errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # closed with it
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "quantward.study.engines._worker", self.store.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent: it interrupts its children itself
        )
        worker = _Worker(process, errors)
        self.workers.append(worker)
        worker.reader = threading.Thread(target=self._listen, args=(worker,), daemon=True)
        worker.reader.start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with worker.process.stdout as answers:
            for line in answers:
                self.told.put((worker, line))
        self.told.put((worker, ""))

    def _news(self, step: Step, told: dict[str, Any]) -> News:
        if told["state"] == "stop":
            raise Refused(told["reason"])
        if told["state"] == "failed":
            return self._failed(step, told["reason"], told.get("because", ""), noted=True)
        # The first look may be at a listing from before; whoever looks twice sees the store itself.
        done = self.store.find(step.key) or self.store.find(step.key)
        if done is None:
            return self._failed(step, f"{ACCIDENT} with its result in {self.store.address}; it is not there. "
                                      "Run the study again.")  # fmt: skip
        return News(step, "done", done=done)

    def _failed(self, step: Step, reason: str, because: str = "", *, noted: bool = False) -> News:
        failed = Failed(step.key, step.kind, step.label, reason, because)
        if not noted:
            self.store.fail(failed)
        return News(step, "failed", failed=failed)

    def _why(self, worker: _Worker) -> str:
        """Why a process ended: the signal that killed it, or the last line it printed."""
        code = worker.process.wait()
        worker.errors.seek(0)
        said = worker.errors.read()
        _let_go(worker)
        return ended("its process", code, said)


def _let_go(worker: _Worker) -> None:
    """Close what was opened for a process that has ended."""
    worker.process.wait()
    if worker.reader is not None:
        worker.reader.join(PATIENCE)  # it closes its end itself
    worker.errors.close()
    if worker.process.stdin is not None:
        with suppress(OSError):  # a broken pipe
            worker.process.stdin.close()
