"""Results of `quantward bench` as one HTML page: a bar for each file and runtime, tables, and what was not measured.

Results of several devices stand below each other on the same scale, so that a bundle can be followed from the machine
that made it to the devices it runs on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

import quantward
from quantward.core.store import write_text
from quantward.core.values import Bench, Efficiency, Latency, Speedup
from quantward.report._speed import bars
from quantward.report._svg import tag
from quantward.report._words import ABSENT, milliseconds, number, ratio, seconds, size, visible
from quantward.report.front import META

TITLE = "What it costs to run"
STYLE = """
.bars { width: 100%; height: auto; display: block; margin: 4px 0 18px; }
.bars .name { fill: var(--ink); font-size: 12px; } .bars .where { font-size: 10.5px; }
.bars .value { fill: var(--ink); font-size: 11.5px; } .bars .gain { font-size: 11px; }
.bars .bar { fill: var(--cand); } .bars .bar.float { fill: var(--base); } .bars .noisy { fill-opacity: .35; }
.bars .whisker { stroke: var(--ink); stroke-width: 1.2; fill: none; }
.bars .far { stroke: var(--soft); stroke-width: 1; }
.bars .grid { stroke: var(--line); stroke-width: .6; fill: none; } .bars .mid { text-anchor: middle; }
.swatch { display: inline-block; width: 12px; height: 12px; margin: 0 6px 0 18px; vertical-align: -1px;
  background: var(--cand); }
.swatch.float { background: var(--base); margin-left: 0; }
"""

READ = (
    "How to read it: every file had one turn in each round, in an order drawn anew, while all others stood still. Bars "
    "end at the middle call (p50), the line goes on to p90 and, thinner, to p99. A factor in brackets is the 95 % "
    "interval of how many times as fast, from resampling rounds. A pale bar is unreliable: its calls spread by more "
    "than 10 % (quartiles over the median), or never came to rest while warming up."
)


def write_bench(results: Mapping[str, Bench], path: Path) -> Path:
    """One self-contained HTML page at `path` about results by the name of their source; returns the path."""
    style = resources.files("quantward.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    head = (META, tag("title", f"{TITLE} – Quantward"), Markup(f"<style>\n{style}{STYLE}</style>"))
    devices = len(results)
    body = (
        tag("header", tag("p", "Quantward", class_="brand"), tag("h1", TITLE), tag("p", _about(results))),
        tag("main", *_figures(results), *(_device(name, found, devices) for name, found in results.items())),
        tag("footer", tag("p", f"Made with Quantward {quantward.__version__}. For research use only.")),
    )
    page = tag("html", tag("head", *head), tag("body", *body), lang="en")
    write_text(path, f"<!doctype html>\n{page}\n")
    return path


def heading(name: str, found: Bench) -> str:
    """A machine in one line: what it is, and the name of the result's source."""
    told = found.machine
    what = told.get("board") or told.get("processor") or "a machine"
    return f"{name}: {what}, {told.get('cores', '?')} cores"


def gains(row: Efficiency, batch: int) -> list[Speedup]:
    """How many times as fast as what, at one batch size."""
    return [one for one in row.speedups if one.batch == batch]


def told(one: Speedup) -> str:
    """A factor with its interval.

    >>> told(Speedup("fp32 on onnxruntime", 1, 3.96, 3.8, 4.1, 30))
    '4.0× (3.8 to 4.1)'
    """
    return f"{ratio(one.value)} ({number(one.low, 1)} to {number(one.high, 1)})"


def _about(results: Mapping[str, Bench]) -> str:
    rows = [row for found in results.values() for row in found.rows]
    failed = sum(not row.latency for row in rows)
    where = "one machine" if len(results) == 1 else f"{len(results)} machines"
    lost = f"; {failed} could not be timed, for the reason given" if failed else ""
    return f"{len(rows)} combinations of file, runtime and threads on {where}{lost}."


