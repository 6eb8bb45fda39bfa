"""A study as one page, and its tables as files: `quantward report FOLDER`, and what `quantward study` ends with.

The page has the look of every other report of the house, loads nothing and runs no script. It can be made while the
study still runs: what is not there yet says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

import quantward
from quantward.core.registry import Registry
from quantward.core.store import write_text
from quantward.report import _knowledge as knowledge
from quantward.report._svg import tag
from quantward.report._words import ABSENT, SIGNS, count, visible
from quantward.report.front import META
from quantward.report.html import breakable, fact
from quantward.report.speed import STYLE as BARS
from quantward.study.export import latex_of, write_tables
from quantward.study.figures._plot import STYLE as PLOTS
from quantward.study.reading import read
from quantward.study.record import WAITING, Record
from quantward.study.sheets import Cell, Drawing, Sheet

TABLES = Registry("table", "quantward.study.tables")
FIGURES = Registry("figure", "quantward.study.figures")

PAGE, FOLDER = "report.html", "tables"

MOST = 150
"""Rows of one table on the page; its CSV has them all."""

EMPTY: tuple[Any, ...] = (None, [], {}, "", 0)
"""Settings that say nothing."""

WIDEST = 40
"""Columns of one table on the page."""

NARROW = 4
"""Columns up to which a table is no wider than it must be."""

COPIED = 40
"""Rows up to which the page holds a table's LaTeX, to be copied with one click."""

STYLE = """
.study .bars { min-width: 760px; }
.study .state { min-width: 92px; } .study .state .badge { white-space: normal; }
.study td small.paper { color: var(--fail); } .study td .why { border-bottom: 1px dotted var(--soft); cursor: help; }
.study td.failed { color: var(--fail); white-space: normal; } .study td.failed[colspan] { max-width: 90ch; }
.study tbody th { font-weight: 500; max-width: 280px; overflow-wrap: break-word; min-width: 76px; }
.study tbody th:first-child { font-weight: 600; } .study thead th { max-width: 150px; overflow-wrap: break-word; }
.study td.words { max-width: 300px; min-width: 120px; }
.study .narrow { width: auto; min-width: min(420px, 100%); }
.files { font-size: 12.5px; color: var(--soft); margin: 6px 0 0; }
.copy { user-select: all; -webkit-user-select: all; font-size: 11.5px; overflow-x: auto; background: var(--sheet);
  padding: 10px 12px; margin: 0; white-space: pre; }
.part { margin-top: 34px; } .part > h3 { margin-top: 0; } .part + .part { margin-top: 40px; }
.part > details { margin-top: 4px; border: 0; padding: 2px 0; font-size: 12.5px; }
.part summary { font-weight: 400; color: var(--soft); }
@media print { .study { font-size: 8.5pt; } .part, .graph { break-inside: avoid; } .copy { display: none; } }
"""


@dataclass(frozen=True)
class Shown:
    """All that a page shows: tables, figures, and what a study asked for that could not be made."""

    sheets: tuple[Sheet, ...]
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class Written:
    """What a report left: the page, each table's CSV and LaTeX by name, and what it was made of."""

    page: Path
    tables: Mapping[str, tuple[Path, Path]]
    record: Record

    def document(self) -> dict[str, Any]:
        """Plain data: paths, and how many rows are finished, failed and waiting."""
        waiting = sum(line.failure == WAITING for line in self.record.lines)
        done = len(self.record.finished)
        rows = {"finished": done, "failed": len(self.record.lines) - done - waiting, "waiting": waiting}
        tables = {name: {"csv": paths[0], "latex": paths[1]} for name, paths in self.tables.items()}
        return {"report": self.page, "rows": rows, "tables": tables}


def write(folder: Path) -> Path:
    """Write `report.html` and the tables (CSV, LaTeX, in `tables/`) of the study in `folder`; returns the page's path.

    Raises Refused where there is no study, UsageError for a table or figure that does not exist.
    """
    return write_all(folder).page


