"""The JSON of a comparison keeps its documented keys: held against the schema, for odd inputs too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantward.core.values import Predictions
from quantward.evaluate.document import compare_document
from quantward.evaluate.metrics import OVERALL, PER_CLASS
from quantward.evaluate.paired import assess
from quantward.evaluate.verdict import judge, read_gates

Maker = Callable[..., Predictions]
SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "compare.schema.json"


def document(one: Predictions, two: Predictions, **options: Any) -> dict[str, Any]:
    comparison, before, after = assess(one, two, replicates=60, **options)
    return compare_document(comparison, judge(comparison, before, after, read_gates("clinical")))


def check(found: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(found, allow_nan=False)))


@pytest.mark.parametrize(
    "case",
    [
        "plain",
        "two classes",
        "patients",
        "absent class",
        "rare class",
        "eq3",
        "bca",
        "attributes",
        "one class",
        "select",
    ],
)
def test_every_comparison_keeps_to_the_schema(predictions: Maker, case: str) -> None:
    made: dict[str, Any] = {
        "two classes": {"classes": 2},
        "patients": {"images_a_patient": 3},
        "absent class": {"weights": (0.5, 0.5, 0.0)},
        "rare class": {"weights": (0.5, 0.48, 0.02)},
        "one class": {"weights": (1.0, 0.0, 0.0)},
    }.get(case, {})
    options: dict[str, Any] = {
        "eq3": {"method": "eq3"},
        "bca": {"method": "bca"},
        "attributes": {"attributes": {"site": ["x", "y", "z"] * 30}},
        "select": {"select": (predictions(60, seed=5), predictions(60, seed=5, noise=0.5))},
    }.get(case, {})
    found = document(predictions(90, **made), predictions(90, noise=0.5, **made), **options)
    check(found)
    assert list(found["metrics"]) == list(OVERALL) and list(found["per_class"]) == list(PER_CLASS)
    if case == "absent class":
        assert found["metrics"]["auroc"]["delta"] is None
        assert found["metrics"]["auroc"]["reason"] == "no image of class 'c'"
    if case == "attributes":
        assert found["decisions"]["worst_group"]["attribute"] == "site"


def test_the_schema_can_fail(predictions: Maker) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    found = document(predictions(40, 2), predictions(40, 2, noise=0.5))
    for path, value in (
        (("verdict",), "MAYBE"),
        (("metrics", "auroc", "delta"), None),
        (("metrics", "accuracy", "low"), "0"),
        (("flips", "count"), -1),
    ):
        broken = json.loads(json.dumps(found))
        place = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            check(broken)
    del found["metrics"]["kappa"]
    with pytest.raises(jsonschema.ValidationError):
        check(found)


def test_figures_are_those_of_the_comparison(predictions: Maker) -> None:
    one, two = predictions(80), predictions(80, noise=0.5, source="int8")
    comparison, before, after = assess(one, two, replicates=50)
    verdict = judge(comparison, before, after, read_gates("screening"))
    found = compare_document(comparison, verdict)
    assert found["verdict"] == verdict.outcome and found["candidate"] == "int8"
    assert found["metrics"]["auroc"]["low"] == comparison.deltas["auroc"].low
    assert found["per_class"]["sensitivity"]["b"]["n_positive"] == before.counts["b"]
    assert [row["code"] for row in found["findings"]] == [f.code for f in verdict.findings]
    assert found["flips"]["matrix"] == [list(row) for row in comparison.flips.matrix]
