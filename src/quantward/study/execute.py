"""One step carried out: what it needs is gathered, its kind does the work in scratch, the store keeps the result.

Every engine ends here, on whatever machine; so a step is done the same way everywhere, and whatever goes wrong in it is
a sentence.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from quantward.core.errors import QuantwardError, Refused
from quantward.core.lock import only_run
from quantward.core.progress import Track
from quantward.core.registry import Registry
from quantward.core.store import write_text
from quantward.study.store import Full, full_disk, no_room
from quantward.study.values import Done, Failed, Kind, Step, Store, Workplace

KINDS = Registry("step", "quantward.study.steps")
LOG = "error.log"
ACCIDENT = "Expected the step to end"
"""How the reasons begin that say nothing about the work itself: next time it may end well."""

MANY = "file/"
"""How the parts begin of which those that are there are enough."""

AGAIN = 0.5
"""Seconds after which is looked again whether another study has finished the same step."""


def execute(step: Step, store: Store, track: Track) -> Done | Failed:
    """What a step leaves: from the store where it is there already. A failure is noted in the store.

    Raises Full where no room is left on a disk; Ctrl-C passes.
    """
    try:
        return store.find(step.key) or _carried_out(step, store, track)
    except Full:
        raise
    except QuantwardError as error:
        if full_disk(error):
            raise no_room(store.address) from None
        reason = str(error)
    except Exception as error:
        if full_disk(error):
            raise no_room(store.address) from None
        reason = _unforeseen(step, store, error)
    failed = Failed(step.key, step.kind, step.label, reason)
    try:
        store.fail(failed)
    except OSError as error:
        if full_disk(error):
            raise no_room(store.address) from None
        raise
    return failed


def _carried_out(step: Step, store: Store, track: Track) -> Done:
    kind = KINDS.get(step.kind)()
    while True:
        folder = store.scratch(step.key)
        with ExitStack() as stack:
            try:
                stack.enter_context(only_run(folder))
            except Refused:
                time.sleep(AGAIN)  # another study is at work on the very same step
            else:
                there = store.find(step.key)
                if there is None:
                    return _worked(step, store, kind, folder, track)
                shutil.rmtree(folder, ignore_errors=True)
                return there


def _worked(step: Step, store: Store, kind: Kind, folder: Path, track: Track) -> Done:
    before = time.monotonic()
    there = {part: key for part, key in step.needs.items() if not part.startswith(MANY) or store.find(key)}
    inputs = {part: store.folder(key) for part, key in there.items()}
    facts = {part: _facts(store, key) for part, key in there.items()}
    left = kind.run(Workplace(step, folder, inputs, facts, track))
    (folder / LOG).unlink(missing_ok=True)
    return store.keep(step, left, time.monotonic() - before)


def _facts(store: Store, key: str) -> Mapping[str, Any]:
    done = store.find(key)
    if done is None:
        raise Refused(f"Expected the result {key[:12]} in {store.address}; there is none. Run the study again.")
    return done.facts


def _unforeseen(step: Step, store: Store, error: Exception) -> str:
    """A sentence for what nobody foresaw, with the place of its traceback: a whole study must not end of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f" ({lines[0][:200]})" if lines else ""
    path = store.scratch(step.key) / LOG
    try:
        write_text(path, "".join(traceback.format_exception(error)))
        where = f"The log {path} says where"
    except OSError:
        where = "No log could be written"
    if isinstance(error, MemoryError):
        return f"{ACCIDENT}; memory ran out{said}. Run fewer jobs at once."
    return f"{ACCIDENT}; got {type(error).__name__}{said}. {where}."