def write_all(folder: Path) -> Written:
    """The same, with all that was written."""
    record = read(folder)
    shown = show(record)
    files = write_tables(shown.sheets, folder / FOLDER)
    path = folder / PAGE
    write_text(path, f"<!doctype html>\n{page(record, shown, files)}\n")
    return Written(path, files, record)


def show(record: Record) -> Shown:
    """The tables and figures that the study names, the paper's figures first and every row last."""
    tables = [str(name) for name in record.study.get("tables") or ()]
    named = {name.partition(":")[0] for name in tables}
    first = ["mission"] if record.papers and "mission" not in named else []
    last = [] if "rows" in named else ["rows"]
    sheets = [sheet for name in [*first, *tables, *last] for sheet in TABLES.make(name).sheets(record)]
    drawings = [one for name in record.study.get("figures") or () for one in FIGURES.make(str(name)).draw(record)]
    return Shown(tuple(_apart(sheets)), tuple(drawings))


def _apart(sheets: Sequence[Sheet]) -> list[Sheet]:
    """Tables of one name, asked for with other options, numbered: each has files of its own."""
    seen: Counter[str] = Counter()
    found = []
    for sheet in sheets:
        seen[sheet.name] += 1
        found.append(sheet if seen[sheet.name] == 1 else replace(sheet, name=f"{sheet.name}-{seen[sheet.name]}"))
    return found


