"""What a study is doing, for whoever watches: a live table in a terminal, else a line for each step that ends.

Everything goes to the standard error; a study that runs overnight in a log file leaves a log that can be read.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quantward.study.axes import varying
from quantward.study.forecast import forecast
from quantward.study.measures import of
from quantward.study.record import Record
from quantward.study.run import lasting
from quantward.study.values import Design, Done, News, State, Step, Store

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN = 6
"""Running steps that are named."""

EVERY = 2.0
"""Seconds between two forecasts."""


Begin = Callable[[Design, Store], Callable[[News], None]]
"""What `study_run` calls before the first step, for what it then calls with each piece of news."""


class Watch:
    """Where a study stands, by what its engine tells."""

    def __init__(self, design: Design, clock: Callable[[], float] = time.monotonic) -> None:
        self.design, self.clock = design, clock
        self.kinds = tuple(dict.fromkeys(step.kind for step in design.steps.values()))
        self.steps = Counter(step.kind for step in design.steps.values())
        self.states: dict[str, State] = {}
        self.finished: dict[str, Done] = {}
        self.running: dict[str, tuple[Step, float]] = {}
        self._told = (float("-inf"), 0.0)

    def note(self, news: News) -> None:
        """Take in one piece of news."""
        key = news.step.key
        self.states[key] = news.state
        self.running.pop(key, None)
        if news.state == "running":
            self.running[key] = (news.step, self.clock())
        if news.done is not None:
            self.finished[key] = news.done

    def counts(self, kind: str) -> dict[str, int]:
        """How many steps of a kind are in which state; those kept from before count as done."""
        found = Counter(state for key, state in self.states.items() if self.design.steps[key].kind == kind)
        ended = {"running": found["running"], "done": found["done"] + found["kept"], "failed": found["failed"]}
        return {"waiting": self.steps[kind] - sum(ended.values()), **ended}

    def left(self) -> float:
        """Seconds left: what is not done by recorded times, shared among as many as run now; timed steps come alone."""
        when, told = self._told
        now = self.clock()
        if now - when >= EVERY:
            times = forecast(self.design, self.finished).times
            alone = together = 0.0
            for key, seconds in times.items():
                if self.states.get(key) == "failed":
                    continue
                since = self.running.get(key)
                seconds = max(0.0, seconds - (now - since[1])) if since else seconds
                if self.design.steps[key].alone:
                    alone += seconds
                else:
                    together += seconds
            told = alone + together / max(1, len(self.running))
            self._told = (now, told)
        return told

    def table(self) -> Table:
        """The live table."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, title=f"{self.design.name}: {lasting(self.left())} left",
                      title_justify="left")  # fmt: skip
        table.add_column("step")
        for state in ("waiting", "running", "done", "failed"):
            table.add_column(state, justify="right")
        for kind in self.kinds:
            counts = self.counts(kind)
            table.add_row(kind, *(f"{count:,}" if count else "·" for count in counts.values()))
        now = self.clock()
        for step, since in list(self.running.values())[:SHOWN]:
            table.add_row(f"  {step.kind}: {step.label}", "", lasting(now - since), "", "")
        return table


@contextmanager
def watching(console: Console, tell: Callable[[str], None]) -> Iterator[Begin]:
    """What `study_run` takes as `watch`: a live table where `console` is a terminal, else lines for `tell`."""
    from rich.live import Live

    stack: list[Any] = []

    def begin(design: Design, store: Store) -> Callable[[News], None]:
        watch = Watch(design)
        if not console.is_terminal:
            return lambda news: _line(watch, news, tell)
        live = Live(get_renderable=watch.table, console=console, refresh_per_second=2, transient=True)
        live.start()
        stack.append(live)
        return watch.note

    try:
        yield begin
    finally:
        for live in stack:
            live.stop()


def _line(watch: Watch, news: News, tell: Callable[[str], None]) -> None:
    kept = sum(state == "kept" for state in watch.states.values())
    if kept == len(watch.states) > 0 and news.state != "kept":
        tell(f"{kept} of {len(watch.design.steps)} steps were done before")
    watch.note(news)
    step = news.step
    ended = sum(state in ("done", "kept", "failed") for state in watch.states.values())
    where = f"{ended}/{len(watch.design.steps)}"
    if news.state == "done" and news.done is not None:
        tell(f"{where} {step.kind}: {step.label} ({lasting(news.done.seconds)}; {lasting(watch.left())} left)")
    elif news.state == "failed" and news.failed is not None and not news.failed.because:
        tell(f"{where} {step.kind}: {step.label} failed: {news.failed.reason}")


FIGURES = ("accuracy", "auroc", "ece")


def show_rows(record: Record, console: Console) -> None:
    """Every row with its main figures and its verdict; a failed one with its reason."""
    from rich.table import Table

    names = varying(record.lines) or ("recipe",)
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for name in (*FIGURES, "bytes", "verdict"):
        table.add_column(name, justify="left" if name == "verdict" else "right")
    for line in record.lines:
        head = [line.at(name) for name in names]
        if line.failure:
            table.add_row(*head, *("-" for _ in FIGURES), "-", f"failed: {line.failure}")
            continue
        cells = [_figure(of(line, name).value) for name in FIGURES]
        size = line.facts.get("bytes")
        table.add_row(*head, *cells, "-" if size is None else f"{size:,}", str(line.facts.get("verdict") or "baseline"))
    console.print(table)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
