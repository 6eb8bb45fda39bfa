"""The page of a study: whole, quiet, escaped, the same every time, and it says what is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import made_study
import pytest
from typer.testing import CliRunner

from quantward.cli import app
from quantward.core.errors import Refused, UsageError
from quantward.core.store import read_json, write_json
from quantward.study import report
from quantward.study.reading import read
from quantward.study.record import WAITING
from quantward.study.store import FolderStore

VOID = {"meta", "br", "wbr", "img", "hr", "input", "link"}


class Checked(HTMLParser):
    """Collects what a page holds, and whether its tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        told = dict(attrs)
        self.ids += [told["id"] or ""] if "id" in told else []
        self.links += [told["href"] or ""] if "href" in told else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_study.make(tmp_path_factory.mktemp("study") / "made", broken=["fp16"])


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return report.write(folder).read_text(encoding="utf-8")


def test_a_page_is_well_formed_and_every_link_leads_somewhere(folder: Path, page: str) -> None:
    seen = Checked()
    seen.feed(page)
    assert not seen.open
    assert len(seen.ids) == len(set(seen.ids))
    for link in seen.links:
        assert link[1:] in seen.ids if link.startswith("#") else (folder / link).is_file(), link


def test_a_page_loads_and_runs_nothing(page: str) -> None:
    seen = Checked()
    seen.feed(page)
    assert not seen.tags & {"script", "link", "iframe", "object", "img"}
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(", page)


def test_a_page_says_what_it_is_and_is_not(page: str) -> None:
    assert "For research use only." in page and "not a medical device" in page
    assert "A made-up study" in page and "Nobody N. Nothing at all." in page
    assert "12 of 15 rows have a result; 3 failed." in page
    assert "FP16 on a graphics card: this machine has none." in page
    assert "quantward study made-up.yaml" in page


def test_a_failure_is_told_once_with_the_rows_it_took(page: str) -> None:
    part = page[page.index('id="failed"') :]
    assert part.count("Expected fp16 to work") == 1
    assert "and" not in part[: part.index("</ul>")] or "resnet18 · fp16" in part


def test_names_are_escaped(page: str, tmp_path: Path) -> None:
    assert "<b>Try</b>" not in page and "&lt;b&gt;Try&lt;/b&gt;" in page
    evil = "<script>alert(1)</script>"
    changed = made_study.study(backbones=["resnet18"], title=evil, cut=[evil], data={evil: {"path": "x"}}, published=[])
    text = report.write(made_study.make(tmp_path, changed)).read_text(encoding="utf-8")
    assert "<script" not in text.replace("&lt;script", "")
    assert all(path.parent == tmp_path / "tables" for path in (tmp_path / "tables").rglob("*"))


def test_the_same_study_gives_the_same_bytes(folder: Path, page: str) -> None:
    tables = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    assert report.write(folder).read_text(encoding="utf-8") == page
    assert {path.name: path.read_bytes() for path in (folder / "tables").iterdir()} == tables


def test_every_figure_of_the_page_is_in_a_csv(folder: Path) -> None:
    shown = report.show(read(folder))
    for sheet in shown.sheets:
        text = (folder / "tables" / f"{sheet.name}.csv").read_text(encoding="utf-8")
        for row in sheet.rows:
            for cell in row:
                assert cell.value is None or f"{cell.value:.10g}" in text


def test_tables_are_the_asked_ones_with_the_papers_first_and_all_rows_last(folder: Path) -> None:
    names = [sheet.name for sheet in report.show(read(folder)).sheets]
    assert names[0] == "mission" and names[-1] == "rows"
    assert len(names) == len(set(names))


def test_one_table_with_two_options_is_two_tables(tmp_path: Path) -> None:
    file = made_study.study(backbones=["resnet18"], tables=["latency:batches=1", "latency:batches=32"], figures=[])
    report.write(made_study.make(tmp_path, file))
    one, two = ((tmp_path / "tables" / name).read_text() for name in ("latency.csv", "latency-2.csv"))
    assert "batch 1)" in one and "batch 32)" not in one and "batch 32)" in two


def test_a_long_table_is_cut_on_the_page_and_whole_in_its_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST", 4)
    folder = made_study.make(tmp_path, made_study.study(backbones=["resnet18"], tables=[], figures=[], published=[]))
    page = report.write(folder).read_text(encoding="utf-8")
    assert "The first 4 of 5 rows; all of them are in the CSV." in page
    assert len((tmp_path / "tables" / "rows.csv").read_text().splitlines()) == 6


def test_a_study_that_still_runs_can_be_looked_at(tmp_path: Path) -> None:
    folder = made_study.make(tmp_path, waiting=list(made_study.NOISE))
    page = report.write(folder).read_text(encoding="utf-8")
    assert "0 of 15 rows have a result; 15 not carried out yet." in page
    assert 'id="failed"' not in page


def test_a_result_that_was_changed_is_a_row_without_one(tmp_path: Path) -> None:
    folder = made_study.make(tmp_path, made_study.study(backbones=["resnet18"]))
    row = read_json(folder / "study.json")["rows"][1]
    broken = FolderStore(str(folder / "store")).folder(row["score"]) / "evaluation.json"
    broken.write_text(broken.read_text().replace("0", "1"))
    lines = read(folder).lines
    assert [line.failure for line in lines if line.failure] == [WAITING]
    assert "4 of 5 rows have a result" in report.write(folder).read_text(encoding="utf-8")


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"Expected a study's folder; there is no study.json"):
        report.write(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(Refused, match="Expected JSON"):
        report.write(tmp_path)
    write_json(tmp_path / "study.json", {"name": "x"})
    with pytest.raises(Refused, match="as quantward study writes it; KeyError"):
        report.write(tmp_path)


@pytest.mark.parametrize("tables", [["nothing"], ["sweep:over"], ["latency:batches=x"]])
def test_a_table_that_does_not_exist_is_a_sentence(tmp_path: Path, tables: list[str]) -> None:
    folder = made_study.make(tmp_path, made_study.study(backbones=["resnet18"], tables=tables))
    with pytest.raises(UsageError, match="Expected"):
        report.write(folder)


def test_the_verb_says_where_it_wrote(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code == 0
    assert "12 rows finished, 3 failed, 0 waiting" in done.output and "report.html" in done.output
    told = json.loads(CliRunner().invoke(app, ["report", str(folder), "--json"]).stdout)
    assert told["rows"] == {"finished": 12, "failed": 3, "waiting": 0}
    assert Path(told["report"]).is_file() and Path(told["tables"]["rows"]["latex"]).is_file()
    refused = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(refused.exception, Refused)