def page(record: Record, shown: Shown, files: Mapping[str, tuple[Path, Path]]) -> Markup:
    """The whole document."""
    title = visible(record.study.get("title") or record.name)
    style = resources.files("quantward.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    sections = _sections(record, shown, files)
    head = (META, Markup('<meta name="color-scheme" content="light dark">'), tag("title", f"{title} – Quantward"),
            Markup(f"<style>\n{style}{BARS}{PLOTS}{STYLE}</style>"))  # fmt: skip
    brand = tag("p", "Quantward", tag("span", "study"), class_="brand")
    links = [tag("li", tag("a", name, href=f"#{key}")) for key, name, _ in sections]
    made = f"Made with Quantward {quantward.__version__}. For research use only."
    body = (
        tag("header", brand, tag("h1", title), *_paper(record)),
        tag("nav", tag("ol", *links), aria_label="Contents"),
        tag("main", _headline(record), _notice(), *(content for _, _, content in sections), class_="study"),
        tag("footer", tag("p", made)),
    )
    return tag("html", tag("head", *head), tag("body", *body), lang="en")


def _paper(record: Record) -> list[Markup]:
    """The paper that the study follows."""
    paper = record.study.get("paper") or {}
    cited = paper.get("citation") if isinstance(paper, Mapping) else paper
    return [tag("p", f"After: {visible(cited)}", class_="how")] if cited else []


def _notice() -> Markup:
    return tag("p", tag("b", "For research use only."), " ", knowledge.NOTICE.replace("For research use only. ", ""),
               class_="notice")  # fmt: skip


def _headline(record: Record) -> Markup:
    """How far the study is, and what the gates said."""
    waiting = sum(line.failure == WAITING for line in record.lines)
    failed = len(record.lines) - len(record.finished) - waiting
    said = Counter(_outcome(line.facts.get("verdict")) for line in record.finished)
    state = "fail" if failed else "undecided" if waiting else "pass"
    if failed or waiting:
        what = [f"{failed} failed" * bool(failed), f"{waiting} not carried out yet" * bool(waiting)]
        sentence = f"{len(record.finished):,} of {count(len(record.lines), 'row')} have a result; "
        sentence += " and ".join(part for part in what if part)
    else:
        sentence = "All " * (len(record.lines) > 1) + f"{count(len(record.lines), 'row')} of the study have a result"
    judged = [f"{number:,} {word}" for outcome, word in
              (("PASS", "passed"), ("FAIL", "failed"), ("INSUFFICIENT EVIDENCE", "undecided"))
              if (number := said[outcome])]  # fmt: skip
    gates = record.study.get("gates")
    by = f"By the gates {visible(gates)}" if isinstance(gates, str) else "By its gates"
    lines = [f"{by}: {', '.join(judged)}."] if judged else []
    if record.scale and record.scale != "full":
        lines.append(f"Carried out at the scale {visible(record.scale)}, not at the paper's.")
    seal = tag("span", SIGNS[state], class_="seal", aria_hidden="true")
    return tag("section", tag("h2", seal, f"{sentence}."), *(tag("p", line) for line in lines),
               class_=f"headline {state}", id="found")  # fmt: skip


def _outcome(said: Any) -> str:
    return str(said.get("outcome", "") if isinstance(said, Mapping) else said or "")


def _sections(
    record: Record, shown: Shown, files: Mapping[str, tuple[Path, Path]]
) -> list[tuple[str, str, Markup]]:  # fmt: skip
    """(anchor, title, content) of each section that has something to say."""
    first = [_sheet(sheet, files) for sheet in shown.sheets if sheet.name == "mission"]
    tables = [_sheet(sheet, files) for sheet in shown.sheets if sheet.name not in ("mission", "rows")]
    rows = [_sheet(sheet, files) for sheet in shown.sheets if sheet.name == "rows"]
    reads = [one.read for one in shown.drawings]
    drawings = [_drawing(one, reads[i + 1 : i + 2] != [one.read]) for i, one in enumerate(shown.drawings)]
    cut = [tag("li", visible(line)) for line in record.study.get("cut") or ()]
    parts = [
        ("paper", "Beside the paper", first),
        ("tables", "Tables", tables),
        ("figures", "Figures", drawings),
        ("cut", "What was left out, and why", [tag("ul", *cut, class_="plain")] if cut else []),
        ("rows", "Every row", rows),
        ("failed", "What failed", _failed(record)),
        ("how", "How it was carried out", _how(record)),
    ]
    return [(key, name, tag("section", tag("h2", name), *content, id=key)) for key, name, content in parts if content]


def _sheet(sheet: Sheet, files: Mapping[str, tuple[Path, Path]]) -> Markup:
    """One table with its files; a long one is cut on the page."""
    title = tag("h3", visible(sheet.title))
    if not sheet.rows:
        return tag("div", title, tag("p", visible(sheet.absent or "Nothing to show."), class_="absent"), class_="part")
    columns = sheet.columns[:WIDEST]
    right = [any(row[i].value is not None for row in sheet.rows) for i in range(len(columns))]
    head = tag("tr", *(tag("th", breakable(visible(name)), scope="col", class_="n" if number else None)
                       for name, number in zip(columns, right, strict=True)))  # fmt: skip
    rows = [_row(row[:WIDEST], sheet.named, right) for row in sheet.rows[:MOST]]
    caption = [tag("caption", visible(sheet.caption))] if sheet.caption else []
    kind = "grid" if len(right) > NARROW else "grid narrow"
    table = tag("table", *caption, tag("thead", head), tag("tbody", *rows), class_=kind)
    parts = [title, tag("div", table, class_="scroll")]
    if sheet.read:
        parts.append(tag("p", f"How to read it: {sheet.read}", class_="read"))
    links = [tag("a", kind, href=f"{FOLDER}/{path.name}")
             for kind, path in zip(("CSV", "LaTeX"), files.get(sheet.name, ()), strict=False)]  # fmt: skip
    rest = f"The first {MOST} of {len(sheet.rows):,} rows; all of them are in the CSV. " * (len(sheet.rows) > MOST)
    rest += f"The first {WIDEST} of {len(sheet.columns):,} columns likewise. " * (len(sheet.columns) > WIDEST)
    if links:
        parts.append(tag("p", rest, "Files: ", links[0], " · ", links[1], class_="files"))
    if len(sheet.rows) <= COPIED and len(sheet.columns) <= WIDEST:
        parts.append(tag("details", tag("summary", "LaTeX to copy"), tag("pre", latex_of(sheet), class_="copy")))
    return tag("div", *parts, class_="part")


def _row(row: Sequence[Cell], named: int, right: Sequence[bool]) -> Markup:
    """A row; where it failed, its reason takes the room of all its figures."""
    cells = []
    for i, cell in enumerate(row):
        if cell.state == "lost":
            rest = len(row) - i
            cells.append(tag("td", visible(cell.text), class_="failed", colspan=str(rest) if rest > 1 else None))
            break
        cells.append(_cell(cell, i < named, right[i]))
    return tag("tr", *cells)


def _cell(cell: Cell, names: bool, number: bool) -> Markup:
    """A cell: figure, interval and the paper's figure below each other; the reason of an absent one as its tooltip."""
    kind = "n" if number else None
    if cell.state in ("pass", "fail", "undecided", "none"):
        sign = tag("span", SIGNS.get(cell.state, SIGNS["baseline"]), aria_hidden="true")
        badge = tag("span", sign, " ", cell.text, class_=f"badge {cell.state}", title=cell.why or None)
        return tag("td", badge, class_="state")
    if cell.state == "failed":
        return tag("td", visible(cell.text), class_="failed", title=visible(cell.why))
    words = breakable(visible(cell.text)) if names else _figure(cell)
    below = [tag("small", cell.under)] if cell.under else []
    below += [tag("small", f"paper {cell.paper}", class_="paper")] if cell.paper else []
    if names:
        return tag("th", words, *below, scope="row", class_=kind)
    return tag("td", words, *below, class_=kind or ("words" if len(cell.text) > 30 else None))


def _figure(cell: Cell) -> Markup:
    """The figure, with its reason behind it where it is absent or not whole."""
    if cell.why and (cell.text == ABSENT or cell.text.endswith(("†", "*"))):
        return tag("span", visible(cell.text), class_="why", title=visible(cell.why))
    return Markup("").join([visible(cell.text)])


def _drawing(one: Drawing, last: bool) -> Markup:
    """One figure; how to read it stands once under several of a kind."""
    title = tag("h3", visible(one.title))
    if one.absent:
        return tag("div", title, tag("p", visible(one.absent), class_="absent"), class_="part")
    parts = [tag("p", visible(one.caption), class_="how")] if one.caption else []
    read_it = [tag("p", f"How to read it: {one.read}", class_="read")] if one.read and last else []
    return tag("div", title, *parts, one.content, *read_it, class_="part")


def _failed(record: Record) -> list[Markup]:
    """Every reason once, with the rows it took."""
    by_reason: dict[str, list[str]] = {}
    for line in record.lines:
        if line.failure and line.failure != WAITING:
            place = " · ".join(part for part in (line.row.data, line.row.backbone, line.row.recipe, line.row.lesson,
                                                 line.row.target, line.row.runtime) if part)  # fmt: skip
            by_reason.setdefault(line.failure, []).append(place)
    items = []
    for reason, places in by_reason.items():
        shown = "; ".join(places[:5]) + (f"; and {len(places) - 5} more" if len(places) > 5 else "")
        items.append(tag("li", tag("b", visible(reason)), tag("small", visible(shown)), class_="error"))
    return [tag("ul", *items, class_="signs")] if items else []


def _how(record: Record) -> list[Markup]:
    """The command, the study file's settings, and the machines."""
    told = ("data", "folds", "seed", "backbones", "weights", "size", "stages", "teachers", "recipes", "lessons", "vary",
            "targets", "runtimes", "threads", "gates", "replicates", "bench", "drift", "sensitivity")  # fmt: skip
    rows = [("command", record.command)] if record.command else []
    rows += [(name, _told(record.study[name])) for name in told if record.study.get(name) not in EMPTY]
    rows += [("machine", _told(machine)) for machine in record.machines[:5]]
    items = [tag("div", tag("dt", name), tag("dd", breakable(visible(value)))) for name, value in rows]
    warnings = [tag("li", tag("p", visible(line)), class_="warning") for line in record.study.get("warnings") or ()]
    found = [tag("h3", "What was found in the images"), tag("ul", *warnings, class_="signs")] if warnings else []
    return ([tag("dl", *items, class_="facts")] if items else []) + found


def _told(value: Any) -> str:
    """Settings on one line, those that are empty left out."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_told(item)}" for key, item in value.items() if item not in EMPTY)
    if isinstance(value, (list, tuple)):
        return "; ".join(_told(item) or "plain" for item in value)
    return fact(value) if not isinstance(value, str) else value
