"""Drift of attention end to end on toy scans with lesion masks: record, page, every method, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantward.core.errors import Refused, UsageError
from quantward.core.store import read_json, write_json
from quantward.core.values import Plan
from quantward.data import save_fold, split
from quantward.data.toy import KINDS, make_toy
from quantward.explaining import METHODS, explain_run
from quantward.graph.files import save_plan
from quantward.runs import prepare

COARSE = "low-bit:weights=2,activations=4,ends=4,depthwise=4"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"), n=160, size=(40, 48), seed=0)


@pytest.fixture(scope="module")
def run(small_plan: Plan, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small network, which nobody trained."""
    home = tmp_path_factory.mktemp("run")
    dataset = prepare(data, "own").dataset
    save_fold(split(dataset, seed=0), home / "fold.json")
    write_json(home / "data.json", {"split": "own", "seed": 0})
    write_json(home / "model.json", {"arch": "small", "provenance": {}})
    save_plan(replace(small_plan, classes=dataset.classes), home / "plan")
    return home


@pytest.fixture(scope="module")
def record(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    home = tmp_path_factory.mktemp("drift")
    return explain_run(run, data, ["fp16", COARSE], home, images=24, shown=3, curves=True), home


def test_half_precision_looks_where_fp32_looks_and_two_bits_do_not(record: tuple[dict[str, Any], Path]) -> None:
    fine, coarse = (candidate["measures"] for candidate in record[0]["candidates"])
    assert fine["rank correlation"]["value"] > 0.99 and fine["centre shift"]["value"] < 0.01
    assert coarse["rank correlation"]["value"] < fine["rank correlation"]["value"] - 0.02
    assert coarse["top 20 % overlap"]["high"] < fine["top 20 % overlap"]["value"]
    assert coarse["rank correlation"]["low"] <= coarse["rank correlation"]["value"]


def test_masks_and_curves_are_measured_for_fp32_too(record: tuple[dict[str, Any], Path]) -> None:
    own = record[0]["fp32"]
    assert record[0]["masks"] and set(own) == {"pointing game", "mass in mask", "deletion area", "insertion area"}
    assert own["mass in mask"]["undefined"] > 0, "healthy scans have no lesion, and are counted as such"
    assert own["mass in mask"]["n"] + own["mass in mask"]["undefined"] == record[0]["images"] == 24


def test_record_and_page_are_written_and_name_no_image(record: tuple[dict[str, Any], Path], data: Path) -> None:
    found, home = record
    assert read_json(home / "drift.json") == found
    page = (home / "drift.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 6 and page.count("data:image/jpeg;base64,") == 6
    assert "For research use only" in page
    ids = prepare(data, "own").dataset.ids
    assert not any(name in page for name in ids)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "gradcam"])
def test_every_other_method(method: str, run: Path, data: Path, tmp_path: Path) -> None:
    found = explain_run(run, data, ["fp16"], tmp_path, method=method, images=2, shown=1)
    assert found["candidates"][0]["measures"]["rank correlation"]["value"] > 0.9


def test_unknown_methods_and_no_images_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gradcam"):
        explain_run(run, data, ["fp16"], tmp_path, method="grad-cam")
    with pytest.raises(UsageError, match="at least one image"):
        explain_run(run, data, ["fp16"], tmp_path, images=0)


def test_a_mask_that_is_gone_is_named(run: Path, small_plan: Plan, tmp_path: Path) -> None:
    data = make_toy(tmp_path / "toy", n=160, size=(40, 48), seed=0)
    for path in (data / "masks" / KINDS[1]).iterdir():
        path.unlink()
    with pytest.raises(Refused, match="Expected the mask"):
        explain_run(run, data, ["fp16"], tmp_path / "out", images=24)
