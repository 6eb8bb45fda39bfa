"""What a node of a cluster does with a step: see whether this machine is fit for it, carry it out, tell how it ended.

A node that lacks the images, that reaches another store under the same path, or that has other versions than the
machine that named the step, would fail late or, worse, leave a result under a key that promises something else. So that
is looked at first, and told in a sentence.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from quantward import __version__
from quantward.core.errors import QuantwardError
from quantward.core.progress import silent
from quantward.core.registry import Registry
from quantward.core.store import decode
from quantward.study.engines._threads import limit
from quantward.study.execute import MANY, execute
from quantward.study.keys import made_by, version
from quantward.study.shared import open_store
from quantward.study.store import Full
from quantward.study.values import Done, Failed, Step, Store

KINDS = Registry("step", "quantward.study.steps")

PATIENCE = 60.0
"""Seconds to wait for what another machine has written: network drives show new files late."""


def carry(order: str, store: str, mark: str, code: Mapping[str, str], threads: int) -> Iterator[dict[str, str]]:
    """Carry out a step (as JSON) with the store at an address: tells `running` with this machine's name, then `done`,
    `failed` with the reason, or `full` where no room is left on a disk. `mark` and `code` are for `hindrance`."""
    yield {"state": "running", "host": socket.gethostname()}
    step = decode(Step, json.loads(order), "the order of a step")
    try:
        reason = hindrance(step, mark, code)
        if reason:
            yield {"state": "failed", "reason": reason}
            return
        limit(threads)
        shared = open_store(store, many=False)
        for part, key in step.needs.items():
            if not part.startswith(MANY):  # of these some may never come
                patient(shared, key)
        left = execute(step, shared, silent)
    except Full as error:
        yield {"state": "full", "reason": f"{error} It is a disk of node {socket.gethostname()}."}
        return
    except QuantwardError as error:
        yield {"state": "failed", "reason": str(error)}
        return
    if isinstance(left, Failed):
        yield {"state": "failed", "reason": left.reason, "because": left.because}
    else:
        yield {"state": "done"}


def hindrance(step: Step, mark: str, code: Mapping[str, str]) -> str:
    """Why this machine is not fit for a step, in one sentence; empty where it is.

    `mark` is a file that the driver has put into a store that is a folder (empty for others): whoever sees it sees the
    same folder. `code` is what the driver's `versions` says.
    """
    host = socket.gethostname()
    end = time.monotonic() + PATIENCE
    while mark and not Path(mark).exists():
        if time.monotonic() >= end:
            return (
                f"Expected the study's store at {Path(mark).parent} on node {host}; it is not the one there. "
                "Give a folder that all nodes share, or an fsspec URL, as the store."
            )
        time.sleep(0.5)
    for part, place in step.places.items():
        if not Path(place).exists():
            return (
                f"Expected the {part} of this step at {place} on node {host}; there is nothing. "
                "Put it there, at the same path on every node, or share the folder."
            )
    mine = versions(step.kind)
    other = [f"{name} {mine.get(name, 'absent')}" for name in code if mine.get(name, "absent") != code[name]]
    if other:
        wanted = ", ".join(f"{name} {code[name]}" for name in code if mine.get(name, "absent") != code[name])
        return (
            f"Expected {wanted} on node {host}, as on the machine that runs the study; it has {', '.join(other)}. "
            "Install the same versions on every node."
        )
    return ""


@cache
def versions(kind: str) -> Mapping[str, str]:
    """What a kind of step is carried out with on this machine: quantward, with a digest of the sources that are part of
    the step's key, and the libraries that are."""
    found = KINDS.get(kind)
    sources = made_by(found.rooms, ())
    return {"quantward": f"{__version__}+{sources[:8]}", **{name: version(name) for name in sorted(found.libraries)}}


def patient(store: Store, key: str) -> Done | None:
    """A result that another machine is said to have finished; asked for again and again until it is seen."""
    end = time.monotonic() + PATIENCE
    while (found := store.find(key)) is None and time.monotonic() < end:
        time.sleep(0.2)
    return found
