"""The sweep end to end on a small run: ranking, front, tables that work as recipes, files, page, and going on."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from quantward.cli import app
from quantward.core.errors import QuantwardError, Refused, UsageError
from quantward.core.store import read_json, write_json
from quantward.core.values import Plan
from quantward.data import save_fold, split
from quantward.graph.files import save_plan
from quantward.graph.walk import layers
from quantward.quantize._table import read_table
from quantward.report.front import write_front
from quantward.runs import prepare
from quantward.sweeps import sensitivity_run
from quantward.workbench import open_variant


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred and sixty smooth pictures in four class folders."""
    home, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for number in range(160):
        coarse = draw.integers(0, 256, (8, 8, 3), np.uint8)
        path = home / "abcd"[number % 4] / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(coarse.repeat(4, axis=0).repeat(4, axis=1)).save(path)
    return home


@pytest.fixture(scope="module")
def run(small_plan: Plan, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small network, which nobody trained."""
    home = tmp_path_factory.mktemp("run")
    save_fold(split(prepare(data, "own").dataset, seed=0), home / "fold.json")
    write_json(home / "data.json", {"split": "own", "seed": 0})
    write_json(home / "model.json", {"arch": "small", "provenance": {}})
    save_plan(small_plan, home / "plan")
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def record(run: Path, data: Path, home: Path) -> dict[str, Any]:
    return sensitivity_run(run, data, home, samples=12, top=3)


def test_record_ranks_every_layer_at_every_width_both_ways(record: dict[str, Any], small_plan: Plan) -> None:
    assert len(record["costs"]) == 2 * len(layers(small_plan.program))
    assert all(row["fisher"] > 0 and row["divergence"] > 0 for row in record["costs"])
    assert {row["n"] for row in record["correlations"]} == {len(layers(small_plan.program))}
    assert record["images"] == 12


def test_front_is_monotone_and_starts_and_ends_at_the_uniform_tables(record: dict[str, Any]) -> None:
    sizes, losses = ([point[key] for point in record["points"]] for key in ("bytes", "predicted"))
    assert sizes == sorted(set(sizes)) and losses == sorted(set(losses), reverse=True)
    assert set(record["points"][0]["widths"].split()) == {"w4a8"}
    assert record["exact"] is True


def test_tables_are_what_the_recipe_reads(record: dict[str, Any], home: Path, small_plan: Plan) -> None:
    recipes = [row["recipe"] for row in record["tried"][1:]]
    assert len(recipes) == 3
    for recipe in recipes:
        path = Path(recipe.removeprefix("mixed:table="))
        assert path.parent == home / "tables"
        assert len(read_table(path, small_plan.program)) == len(layers(small_plan.program))


def test_tables_were_run_as_files_and_cost_what_was_promised(record: dict[str, Any], home: Path) -> None:
    base, *tried = record["tried"]
    assert base["recipe"] == "fp32" and base["divergence"] == 0
    assert [row["failure"] for row in tried] == [""] * 3
    sizes = {open_variant(path).bytes for path in (home / "files").glob("mixed*.onnx")}
    assert {row["bytes"] for row in tried} == sizes
    for one, two in pairwise(tried):
        promised, written = (two[key] - one[key] for key in ("promised", "bytes"))
        assert promised > 0
        assert abs(written - promised) < 160 * len(record["layers"]), "a packed layer takes a step to widen it"
    assert all(row["divergence"] > 0 and row["milliseconds"] > 0 for row in tried)
    assert tried[-1]["divergence"] < tried[0]["divergence"], "eight bits lose less than four"


def test_what_was_done_is_not_done_again(record: dict[str, Any], run: Path, data: Path, home: Path) -> None:
    kept = [path for part in ("parts", "plans", "files", "tables", "predictions") for path in (home / part).rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in kept if path.is_file() and path.parent.name != "tables"}
    again = sensitivity_run(run, data, home, samples=12, top=3)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again["costs"] == record["costs"] and again["points"] == record["points"]
    timed = ("milliseconds", "spread")
    slim = [[{k: v for k, v in row.items() if k not in timed} for row in r["tried"]] for r in (record, again)]
    assert slim[0] == slim[1]


def test_page_shows_all_and_trusts_no_name(record: dict[str, Any], home: Path, tmp_path: Path) -> None:
    page = (home / "front.html").read_text()
    assert page.count("<svg") == 3 and page.count("<circle") == 3 + 2 * record["correlations"][0]["n"]
    assert "http" not in page.replace("http-equiv", "")
    document = read_json(home / "front.json")
    document["costs"][0]["layer"] = "<script>alert(1)</script>"
    document["dataset"] = "a<b>"
    text = write_front(document, tmp_path / "x.html").read_text()
    assert "<script>" not in text and "a<b>" not in text and "&lt;script&gt;" in text


def test_estimated_front_without_files_needs_no_measurement(run: Path, data: Path, tmp_path: Path) -> None:
    found = sensitivity_run(run, data, tmp_path, samples=8, measure=False, top=0, offer=("w8a8", "w4a8", "w2a8"))
    assert found["by"] == "fisher" and found["tried"] == [] and found["correlations"] == []
    assert not (tmp_path / "files").exists()
    assert "<svg" in (tmp_path / "front.html").read_text()
    assert "w2a8" in found["points"][0]["widths"]


def test_times_bound_the_tables_that_are_tried(
    run: Path, data: Path, tmp_path: Path, small_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    import quantward.sweeps as module

    monkeypatch.setattr(module, "_try", lambda work, parent, front, tables: [])
    names = [layer.name for layer in layers(small_plan.program)]
    write_json(tmp_path / "ms.json", {name: {"w8a8": 1.0, "w4a8": 0.5} for name in names})
    asked = {"samples": 8, "measure": False, "latency": tmp_path / "ms.json", "top": 2}
    limit = 0.75 * len(names)
    found = sensitivity_run(run, data, tmp_path, milliseconds=limit, **asked)  # type: ignore[arg-type]
    tables = [read_json(path)["layers"] for path in (tmp_path / "tables").glob("*.json")]
    assert 1 <= len(tables) <= 2
    for table in tables:
        assert sum({"w8a8": 1.0, "w4a8": 0.5}[width] for width in table.values()) <= limit
    assert all("milliseconds" in point for point in found["points"])
    with pytest.raises(Refused, match=r"^Expected tables within 0\.1 ms; the fastest takes"):
        sensitivity_run(run, data, tmp_path, milliseconds=0.1, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"samples": 0}, UsageError, "Expected samples of at least 1"),
        ({"offer": ("w8a8", "w9a9")}, UsageError, "Expected a width such as w4a8"),
        ({"milliseconds": 1.0}, UsageError, "Expected --latency FILE"),
        ({"latency": "times.json"}, Refused, r"Expected \{\"layer\""),
    ],
)
def test_faults_are_told_before_anything_is_run(
    run: Path, data: Path, tmp_path: Path, asked: dict[str, Any], kind: type[QuantwardError], said: str
) -> None:
    if "latency" in asked:
        (tmp_path / "times.json").write_text('{"stem": {"w8a8": "fast"}}')
        asked = {"latency": tmp_path / "times.json"}
    with pytest.raises(kind, match=f"^{said}"):
        sensitivity_run(run, data, tmp_path, **asked)
    assert not (tmp_path / "front.json").exists()


def test_verb_prints_the_ranking_or_one_json_document(
    record: dict[str, Any], run: Path, data: Path, home: Path
) -> None:
    asked = ["sensitivity", str(run), str(data), "--out", str(home), "--samples", "12", "--top", "3"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "rank correlation" in shown.stdout and "front.html" in shown.stdout
    document = json.loads(CliRunner().invoke(app, [*asked, "--json", "--top", "0"]).stdout)
    assert [cost["fisher"] for cost in document["costs"]] == [cost["fisher"] for cost in record["costs"]]
