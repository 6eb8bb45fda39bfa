"""A process that carries out one step after the other; it is asked over its standard input, a JSON line a step.

It ends with its input, so with the process that started it, whatever becomes of that. What libraries print goes to its
standard error; only answers go to the standard output.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import warnings
from collections.abc import Mapping
from typing import Any, TextIO

from quantward.core.errors import Refused
from quantward.core.progress import silent
from quantward.core.registry import Registry
from quantward.core.store import decode
from quantward.study.engines._threads import limit
from quantward.study.execute import execute
from quantward.study.keys import made_by
from quantward.study.shared import open_store
from quantward.study.store import Full
from quantward.study.values import Failed, Step, Store

KINDS = Registry("step", "quantward.study.steps")


def main(address: str) -> None:
    """Serve until standard input ends. `address` is the store's."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(orders, busy), daemon=True).start()
    store = open_store(address, many=False)
    while (order := orders.get()) is not None:
        busy.set()
        try:
            _tell(answers, _carry(json.loads(order), store))
        finally:
            busy.clear()


def _listen(orders: queue.SimpleQueue[str | None], busy: threading.Event) -> None:
    for line in sys.stdin:
        orders.put(line)
    if busy.is_set():
        os._exit(1)  # nobody waits for this step any more; another run may take it up
    orders.put(None)


def _carry(order: Mapping[str, Any], store: Store) -> dict[str, Any]:
    step = decode(Step, order["step"], "the order of a step")
    kind = KINDS.get(step.kind)
    if made_by(kind.rooms, kind.libraries) != order["code"]:
        return {"state": "stop", "reason": "Expected the code that this study began with; it has changed meanwhile. "
                                           "Run the same command again: what is finished stays."}  # fmt: skip
    limit(max(1, int(step.cpus)))
    try:
        left = execute(step, store, silent)
    except Full as error:
        return {"state": "stop", "reason": str(error)}
    except Refused as error:
        return {"state": "failed", "reason": str(error)}
    if isinstance(left, Failed):
        return {"state": "failed", "reason": left.reason, "because": left.because}
    return {"state": "done"}


def _tell(answers: TextIO, told: Mapping[str, Any]) -> None:
    answers.write(json.dumps(told) + "\n")
    answers.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        os._exit(130)
