"""Tables and figures of a study say what its results say, with the reason where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import made_study
import numpy as np
import pytest

from quantward.core.errors import UsageError
from quantward.core.store import read_json
from quantward.study.axes import family, precision, values_of, without
from quantward.study.measures import asked, measure, of
from quantward.study.reading import _gains, read
from quantward.study.record import WAITING, Line, Paper, Record
from quantward.study.report import FIGURES, TABLES
from quantward.study.sheets import Cell, Sheet
from quantward.study.tables.criteria import Criteria

GRID = made_study.study(
    backbones=["resnet18"], recipes=["fp32", "low-bit:bits={bits}"], lessons=["", "saliency:masked={masked}"],
    vary={"bits": [8, 4, 2], "masked": [0.3, 0.7]}, bench=None, sensitivity="", published=[],
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return read(made_study.make(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """FP16 failed, INT8 is still to come."""
    return read(made_study.make(tmp_path_factory.mktemp("partial"), broken=["fp16"], waiting=["int8-static"]))


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Nothing has been carried out yet."""
    return read(made_study.make(tmp_path_factory.mktemp("waiting"), waiting=list(made_study.NOISE)))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Record:
    return read(made_study.make(tmp_path_factory.mktemp("grid"), GRID))


def sheet(record: Record, spelling: str, number: int = 0) -> Sheet:
    found: Sheet = TABLES.make(spelling).sheets(record)[number]
    return found


def column(table: Sheet, title: str) -> list[Cell]:
    return [row[table.columns.index(title)] for row in table.rows]


def line(record: Record, recipe: str, backbone: str = "resnet18") -> Line:
    return next(one for one in record.lines if (one.row.recipe, one.row.backbone) == (recipe, backbone))


def test_a_figure_is_the_one_in_the_result(whole: Record) -> None:
    for one in whole.lines:
        for metric in ("accuracy", "auroc", "ece"):
            told = one.facts["metrics"][metric]
            found = of(one, metric)
            assert (found.value, found.low, found.high) == (told["value"], told["low"], told["high"])


def test_a_figure_of_one_class_is_that_of_the_whole_evaluation(whole: Record) -> None:
    one = line(whole, "fp16")
    told = one.document("evaluation.json")["per_class"]["auprc"]["pituitary"]
    assert of(one, "auprc[pituitary]").value == told["value"]
    assert "no class" in of(one, "auprc[spleen]").reason


def test_precision_is_that_of_scikit_learn(whole: Record) -> None:
    witness = pytest.importorskip("sklearn.metrics")
    one = line(whole, "fp16")
    said = made_study.predictions("fp16", "resnet18", "brain", 120, 1)
    named = np.asarray(said.probabilities).argmax(1)
    assert of(one, "precision").value == pytest.approx(witness.precision_score(said.truth, named, average="macro"))
    each = witness.precision_score(said.truth, named, average=None)
    for k, label in enumerate(said.classes):
        found = of(one, f"precision[{label}]")
        assert found.value == pytest.approx(each[k])
        assert found.low is not None and found.high is not None and found.low < each[k] <= found.high


def test_times_are_those_of_the_batch_that_is_asked_for(whole: Record) -> None:
    one = line(whole, "int8-static:samples=16")
    assert of(one, "p50@1").value == pytest.approx(9 / 2.4)
    assert of(one, "p50@32").value == pytest.approx(9 * 32**0.9 / 2.4)
    assert of(one, "throughput@32").value == pytest.approx(32_000 / (9 * 32**0.9 / 2.4))
    assert of(one, "p50").value == of(one, "p50@1").value
    assert of(one, "speedup@1").value == 2.4
    assert of(one, "p50@8").value is None


def test_every_absent_figure_has_its_reason(partial: Record, grid: Record) -> None:
    assert of(line(partial, "fp16"), "auroc").reason.startswith("Expected fp16")
    assert of(line(partial, "int8-static:samples=16"), "auroc").reason == WAITING
    assert of(line(grid, "fp32"), "delta.accuracy").reason == "is the baseline"
    assert of(line(grid, "fp32"), "p50@1").reason == "nothing was timed"
    assert of(line(grid, "fp32"), "external.auroc").reason == "the study names no external images"
    assert of(line(grid, "low-bit:bits=4"), "no_such").reason == "no_such is not measured"


