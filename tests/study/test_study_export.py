"""What leaves as CSV, LaTeX or MLflow is what the study found, and harms nobody who opens it."""

from __future__ import annotations

import csv
import io
import re
import sys
from pathlib import Path

import made_study
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantward.core.errors import Refused, UsageError
from quantward.study.export import csv_of, figures, file_name, latex_of, latex_text, to_mlflow, write_tables
from quantward.study.measures import of
from quantward.study.reading import read
from quantward.study.record import Record
from quantward.study.sheets import Cell, Sheet
from quantward.study.tables.rows import Rows

SHEET = Sheet(
    "one",
    "One table",
    ("recipe", "AUROC", "verdict"),
    (
        (Cell("fp32"), Cell("0.973", "0.961 to 0.982", "0.99", value=0.9731234, low=0.961, high=0.982, published=0.99),
         Cell("baseline", state="none")),
        (Cell("=cmd()"), Cell("–", why="a class is absent"), Cell("pass", state="pass")),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    file = made_study.study(backbones=["resnet18"])
    return read(made_study.make(tmp_path_factory.mktemp("study"), file, broken=["fp16"]))


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_a_csv_has_every_bound_and_every_reason() -> None:
    assert rows_of(csv_of(SHEET)) == [
        ["recipe", "AUROC", "AUROC (low)", "AUROC (high)", "AUROC (paper)", "verdict", "why"],
        ["fp32", "0.9731234", "0.961", "0.982", "0.99", "baseline", ""],
        ["'=cmd()", "", "", "", "", "pass", "AUROC: a class is absent"],
    ]


def test_a_csv_of_a_real_table_reads_back_to_its_figures(record: Record) -> None:
    head, *rows = rows_of(csv_of(Rows().sheets(record)[0]))
    assert len(rows) == len(record.lines)
    for line, row in zip(record.lines, rows, strict=True):
        told = dict(zip(head, row, strict=True))
        assert told["recipe"].removeprefix("'") == line.row.recipe
        found = of(line, "accuracy")
        if found.value is None:
            assert "Expected fp16" in row[1] and not told["AUROC"]
        else:
            assert float(told["Accuracy, %"]) == pytest.approx(100 * found.value)
            assert float(told["Accuracy, % (low)"]) == pytest.approx(100 * (found.low or 0))


def test_latex_has_as_many_cells_as_columns(record: Record) -> None:
    for sheet in (SHEET, Rows().sheets(record)[0]):
        text = latex_of(sheet)
        body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
        assert len(body) == len(sheet.rows)
        assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {len(sheet.columns) - 1}
        spec = re.search(r"\\begin{tabular}{([lr]+)}", text)
        assert spec is not None and len(spec[1]) == len(sheet.columns)


@given(st.text())
def test_no_text_is_a_command_in_latex(words: str) -> None:
    written = latex_text(words)
    known = r"\\(textbackslash|textasciitilde|textasciicircum|allowbreak|textdagger|textperiodcentered|dots|textless"
    rest = re.sub(known + r"|textgreater){}|\\[&%$#_{}]|\$-\$|\$\\pm\$|\$\\times\$", "", written)
    assert not re.search(r"[\\&%$#_{}~^]", rest)


def test_names_of_files_stay_in_their_folder(tmp_path: Path) -> None:
    assert file_name("../../etc/passwd") == ".._.._etc_passwd"
    made = write_tables([Sheet("a/../b", "T", ("x",), ((Cell("1"),),)), Sheet("none", "T", (), ())], tmp_path)
    assert list(made) == ["a/../b"]
    assert {path.parent for paths in made.values() for path in paths} == {tmp_path}


def test_every_number_of_a_row_has_a_flat_name(record: Record) -> None:
    line = next(one for one in record.lines if one.row.recipe == "int8-static:samples=100")
    told = figures(line)
    assert told["auroc"] == line.facts["metrics"]["auroc"]["value"]
    assert told["delta_accuracy_low"] == line.facts["deltas"]["accuracy"]["low"]
    assert told["p50_batch32"] == pytest.approx(9 * 32**0.9 / 2.4)
    assert {"bytes", "times_smaller", "drift_rank correlation", "p_auroc"} <= set(told)


def test_mlflow_gets_each_row_once(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "runs").as_uri()
    assert to_mlflow(record, address) == (4, 0)
    assert to_mlflow(record, address) == (0, 4)
    client = mlflow.MlflowClient(tracking_uri=address)
    found = client.search_runs([client.get_experiment_by_name("made-up").experiment_id])
    told = {run.data.params["recipe"]: run for run in found}
    assert set(told) == {line.row.recipe for line in record.finished}
    line = next(one for one in record.lines if one.row.recipe == "int8-static:samples=16")
    run = told[line.row.recipe]
    assert run.data.metrics["auroc"] == line.facts["metrics"]["auroc"]["value"]
    assert run.data.params["lesson"] == "-"
    assert run.data.tags["verdict"] == line.facts["verdict"]
    assert run.info.status == "FINISHED"
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"evaluation.json", "comparison.json"}


def test_no_mlflow_is_a_sentence(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"pip install 'quantward\[mlflow\]'"):
        to_mlflow(record, "http://127.0.0.1:1")


def test_an_address_that_is_none_is_a_sentence(record: Record, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(Refused, match="Expected an MLflow store at nonsense://x"):
        to_mlflow(record, "nonsense://x")
