"""Progress with time left, on stderr, so that stdout stays clean for `--json`.

Long loops take a `Track` as an argument and wrap their iterable in it; tests and library callers pass
nothing and get silence.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wraps an iterable and shows how far it is."""

    def __call__(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]: ...


def silent(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Show nothing.

    >>> list(silent([1, 2], "work"))
    [1, 2]
    """
    yield from items


def bar(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Show a bar with counts, elapsed time and time left on stderr; plain silence when stderr is no terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Left

    if total is None and isinstance(items, Sized):
        total = len(items)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        Left(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=label)