@pytest.mark.parametrize("name", ["", "auroc[", "delta.", "p50@", "p50@x", "a.b.c"])
def test_a_name_that_is_none_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(UsageError, match="Expected a figure like"):
        asked(name)


def test_words_of_papers_are_understood(whole: Record) -> None:
    one = line(whole, "fp16")
    assert of(one, "recall").value == of(one, "sensitivity").value
    assert of(one, "size").value == one.facts["bytes"]
    assert measure("recall").title == "Sensitivity, %"


def test_size_is_held_against_fp32_in_the_same_form(tmp_path: Path) -> None:
    folder = made_study.make(tmp_path, made_study.study(backbones=["resnet18"], targets=["onnx-cpu", "litert"]))
    path = folder / "study.json"
    text = path.read_text()
    record = read(folder)
    assert {one.smaller for one in record.lines if one.row.recipe == "fp32"} == {1.0}
    assert of(line(record, "fp16"), "smaller").value == pytest.approx(1.99, rel=1e-3)
    path.write_text(text.replace('"recipe": "fp32"', '"recipe": "other"'))
    assert {one.smaller for one in read(folder).lines} == {None}


def test_the_papers_mean_never_stands_beside_one_network(whole: Record) -> None:
    table = sheet(whole, "calibration")
    assert column(table, "fp32")[0].paper == "0.0067"
    each = sheet(whole, "calibration", 1)
    assert [cell.paper for cell in column(each, "fp32")] == ["", "", "", "0.0067"]


def test_a_figure_of_the_paper_stands_wherever_what_it_leaves_open_may_differ() -> None:
    def made(backbone: str, runtime: str) -> Line:
        row = made_study.Row("brain", backbone, "fit", "fp32", "", "onnx-cpu", runtime, f"{backbone}{runtime}", ())
        return Line(row, {"metrics": {}})

    lines = (made("a", "onnxruntime"), made("a", "openvino"), made("b", "onnxruntime"))
    papers = (Paper("B1", {"backbone": "a"}, "auroc", 0.9), Paper("B1", {"backbone": "*"}, "ece", 0.1))
    record = Record(Path(), "x", {}, lines, papers)
    assert [record.published([one], "auroc") for one in lines] == [0.9, 0.9, None]
    assert [record.published([one], "ece") for one in lines] == [None, None, None]
    assert record.published([lines[0], lines[2]], "ece") == 0.1
    assert record.published([], "ece") is None


def test_means_over_networks_are_means_over_networks(whole: Record) -> None:
    values = [of(one, "auroc").value or 0 for one in whole.lines if one.row.recipe == "fp16"]
    last = column(sheet(whole, "discrimination"), "fp16")[-1]
    assert last.value == pytest.approx(fmean(values))
    assert last.under == f"± {stdev(values):.3f}"


def test_a_mean_that_lost_a_network_says_so(whole: Record) -> None:
    lines = [replace(one, failure="no memory") if one.row.backbone == "resnet18" else one for one in whole.lines]
    last = column(sheet(replace(whole, lines=tuple(lines)), "discrimination"), "fp16")[-1]
    assert last.text.endswith("†") and "2 of 3" in last.why


def test_a_row_that_failed_stays_with_its_reason(partial: Record) -> None:
    table = sheet(partial, "rows")
    assert len(table.rows) == len(partial.lines)
    reasons = [cell.text for row in table.rows for cell in row if cell.state == "lost"]
    assert sum("Expected fp16 to work" in text for text in reasons) == 3
    assert sum(WAITING in text for text in reasons) == 9


