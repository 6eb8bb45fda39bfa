"""A study's tables for other programs: CSV to compute on, LaTeX (booktabs) to print, MLflow to track."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from quantward.core.cells import to_cell
from quantward.core.errors import Refused, UsageError
from quantward.core.store import plain, write_text
from quantward.report._words import visible
from quantward.study.record import COORDINATES, Line, Record
from quantward.study.sheets import Cell, Sheet

_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_\allowbreak{}", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "±": r"$\pm$", "×": r"$\times$",
    "†": r"\textdagger{}", "·": r"\textperiodcentered{}", "–": "--", "…": r"\dots{}", "<": r"\textless{}",
    ">": r"\textgreater{}",
})  # fmt: skip


def csv_of(sheet: Sheet) -> str:
    """A table as CSV. A column with figures becomes up to four (figure, low, high, the paper's) in the unit of its
    title; the last column says why figures are absent."""
    columns = list(zip(*sheet.rows, strict=True)) or [() for _ in sheet.columns]
    wide = [_parts(title, cells) for title, cells in zip(sheet.columns, columns, strict=True)]
    header = [name for parts in wide for name, _ in parts]
    whys = [_why(sheet.columns, row) for row in sheet.rows]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*map(to_cell, header), *(["why"] if any(whys) else [])])
    for i, why in enumerate(whys):
        row = [values[i] for parts in wide for _, values in parts]
        writer.writerow([*map(to_cell, row), *([to_cell(why)] if any(whys) else [])])
    return stream.getvalue()


def _parts(title: str, cells: Sequence[Cell]) -> list[tuple[str, list[str]]]:
    if not any(cell.value is not None or cell.published is not None for cell in cells):
        return [(title, [cell.text for cell in cells])]
    numbers = {
        title: [_number(cell.value) if cell.numeric else cell.text for cell in cells],
        f"{title} (low)": [_number(cell.low) for cell in cells],
        f"{title} (high)": [_number(cell.high) for cell in cells],
        f"{title} (paper)": [_number(cell.published) for cell in cells],
    }
    return [(name, values) for name, values in numbers.items() if name == title or any(values)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _why(columns: Sequence[str], row: Sequence[Cell]) -> str:
    """The reasons of absent figures in one row, each once."""
    found: dict[str, list[str]] = {}
    for title, cell in zip(columns, row, strict=True):
        if cell.why and cell.value is None:
            found.setdefault(cell.why, []).append(title)
    return "; ".join(why if len(titles) > 3 else f"{', '.join(titles)}: {why}" for why, titles in found.items())


def latex_of(sheet: Sheet) -> str:
    r"""A table for LaTeX with the package booktabs; intervals and the paper's figures (in brackets) stand small.

    >>> from quantward.study.sheets import Cell, Sheet
    >>> print(latex_of(Sheet("t", "T", ("recipe", "Accuracy, %"), ((Cell("int8_a"), Cell("92.1", "90 to 94")),))))
    % T
    \begin{tabular}{ll}
    \toprule
    recipe & Accuracy, \% \\
    \midrule
    int8\_\allowbreak{}a & 92.1 {\scriptsize 90 to 94} \\
    \bottomrule
    \end{tabular}
    <BLANKLINE>
    """
    right = [any(row[i].value is not None for row in sheet.rows) for i in range(len(sheet.columns))]
    lines = [
        f"% {visible(sheet.title)}",
        rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in right)}}}",
        r"\toprule",
        " & ".join(map(latex_text, sheet.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_latex_cell, row)) + r" \\" for row in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    parts = [latex_text(cell.text)]
    parts += [rf"{{\scriptsize {latex_text(cell.under)}}}"] if cell.under else []
    parts += [rf"{{\scriptsize [{latex_text(cell.paper)}]}}"] if cell.paper else []
    return " ".join(parts)


@lru_cache(maxsize=16384)
def latex_text(words: str) -> str:
    r"""Any text so that LaTeX prints it and runs nothing.

    >>> latex_text(r"50 % of a_b \input{x}")
    '50 \\% of a\\_\\allowbreak{}b \\textbackslash{}input\\{x\\}'
    """
    return visible(words).translate(_LATEX)


def write_tables(sheets: Sequence[Sheet], folder: Path) -> dict[str, tuple[Path, Path]]:
    """Every table that has rows as NAME.csv and NAME.tex in `folder`; returns both paths by the table's name."""
    found = {}
    for sheet in sheets:
        if sheet.rows:
            stem = folder / file_name(sheet.name)
            paths = (stem.with_name(f"{stem.name}.csv"), stem.with_name(f"{stem.name}.tex"))
            write_text(paths[0], csv_of(sheet))
            write_text(paths[1], latex_of(sheet))
            found[sheet.name] = paths
    return found


def file_name(name: str) -> str:
    """A table's name as a file's: letters, digits, dot and dash.

    >>> file_name("per-class-skin/../x-vit")
    'per-class-skin_.._x-vit'
    """
    return re.sub(r"[^\w.-]", "_", name)[:120]


def to_mlflow(record: Record, address: str) -> tuple[int, int]:
    """Each row of a study as a run of an MLflow experiment that is named like the study: its coordinates as parameters,
    its figures as metrics, verdict and key as tags, evaluation and comparison as artifacts. Returns how many runs were
    added, and how many were there already (the same result is never added twice).

    Raises UsageError where MLflow is not installed, Refused where the place cannot be reached.
    """
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError:
        raise UsageError(
            "Expected MLflow for --mlflow; it is not installed. Run: pip install 'quantward[mlflow]'"
        ) from None
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own default waits for minutes
    try:
        client = mlflow.MlflowClient(tracking_uri=address)
        found = client.get_experiment_by_name(record.name)
        experiment = found.experiment_id if found is not None else client.create_experiment(record.name)
        known = _known(client, experiment)
        added = there = 0
        for line in record.lines:
            if line.row.score in known:
                there += 1
            elif not line.failure:
                _add(client, experiment, line)
                added += 1
        return added, there
    except (MlflowException, OSError) as error:
        raise Refused(f"Expected an MLflow store at {address}; {visible(error)}. Check the address.") from None


def _known(client: Any, experiment: str) -> set[str]:
    """Keys of the rows that have a finished run."""
    known: set[str] = set()
    token = None
    while True:
        page = client.search_runs([experiment], "attributes.status = 'FINISHED'", max_results=1000, page_token=token)
        known |= {run.data.tags.get("quantward.key", "") for run in page}
        token = page.token
        if not token:
            return known - {""}


def _add(client: Any, experiment: str, line: Line) -> None:
    from mlflow.entities import Metric, Param, RunTag

    verdict = line.facts.get("verdict")
    verdict = verdict.get("outcome") if isinstance(verdict, dict) else verdict
    tags = {"quantward.key": line.row.score, "verdict": verdict or "baseline"}
    run = client.create_run(experiment, run_name=" · ".join(part for name in COORDINATES if (part := line.at(name))))
    now = run.info.start_time
    metrics = [Metric(name, value, now, 0) for name, value in figures(line).items()]
    params = [Param(name, line.at(name) or "-") for name in COORDINATES]
    client.log_batch(run.info.run_id, params=params, tags=[RunTag(*item) for item in tags.items()])
    for start in range(0, len(metrics), 500):
        client.log_batch(run.info.run_id, metrics=metrics[start : start + 500])
    for name in ("evaluation.json", "comparison.json"):
        if whole := line.document(name):
            client.log_dict(run.info.run_id, plain(whole), name)
    client.set_terminated(run.info.run_id)


def figures(line: Line) -> dict[str, float]:
    """Every number of a row by a flat name (`auroc`, `auroc_low`, `delta_auroc`, `p50_batch1`, ...)."""
    found: dict[str, Any] = {}
    for name, one in line.facts.get("metrics", {}).items():
        found.update({name: one.get("value"), f"{name}_low": one.get("low"), f"{name}_high": one.get("high")})
    for name, one in line.facts.get("deltas", {}).items():
        found.update({f"delta_{name}": one.get("delta"), f"delta_{name}_low": one.get("low"),
                      f"delta_{name}_high": one.get("high"), f"p_{name}": one.get("p")})  # fmt: skip
    found.update({name: line.facts.get(name) for name in ("n", "bytes", "agreement", "integer_share")})
    found["times_smaller"] = line.smaller
    for timed in line.timed:
        for one in timed.get("latency", ()):
            found.update({f"{what}_batch{one['batch']}": one[what] for what in ("p50", "p90", "p99")})
    for name, one in line.drift.items():
        found[f"drift_{name}"] = one.get("mean", one.get("value")) if isinstance(one, Mapping) else one
    return {re.sub(r"[^\w./ -]", "_", name): float(value) for name, value in found.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)}  # fmt: skip
