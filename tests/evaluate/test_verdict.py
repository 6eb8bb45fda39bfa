"""Gate files are read without forgiving a typo; presets hold; verdicts follow from findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from quantward.core.errors import UsageError
from quantward.core.values import Predictions
from quantward.evaluate.paired import assess
from quantward.evaluate.verdict import GATES, PRESETS, judge, read_gates

Maker = Callable[..., Predictions]


def written(folder: Path, text: str) -> Path:
    path = folder / "gates.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_their_limits(name: str) -> None:
    gates = read_gates(name)
    assert gates.source == name and len(gates.entries) >= 10
    assert set(gates.document()["gates"]) <= set(GATES.names())


def test_a_file_may_start_from_a_preset(tmp_path: Path) -> None:
    lines = ("accuracy-drop: 0.01", "flip-rate: {limit: 0.2}", "slowdown: off", "brier-increase:")
    text = "\n  ".join(("preset: screening\ngates:", *lines)) + "\n"
    limits = read_gates(written(tmp_path, text)).document()["gates"]
    assert limits["accuracy-drop"] == {"limit": 0.01} and limits["flip-rate"] == {"limit": 0.2}
    assert "slowdown" not in limits and limits["brier-increase"] == {"limit": 0.02}
    assert limits["auroc-drop"] == read_gates("screening").document()["gates"]["auroc-drop"]


def test_a_changed_option_keeps_the_others_of_the_preset(tmp_path: Path) -> None:
    text = "preset: clinical\ngates:\n  sensitivity-drop: {positives: 30}\n"
    limits = read_gates(written(tmp_path, text)).document()["gates"]
    assert limits["sensitivity-drop"] == {"limit": 0.05, "positives": 30}


def test_a_file_without_a_preset_is_the_whole_list(tmp_path: Path) -> None:
    gates = read_gates(written(tmp_path, "gates:\n  accuracy-drop: 0.01\n"))
    assert [name for name, _ in gates.entries] == ["accuracy-drop"]
    assert read_gates(written(tmp_path, "gates: clinical\n")).entries == read_gates("clinical").entries


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("gats: clinical\n", 1, "Did you mean 'gates'"),
        ("gates:\n  acuracy-drop: 0.01\n", 2, "Did you mean 'accuracy-drop'"),
        ("gates:\n  accuracy-drop:\n    limt: 0.01\n", 3, "Did you mean 'limit'"),
        ("gates: clincal\n", 1, "Did you mean 'clinical'"),
        ("preset: x\ngates: {flip-rate: 0.1}\n", 1, "preset"),
        ("gates:\n  accuracy-drop: 2\n", 2, "0.02 for 2 points"),
        ("gates:\n  accuracy-drop: -0.1\n", 2, "at least 0"),
        ("gates:\n  accuracy-drop: tight\n", 2, "a number"),
        ("gates:\n  accuracy-drop: {limit: yes}\n", 2, "a number"),
        ("gates:\n  sensitivity-drop: {positives: 2.5}\n", 2, "whole number"),
        ("gates:\n  accuracy-drop: .nan\n", 2, "a number"),
        ("gates:\n  flip-rate: 0.1\n  flip-rate: 0.2\n", 3, "lines 2 and 3"),
        ("gates:\n  - accuracy-drop\n", 2, "gate: limit"),
        ("- gates\n", 1, "gates: and preset:"),
        ("", 1, "gates: and preset:"),
        ("gates:\n  flip-rate: [\n", 3, "YAML"),
        ("gates: {}\n", None, "at least one gate"),
        ("gates:\n  flip-rate: off\n", None, "at least one gate"),
    ],
)
def test_faults_are_named_with_file_and_line(tmp_path: Path, text: str, line: int | None, expected: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_gates(path)
    assert expected in str(caught.value) and str(path) in str(caught.value)
    if line is not None and "lines 2 and 3" not in expected:
        assert f"line {line} of" in str(caught.value)


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'clinical'"):
        read_gates("clinic")
    with pytest.raises(UsageError, match="there is none"):
        read_gates(tmp_path / "absent.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes("gates: clinical # ü".encode("latin-1"))
    with pytest.raises(UsageError, match="UTF-8"):
        read_gates(path)


def test_verdicts_follow_the_evidence(predictions: Maker) -> None:
    """More images decide what few cannot; a broken candidate fails."""
    gates = read_gates("clinical")
    outcomes = []
    for n, noise in ((60, 0.0), (2500, 0.02), (2500, 3.0)):
        one, two = predictions(n, strength=3.0), predictions(n, strength=3.0, noise=noise)
        outcomes.append(judge(*assess(one, replace(two, source="int8"), replicates=200), gates))
    assert [verdict.outcome for verdict in outcomes] == ["INSUFFICIENT EVIDENCE", "PASS", "FAIL"]
    assert outcomes[0].candidate == "int8"
    assert [f.code for f in outcomes[0].findings] == [name for name, _ in gates.entries]
