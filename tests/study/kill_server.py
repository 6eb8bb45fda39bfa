"""Runs a study in child processes and kills each of them at a random moment, until one gets to the end.

Used by test_study_kill: libraries are loaded once, here, and a child is a fork; so twenty kills cost no twenty starts.
Arguments: the folder of the study, the folder of made-up images, the folder of the unbroken run, a seed.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm  # noqa: F401  # what children need, loaded once
import torch
from small_study import designed

from quantward import explaining, runs  # noqa: F401
from quantward.core.progress import silent
from quantward.study.engines._order import Order
from quantward.study.execute import execute
from quantward.study.store import FolderStore
from quantward.study.values import Design, Done, News

SMALL = {"folds": 1, "data": {"scans": {"toy": 64}}}
KILLS = {"train": 4, "plan": 3, "file": 2, "said": 3, "sensitivity": 2, "score": 3, "drift": 3, "bench": 2}
AT_ONCE = 0.02
"""Seconds within which the first kill of a kind comes, so that no kind gets away; later ones come at any moment of the
step, as long as it took in the unbroken run."""


def child(made: Design, store: FolderStore, pipe: int) -> None:
    """Carry out what is left, telling the kind of each step that begins."""
    torch.set_num_threads(1)
    order = Order(made, store, list(made.steps))
    for news in order.begin():
        assert news.state == "kept"
    while (step := order.next()) is not None:
        os.write(pipe, f"{step.kind}\n".encode())
        left = execute(step, store, silent)
        if not isinstance(left, Done):
            os.write(pipe, f"failed {left.reason}\n".encode())
            os._exit(1)
        for _ in order.note(News(step, "done", done=left)):
            pass
    os.write(pipe, b"end\n")


def attempt(made: Design, store: FolderStore, kind: str, wait: Callable[[str], float]) -> tuple[bool, str]:
    """Fork, and kill the child `wait(kind)` seconds after it began with a step of `kind` (with any where that is
    empty); whether it got to the end before, and what it was at."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            child(made, store, writing)
        finally:
            os._exit(0)
    os.close(writing)
    deadline, at, told = None, "", b""
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([reading], [], [], left)[0]:
                os.kill(pid, signal.SIGKILL)
                return False, at
            more = os.read(reading, 4096)
            told += more
            at = told.decode().splitlines()[-1]
            if at == "end":
                return True, at
            if not more or at.startswith("failed"):
                raise SystemExit(f"the study stopped by itself: {told.decode()}")
            if deadline is None and kind in ("", at):
                deadline = time.monotonic() + wait(at)
    finally:
        os.close(reading)
        os.waitpid(pid, 0)


def main(folder: Path, toys: Path, whole: Path, seed: int) -> None:
    draw = random.Random(seed)
    hit: list[str] = []
    made = designed(folder, toys, **SMALL)
    unbroken, store = FolderStore(str(whole)), FolderStore(str(folder / "store"))
    assert attempt(made, unbroken, "nothing", lambda kind: 0.0)[0]
    lasted: dict[str, float] = {}
    for step in made.steps.values():
        done = unbroken.find(step.key)
        assert done is not None
        lasted[step.kind] = max(done.seconds, lasted.get(step.kind, 0.0))
    for kind, times in KILLS.items():
        for number in range(times):
            left = any(step.kind == kind and store.find(step.key) is None for step in made.steps.values())
            ended, at = attempt(made, store, kind if left else "",
                                lambda at, first=number == 0: draw.uniform(0, AT_ONCE if first else lasted[at]))  # type: ignore[misc]  # fmt: skip
            if not ended:
                hit.append(at)
    assert attempt(made, store, "nothing", lambda kind: 0.0)[0]
    sys.stdout.write(json.dumps({"keys": list(made.steps), "kills": hit}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