def test_a_noisy_time_has_its_star(whole: Record) -> None:
    table = sheet(whole, "latency")
    stars = {row[1].text for row, cell in zip(table.rows, column(table, "p50, ms (batch 1)"), strict=True)
             if cell.text.endswith("*")}  # fmt: skip
    assert stars == {"fp16"}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.02, 0.01, "met"), (-0.0201, 0.01, "undecided"), (-0.05, -0.02, "undecided"), (-0.05, -0.0201, "not met")],
)
def test_the_bound_decides_and_not_the_point(low: float, high: float, said: str) -> None:
    row = made_study.Row("d", "b", "s", "int8-static", "", "t", "r", "k", ())
    facts = {"deltas": {"accuracy": {"delta": (low + high) / 2, "low": low, "high": high}}}
    assert Criteria().close(Line(row, facts)).text == said


@pytest.mark.parametrize(("smaller", "both"), [(4.0, "met"), (3.99, "not met"), (None, "undecided")])
def test_both_criteria_have_to_be_met(smaller: float | None, both: str) -> None:
    row = made_study.Row("d", "b", "s", "int8-static", "", "t", "r", "k", ())
    facts = {"deltas": {"accuracy": {"delta": 0.0, "low": -0.01, "high": 0.01}}}
    assert Criteria().both(Line(row, facts, smaller=smaller)).text == both


def test_a_sweep_stands_in_the_order_of_its_values(whole: Record) -> None:
    table = sheet(whole, "sweep:metrics=accuracy")
    assert [row[0].text for row in table.rows] == ["16", "100", "1000"]
    backbones = dict.fromkeys(one.row.backbone for one in whole.lines)
    assert table.columns == ("samples", *(f"{name} · int8-static:samples=*" for name in backbones))
    cells = [row[1] for row in table.rows]
    for size, cell in zip((16, 100, 1000), cells, strict=True):
        value = of(line(whole, f"int8-static:samples={size}", "mobilenetv2_100"), "accuracy").value
        assert cell.value == pytest.approx(100 * (value or 0))


def test_what_a_study_varies_is_found_again_in_its_rows(grid: Record) -> None:
    told = values_of(grid, grid.lines)
    assert told[0] == {}
    assert {"bits": 8, "masked": 0.7} in told and {"bits": 2} in told
    assert len({str(one) for one in told}) == 1 + 3 * 3
    assert without(grid, "low-bit:bits=4", "bits") == "low-bit:bits=*"
    assert without(grid, "low-bit:bits=4", "masked") == "low-bit:bits=4"


def test_the_frontier_has_a_row_a_point(grid: Record) -> None:
    table = sheet(grid, "frontier")
    assert table.columns[:2] == ("bits", "masked")
    points = [(row[0].value, row[1].value) for row in table.rows]
    assert points == [(None, None), *((b, m) for b in (8, 4, 2) for m in (None, 0.3, 0.7))]
    assert {"Specificity, %", "Rank correlation"} <= set(table.columns)
    for one, row in zip(grid.lines, table.rows, strict=True):
        assert row[table.columns.index("Accuracy, %")].value == pytest.approx(100 * (of(one, "accuracy").value or 0))


def test_layers_stand_by_what_they_mind(whole: Record) -> None:
    table = sheet(whole, "sensitivity:most=5")
    values = [row[2].value or 0 for row in table.rows]
    assert values == sorted(values, reverse=True) and len(values) == 5
    assert "0.91 (0.80 to 0.96)" in table.caption


def test_the_mission_table_has_every_figure_of_the_paper(whole: Record) -> None:
    table = sheet(whole, "mission")
    assert [row[0].text for row in table.rows] == ["B2", "B3", "B1"]
    ours = column(table, "ours")
    assert ours[0].under.startswith("±") and "mean over 3" in ours[0].why
    assert ours[1].value == 9.0
    assert ours[2].value is None and "no row of this study" in ours[2].why


def test_families_and_names() -> None:
    assert family("vit_base_patch16_224") == "Transformer" and family("efficientnet_b0") == "CNN"
    row = made_study.Row("d", "b", "fit:epochs=1", "int8-static", "", "onnx-cpu", "openvino", "k", ())
    assert precision(Line(row), ()) == "int8-static"
    assert precision(Line(row), ("runtime", "lesson")) == "int8-static · openvino"


