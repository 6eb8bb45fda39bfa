"""Ctrl-C and a polite kill become a wish that the loop grants between two steps, where the state is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_wish() -> Iterator[Callable[[], bool]]:
    """Inside, the first SIGINT or SIGTERM only sets the wish that the given function tells; a second one strikes.

    Off the main thread, where Python takes no signals, the wish is never set.
    """
    wished = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: wished
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def wish(number: int, _frame: FrameType | None) -> None:
        nonlocal wished
        wished = True
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    try:
        for number in before:
            signal.signal(number, wish)
        yield lambda: wished
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
