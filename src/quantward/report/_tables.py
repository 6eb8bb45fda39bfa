"""The verdict table in the terminal, in the widest form that fits, and the blocks the other tables share with it."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantward.report._rows import Row, Why
from quantward.report._words import ABSENT, SIGNS, STATES, count

WIDE, MIDDLE = 136, 96
"""From the first width on the verdict has a column of its own, from the second on size and speed have one each."""

NAME = 24
"""Characters of a candidate's name on one line."""

MOST = 3
"""How many reasons are printed for one candidate; the page has them all."""

COLOURS = {"pass": "bold green", "fail": "bold red", "failed": "bold red", "undecided": "bold yellow",
           "error": "bold red", "warning": "bold yellow"}  # fmt: skip


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """The verdict table in the form that fits, and what decided each candidate."""
    console.print(_wide(rows) if console.width >= WIDE else _narrow(rows, console.width < MIDDLE))
    if any(row.noisy for row in rows):
        console.print(Text("* timed on a machine too noisy to rely on", "dim"))
    reasons = [(row.name, why) for row in rows for why in (*_shortened(row.why, "more gate"), *row.signs)]
    if reasons:
        console.print()
        print_reasons(reasons, console)


def _shortened(found: Sequence[Why], what: str) -> list[Why]:
    """The first few reasons, then how many are left out."""
    rest = len(found) - MOST
    return [*found[:MOST], *([Why("", "", "", f"and {count(rest, what)}")] if rest > 0 else [])]


def print_reasons(reasons: Sequence[tuple[str, Why]], console: Console) -> None:
    """What decided and what was found, under the name of each candidate (or gate); a reason without a state is an
    aside."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(max_width=NAME, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for i, (name, why) in enumerate(reasons):
        if why.state:
            said = state_text(why.state, STATES.get(why.state, why.state)).append("  ", "")
            if why.title:
                said.append(f"{why.title}. ", "bold")
            said.append(why.sentence, "default not bold")
        else:
            said = Text(why.sentence, "dim")
        table.add_row(Text("" if i and name == reasons[i - 1][0] else named(name, NAME), "bold"), said)
    console.print(table)


def _wide(rows: Sequence[Row]) -> Table:
    table = empty_table("candidate")
    table.add_column("verdict")
    for title in ("accuracy", "difference", "AUROC", "AUPRC", "ECE diff.", "flips", "file", "one image"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        where = "\n".join(part for part in (row.recipe if row.recipe != row.name else "", row.runtime) if part)
        shown = named(row.name, NAME)
        name = stacked(shown, where)
        name.stylize("bold", 0, len(shown))
        table.add_row(
            name,
            _verdict(row),
            stacked(row.accuracy, row.accuracy_bounds),
            stacked(row.change, row.change_bounds),
            row.auroc,
            row.auprc,
            row.ece,
            row.flips,
            stacked(row.size, "" if row.smaller == ABSENT else f"{row.smaller} smaller"),
            stacked(row.p50 + ("*" if row.noisy else ""), "" if row.faster == ABSENT else f"{row.faster} as fast"),
        )
    return table


def _narrow(rows: Sequence[Row], tight: bool) -> Table:
    """The verdict under the name; when `tight` also one column for size and speed."""
    table = empty_table("candidate")
    titles = ("accuracy", "difference\n(points)", "AUROC\nAUPRC", "ECE\ndiff.", "flips")
    for title in (*titles, *(("smaller\nfaster",) if tight else ("file", "one\nimage"))):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        if tight:
            cost: tuple[str | Text, ...] = (f"{row.smaller}\n{row.faster}{'*' if row.noisy else ''}",)
        else:
            cost = (
                stacked(row.size, "" if row.smaller == ABSENT else row.smaller),
                stacked(row.p50 + ("*" if row.noisy else ""), "" if row.faster == ABSENT else row.faster),
            )
        table.add_row(
            Text(named(row.name, NAME), "bold").append("\n").append(_verdict(row)),
            stacked(row.accuracy, short(row.accuracy_bounds)),
            stacked(row.change, short(row.change_bounds)),
            f"{row.auroc}\n{row.auprc}",
            row.ece,
            row.flips,
            *cost,
        )
    return table


def _verdict(row: Row) -> Text:
    text = state_text(row.state, row.outcome)
    return text.append(" (chosen)", "green") if row.chosen else text


def empty_table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    table.add_column(first, overflow="fold")
    return table


def state_text(state: str, words: str) -> Text:
    return Text(f"{SIGNS[state]} {words}", COLOURS.get(state, "dim"))


def stacked(first: str, second: str) -> Text:
    """A figure with its interval under it."""
    text = Text(first)
    return text.append(f"\n{second}", "dim") if second else text


def short(text: str) -> str:
    """An interval with less between its bounds, for narrow terminals.

    >>> short("−1.1 to +0.5")
    '−1.1…+0.5'
    """
    return text.replace(" to ", "…")


def named(name: str, room: int) -> str:
    """A recipe's spelling on lines that fit: broken after `:`, then after each comma.

    >>> named("int8-static:calibrator=entropy,samples=200", 30)
    'int8-static:\\n calibrator=entropy,\\n samples=200'
    """
    if len(name) <= room:
        return name
    head, colon, options = name.partition(":")
    rest = options.replace(",", ",\n ") if len(options) >= room else options
    return f"{head}{colon}\n {rest}" if colon else name
