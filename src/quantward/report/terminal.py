"""Tables for the terminal: the verdict table of a search, a comparison, an evaluation, and findings in data.

Everything reads at 80 columns and without colour: states have words, and names from data sets are printed as text,
never as markup. A console is always given, so that the caller decides between stdout and stderr.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from quantward.core.values import Comparison, Delta, Dossier, Efficiency, Evaluation, Speedup, Verdict
from quantward.report._headline import headline, leading_of
from quantward.report._notes import ece_floor
from quantward.report._rows import Row, Why, verdict_rows
from quantward.report._sentences import flipped, gained, measured_how
from quantward.report._tables import (
    COLOURS,
    MIDDLE,
    NAME,
    empty_table,
    named,
    print_reasons,
    print_rows,
    short,
    stacked,
    state_text,
)
from quantward.report._words import (
    ABSENT,
    OUTCOMES,
    SIGNS,
    Metric,
    bounds,
    change_bounds,
    count,
    deciding,
    meaning,
    metric,
    milliseconds,
    number,
    ordered,
    probability,
    ratio,
    size,
    summary,
    visible,
)

_SEVERITIES = {"error": "bold red", "warning": "bold yellow"}


class Remark(Protocol):
    """Something found in data: a short code, how bad it is, and the sentence."""

    @property
    def code(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def sentence(self) -> str: ...


def open_console(stderr: bool = False) -> Console:
    """A console on stdout or stderr; a stream that cannot hold a sign prints `?` instead of failing."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
        stream.reconfigure(errors="replace")
    return Console(file=stream, highlight=False)


def show_dossier(dossier: Dossier, console: Console) -> None:
    """Print the verdict table of a search, what decided each candidate, and the outcome in one sentence."""
    rows = verdict_rows(dossier.entries, dossier.chosen)
    console.print(_heading(dossier.title))
    if dossier.power:
        console.print(Text(visible(dossier.power), "dim"))
    print_rows(rows, console)
    external = verdict_rows(dossier.external, None)
    if external:
        console.print(_heading("On a second data set"))
        print_rows(external, console)
    console.print(_closing(dossier, rows))