def _figures(results: Mapping[str, Bench]) -> list[Markup]:
    """A figure for each batch size: all devices, rows in their order."""
    batches = sorted({line.batch for found in results.values() for row in found.rows for line in row.latency})
    legend = tag("p", tag("span", "", class_="swatch float"), "FP32", tag("span", "", class_="swatch"), "fewer bits",
                 class_="legend")  # fmt: skip
    sections = []
    for batch in batches:
        drawn = []
        for name, found in results.items():
            lines = [(row, line) for row in found.rows for line in row.latency if line.batch == batch]
            drawn += [(name if len(results) > 1 else "", row, line, gains(row, batch)) for row, line in lines]
        what = "One image at a time" if batch == 1 else f"{batch} images a call"
        sections.append(tag("section", tag("h2", what), legend, bars(drawn)))
    return [*sections, tag("p", READ, class_="read")] if sections else []


def _device(name: str, found: Bench, devices: int) -> Markup:
    """The tables of one machine."""
    parts = [tag("h2", visible(heading(name, found) if devices > 1 else heading(name, found).partition(": ")[2]))]
    timed = [row for row in found.rows if row.latency]
    if timed:
        parts += [_scroll(*_latencies(timed)), _scroll(*_costs(timed))]
    notes = [(row, note) for row in found.rows for note in (*row.notes, *([row.failure] if row.failure else []))]
    if notes:
        items = [
            tag("li", tag("b", visible(_name(row))), tag("p", visible(note)),
                class_="error" if note == row.failure else "warning")
            for row, note in notes
        ]  # fmt: skip
        parts += [tag("h3", "What to know about single rows"), tag("ul", *items, class_="signs")]
    if found.energy:
        parts.append(tag("p", visible(f"No energy: {found.energy}."), class_="absent"))
    facts = {**found.machine, **{f"bench: {key}": value for key, value in found.how.items()}}
    rows = [tag("div", tag("dt", visible(key)), tag("dd", visible(_fact(value)))) for key, value in facts.items()]
    parts.append(tag("details", tag("summary", "The machine and how it was timed"), tag("dl", *rows, class_="facts")))
    return tag("section", *parts)


def _latencies(rows: Sequence[Efficiency]) -> tuple[list[str], list[list[str]]]:
    metered = any(line.joules is not None for row in rows for line in row.latency)
    titles = ["file", "batch", "p50 ms", "p90", "p99", "spread", "calls", "images/s", "peak memory", "times as fast as"]
    if metered:
        titles.insert(9, "mJ an image")
    lines = []
    for row in rows:
        for line in row.latency:
            joules = ABSENT if line.joules is None else number(1000 * line.joules, 1)
            lines.append([
                _name(row), f"{line.batch}", milliseconds(line.p50), milliseconds(line.p90), milliseconds(line.p99),
                _spread(line), f"{line.runs}", number(1000 * line.batch / line.p50, 0) if line.p50 > 0 else ABSENT,
                size(line.peak_bytes), *([joules] if metered else []),
                "; ".join(f"{told(one)} {one.reference}" for one in gains(row, line.batch)) or ABSENT,
            ])  # fmt: skip
    return titles, lines


def _costs(rows: Sequence[Efficiency]) -> tuple[list[str], list[list[str]]]:
    titles = ["file", "size", "making it", "cold start", "opening", "first answer", "library", "process", "sha256"]
    lines = []
    for row in rows:
        cold = row.cold
        parts = () if cold is None else (cold.seconds, cold.file, cold.first, cold.library, cold.process)
        started = [f"{number(1000 * part, 0)} ms" for part in parts] or [ABSENT] * 5
        lines.append([_name(row), size(row.bytes), seconds(row.seconds), *started, row.sha256[:12]])
    return titles, lines


def _spread(line: Latency) -> str:
    return f"{100 * line.spread:.0f} %{'' if line.reliable else ' unreliable'}"


def _name(row: Efficiency) -> str:
    return f"{row.name} · {row.runtime}" + (f" · {row.threads} threads" if row.threads > 1 else "")


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _scroll(titles: Iterable[str], rows: Iterable[Sequence[str]]) -> Markup:
    head = tag("tr", *(tag("th", title) for title in titles))
    lines = [tag("tr", tag("th", visible(row[0])), *(tag("td", visible(cell)) for cell in row[1:])) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *lines), class_="grid"), class_="scroll")
