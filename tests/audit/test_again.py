"""A bundle's file is audited again without its Plan, and what has to be believed is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from quantward.audit.facts import of_file
from quantward.bundle import Check, audit_again
from quantward.core.values import Plan, Variant
from quantward.runtimes.onnxruntime import Onnxruntime


@pytest.fixture
def facts(audited: Callable[[str], Plan], int8_file: Variant) -> dict[str, Any]:
    made = of_file(audited("int8-static:calibrator=max"), int8_file, Onnxruntime().executed(int8_file))
    return {**made, "agreement": 0.998, "signatures": [{"code": "slower"}]}


def test_the_same_file_holds(int8_file: Variant, facts: dict[str, Any]) -> None:
    checks, believed = audit_again(int8_file, facts, int8_file.bytes, "onnxruntime")
    assert [(check.name, check.holds) for check in checks] == [("bytes", True), ("layers in integers", True)]
    assert checks[1].seen == "8 of 8 on onnxruntime, the manifest says 8"
    assert believed == [
        "agreement with its simulation (99.80%): needs the Plan, which stays behind",
        "failure signatures (1): need the Plan and calibration images",
    ]


def test_claims_that_the_file_does_not_keep_are_found(int8_file: Variant, facts: dict[str, Any]) -> None:
    claimed = {**facts, "integer_ran": 9}
    checks, _ = audit_again(int8_file, claimed, int8_file.bytes - 1, "onnxruntime")
    assert [check.holds for check in checks] == [False, False]


def test_a_runtime_that_is_not_there_is_believed_with_its_reason(int8_file: Variant, facts: dict[str, Any]) -> None:
    checks, believed = audit_again(replace(int8_file, format="tflite"), facts, int8_file.bytes, "onnxruntime")
    assert [check.name for check in checks] == ["bytes"]
    assert believed[0].startswith("layers in integers (8 of 8 run as integers): Expected a file of format onnx")


def test_an_older_manifest_asks_for_less(int8_file: Variant) -> None:
    checks, believed = audit_again(int8_file, {}, int8_file.bytes, "onnxruntime")
    assert checks == [Check("bytes", True, f"{int8_file.bytes:,}; the manifest says {int8_file.bytes:,}")]
    assert believed == []