def show_comparison(comparison: Comparison, console: Console, verdict: Verdict | None = None) -> None:
    """Print every difference with its interval, p-value and meaning, the classes, the flips and the verdict."""
    console.print(_heading(f"{comparison.candidate} against {comparison.baseline}"))
    console.print(Text(measured_how(comparison), "dim"))
    table = empty_table("metric")
    for title in ("baseline", "candidate", "difference", "p (Holm)"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("in words")
    for name in ordered(comparison.deltas):
        kind = metric(name)
        table.add_row(Text(kind.words), *_delta(comparison.deltas[name], kind))
    console.print(table)
    sensitivity = comparison.per_class.get("sensitivity")
    if sensitivity:
        kind = metric("sensitivity")
        table = empty_table("sensitivity by class")
        for title in ("images", "baseline", "candidate", "difference", "p (Holm)"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("in words")
        for label, delta in sensitivity.items():
            n = ABSENT if delta.n_positive is None else f"{delta.n_positive:,}"
            table.add_row(Text(visible(label)), n, *_delta(delta, kind))
        console.print(table)
    if any("perhaps" in meaning(d, metric(n)) for n, d in comparison.deltas.items()):
        console.print(
            Text(
                "perhaps: the interval leaves out zero, but the p-value does not stand Holm's correction.",
                "dim",
            )
        )
    console.print(Text(flipped(comparison)))
    cost = gained(comparison, None, None)
    if cost:
        console.print(Text(cost))
    if verdict is not None:
        why = [(visible(f.title or f.code), Why(f.code, "", f.status, visible(f.why))) for f in deciding(verdict)]
        if why:
            console.print()
            print_reasons(why, console)
        line = Text("Verdict: ").append(state_text(OUTCOMES[verdict.outcome], verdict.outcome))
        console.print(line.append(f" ({summary(verdict)})"))


def show_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print every metric with its interval, then the classes, then why anything is missing."""
    console.print(_heading(evaluation.source or "Evaluation"))
    groups = evaluation.notes.get("groups")
    whole = f" of {count(groups, 'group')}" if isinstance(groups, int) else ""
    console.print(Text(f"{count(evaluation.n, 'image')}{whole}; intervals are 95 %.", "dim"))
    table = empty_table("metric")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("interval", justify="right", no_wrap=True)
    table.add_column("meaning", style="dim", overflow="fold")
    for name in ordered(evaluation.overall):
        kind, estimate = metric(name), evaluation.overall[name]
        said = visible(estimate.reason) if estimate.value is None else kind.meaning
        table.add_row(Text(kind.words), kind.value(estimate.value), bounds(estimate, kind), Text(said))
    console.print(table)
    floor = ece_floor(evaluation.notes.get("calibration"))
    if floor:
        console.print(Text(floor, "dim"))
    console.print()
    shown = [n for n in ("sensitivity", "specificity", "auroc", "auprc") if evaluation.per_class.get(n)]
    table = empty_table("class")
    table.add_column("images", justify="right")
    for name in shown:
        table.add_column(metric(name).words.lower() if metric(name).unit == "percent" else metric(name).words,
                         justify="right", no_wrap=True)  # fmt: skip
    for label in evaluation.classes:
        cells: list[str | Text] = [Text(visible(label)), f"{evaluation.counts.get(label, 0):,}"]
        for name in shown:
            one = evaluation.per_class[name].get(label)
            cells.append(stacked(ABSENT if one is None else metric(name).value(one.value), bounds(one, metric(name))))
        table.add_row(*cells)
    console.print(table)


def show_efficiency(costs: Sequence[Efficiency], console: Console, energy: str = "") -> None:
    """Print size, latency percentiles, throughput and cold start of some files, and how many times as fast each is: as
    what was timed along with it, else as the first one. `energy` says why there are no joules."""
    machines = dict.fromkeys(visible(cost.machine) for cost in costs if cost.machine)
    console.print(_heading("; ".join(machines) or "Efficiency"))
    timed = [cost for cost in costs if cost.latency or not cost.failure]
    if timed:
        console.print(_speed_table(timed, console.width >= MIDDLE))
    if any(not line.reliable for cost in costs for line in cost.latency):
        console.print(Text("* timed on a machine too noisy to rely on", "dim"))
    told = [(_placed(cost), Why("", "", "failed", visible(cost.failure))) for cost in costs if cost.failure]
    told += [(_placed(cost), Why("", "", "warning", visible(note))) for cost in costs for note in cost.notes]
    if told:
        console.print()
        print_reasons(told, console)
    if energy:
        console.print(Text(f"No energy: {visible(energy)}.", "dim"))


def _speed_table(costs: Sequence[Efficiency], room: bool) -> Table:
    """With `room`, memory and cold start too, where they were measured."""
    table = empty_table("file")
    wide = ("peak", "cold start") if room and any(cost.cold for cost in costs) else ()
    eager = any(_is_eager(one) for cost in costs for one in cost.speedups)
    gains = ("× FP32", "× eager") if eager else ("faster",)
    for title in ("size", *wide, "batch", "p50 ms", "p90", "p99", *gains, "images/s"):
        table.add_column(title, justify="right", no_wrap=True)
    first = {line.batch: line.p50 for line in costs[0].latency}
    compared = any(cost.speedups for cost in costs)
    for cost in costs:
        lines = cost.latency
        factors = [{one.batch: one.value for one in cost.speedups if _is_eager(one) == kind} for kind in (False, eager)]
        if not compared and cost is not costs[0]:
            factors[0] = {x.batch: first[x.batch] / x.p50 for x in lines if x.batch in first and x.p50 > 0}
        where = visible(cost.runtime) + (f", {cost.threads} threads" if cost.threads > 1 else "")
        start = ABSENT if cost.cold is None else f"{number(1000 * cost.cold.seconds, 0)} ms"
        table.add_row(
            Text(named(visible(cost.name), NAME), "bold").append(f"\n{where}", "not bold dim"),
            size(cost.bytes),
            *((size(cost.peak_bytes), start) if wide else ()),
            "\n".join(str(x.batch) for x in lines) or ABSENT,
            "\n".join(milliseconds(x.p50) + ("" if x.reliable else "*") for x in lines) or ABSENT,
            "\n".join(milliseconds(x.p90) for x in lines) or ABSENT,
            "\n".join(milliseconds(x.p99) for x in lines) or ABSENT,
            *(
                "\n".join(ratio(found[x.batch]) if x.batch in found else "" for x in lines)
                for found in factors[: len(gains)]
            ),
            ABSENT if cost.throughput is None else number(cost.throughput, 0),
        )
    return table


def _is_eager(one: Speedup) -> bool:
    return one.reference.endswith(" on torch-float")


def _placed(cost: Efficiency) -> str:
    return f"{visible(cost.name)}, {visible(cost.runtime)}"


def show_findings(findings: Iterable[Remark | Mapping[str, Any]], console: Console, title: str = "") -> None:
    """Print what was found in data, worst first: severity, code, sentence."""
    rows = []
    for item in findings:
        if isinstance(item, Mapping):
            rows.append((str(item["severity"]), str(item["code"]), str(item["sentence"])))
        else:
            rows.append((item.severity, item.code, item.sentence))
    if title:
        console.print(_heading(title))
    if not rows:
        console.print(Text("Nothing was found.", "green"))
        return
    order = ["error", "warning"]
    rows.sort(key=lambda row: order.index(row[0]) if row[0] in order else len(order))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(max_width=26, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for severity, code, sentence in rows:
        table.add_row(
            Text(visible(severity), _SEVERITIES.get(severity, "dim")),
            Text(visible(code), "bold"),
            Text(visible(sentence)),
        )
    console.print(table)
    totals = {severity: sum(row[0] == severity for row in rows) for severity, _, _ in rows}
    parts = [
        count(amount, severity) if severity in order else f"{amount:,} {severity}"
        for severity, amount in totals.items()
    ]
    console.print(Text(", ".join(parts) + ".", "dim"))


def _heading(text: str) -> Padding:
    return Padding(Text(visible(text), "bold"), (1, 0, 0, 0))


def _delta(delta: Delta, kind: Metric) -> tuple[str | Text, ...]:
    words = meaning(delta, kind)
    colour = {"better": "green", "worse": "red"}.get(words, "")
    p = probability(delta.p if delta.p_holm is None else delta.p_holm)
    change = stacked(kind.change(delta.delta), short(change_bounds(delta, kind)))
    return kind.value(delta.baseline), kind.value(delta.candidate), change, p, Text(words, colour)


def _closing(dossier: Dossier, rows: Sequence[Row]) -> Padding:
    said = headline(dossier, leading_of(dossier), rows, "dossier")
    text = Text(f"{SIGNS[said.state]} {said.sentence}", COLOURS.get(said.state, "bold"))
    for line in said.lines:
        text.append(f" {line}", "not bold default")
    return Padding(text, (1, 0, 0, 0))