@pytest.mark.parametrize("name", TABLES.names())
@pytest.mark.parametrize("state", ["whole", "partial", "waiting", "grid", "empty"])
def test_every_table_has_rows_or_a_reason(name: str, state: str, request: pytest.FixtureRequest) -> None:
    for one in TABLES.get(name)().sheets(_record(state, request)):
        assert one.rows or one.absent
        assert one.title and one.name
        assert all(len(row) == len(one.columns) for row in one.rows)
        cells = [cell for row in one.rows for cell in row[one.named :]]
        assert all(cell.why for cell in cells if cell.text == "–"), "an absent figure has no reason"


@pytest.mark.parametrize("name", FIGURES.names())
@pytest.mark.parametrize("state", ["whole", "partial", "waiting", "grid", "empty"])
def test_every_figure_is_drawn_or_says_why_not(name: str, state: str, request: pytest.FixtureRequest) -> None:
    from xml.etree import ElementTree

    for one in FIGURES.get(name)().draw(_record(state, request)):
        assert bool(one.content) != bool(one.absent) or one.absent
        tree = ElementTree.fromstring(f"<div>{one.content}</div>")
        assert "nan" not in one.content.lower()
        assert one.absent or any(True for _ in tree.iter("svg"))


def _record(state: str, request: pytest.FixtureRequest) -> Record:
    if state == "empty":
        return Record(Path(), "empty", made_study.study(published=[]), ())
    found: Record = request.getfixturevalue(state)
    return found


def test_a_drawn_interval_is_the_measured_one(whole: Record) -> None:
    drawing = FIGURES.make("sweep:metric=auroc").draw(whole)[0]
    one = line(whole, "int8-static:samples=100", "resnet18")
    found = of(one, "auroc")
    words = f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
    assert words in drawing.content


def test_a_bar_is_drawn_for_each_file_that_was_timed(whole: Record) -> None:
    drawing = FIGURES.make("latency:batch=32").draw(whole)[0]
    assert drawing.content.count("<rect") >= len(whole.lines)
    assert FIGURES.make("latency:batch=7").draw(whole)[0].absent == "Nothing was timed at batch size 7."


def test_reliability_shows_one_panel_a_class(whole: Record) -> None:
    drawings = FIGURES.make("reliability:backbone=resnet18").draw(whole)
    assert len(drawings) == 1
    assert drawings[0].content.count("<figcaption>") == len(made_study.CLASSES)


def facts_of(record: Record) -> list[Mapping[str, Any]]:
    return [one.facts for one in record.lines]


def test_reading_twice_is_the_same(tmp_path: Path) -> None:
    folder = made_study.make(tmp_path, made_study.study(backbones=["resnet18"]))
    assert facts_of(read(folder)) == facts_of(read(folder))
    assert read_json(folder / "study.json")["rows"][0]["recipe"] == "fp32"


def test_a_file_without_fp32_on_its_runtime_is_held_against_another(tmp_path: Path) -> None:
    folder = made_study.make(tmp_path, made_study.study(backbones=["resnet18"], recipes=["fp32", "qat"]))
    record = read(folder)
    one = line(record, "qat").timed[0]
    other = line(record, "fp32").timed[0]
    alone = [{**row, "rounds": (4.0, 4.0)} for row in one["latency"]]
    whole = [{**row, "rounds": (8.0, 8.0)} for row in other["latency"]]
    found = _gains({**one, "speedups": [], "latency": alone}, [{**other, "latency": whole}])
    assert [(gain["reference"], gain["value"], gain["batch"]) for gain in found] == [
        ("FP32 on onnxruntime", 2.0, 1),
        ("FP32 on onnxruntime", 2.0, 32),
    ]
    assert _gains(one, [other]) == one["speedups"]
    assert one["speedups"][0]["reference"] == "FP32 on onnxruntime"
