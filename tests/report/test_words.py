"""Numbers and words: the terminal and the page say the same, and agree with the statistics on what is better."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantward.core.registry import Registry
from quantward.core.values import Comparison, Delta, Dossier, Finding, Flips, Verdict
from quantward.evaluate.metrics import OVERALL, PER_CLASS, SMALLER_IS_BETTER
from quantward.report._gates import about, concerns, limit_of
from quantward.report._matrices import matrices
from quantward.report._rows import tally, verdict_rows
from quantward.report._sentences import flipped, lost
from quantward.report._words import (
    METRICS,
    change_bounds,
    deciding,
    meaning,
    metric,
    number,
    ordered,
    signed,
    summary,
    visible,
)


def test_every_metric_of_the_statistics_has_words_and_the_same_direction() -> None:
    assert set(OVERALL) | set(PER_CLASS) == set(METRICS)
    assert {name for name, kind in METRICS.items() if kind.better == "lower"} == set(SMALLER_IS_BETTER)
    assert all(kind.meaning.endswith(".") for kind in METRICS.values())


def test_every_gate_that_limits_a_metric_finds_it() -> None:
    names = Registry("gate", "quantward.evaluate.gates").names()
    found = {name: concerns(Finding(name, "", "pass", 0.0, 0.02, "")) for name in names}
    expected = {
        "accuracy-drop": ("accuracy", False),
        "balanced-accuracy-drop": ("balanced_accuracy", False),
        "auroc-drop": ("auroc", False),
        "auprc-drop": ("auprc", False),
        "sensitivity-drop": ("sensitivity", True),
        "ece-increase": ("ece", False),
        "brier-increase": ("brier", False),
        "flip-rate": None,
        "size-ratio": None,
        "single-class-collapse": None,
    }
    assert {name: found[name] for name in expected} == expected
    for name, metric_of in found.items():
        if metric_of is not None:
            assert (METRICS[metric_of[0]].better == "lower") == name.endswith("-increase")


def test_a_gate_on_classes_draws_no_margin_over_the_whole() -> None:
    verdict = Verdict("x", (Finding("sensitivity-drop", "", "pass", 0.01, 0.05, ""),))
    assert about(verdict, "sensitivity") is None and about(None, "accuracy") is None
    found = about(verdict, "sensitivity", classes=True)
    limit = limit_of(found, "sensitivity")
    assert limit is not None and limit.place == -0.05
    assert limit_of(Finding("ece-increase", "", "pass", 0.0, None, ""), "ece") is None


@given(st.floats(-1e6, 1e6), st.integers(0, 4))
def test_numbers_have_true_signs(value: float, digits: int) -> None:
    text = number(value, digits)
    assert "-" not in text and float(text.replace("−", "-")) == pytest.approx(value, abs=0.51 * 10**-digits)
    assert not (text.startswith("−") and float(text[1:]) == 0)
    sign = signed(value, digits)[0]
    back = float(number(value, digits).replace("−", "-"))
    assert (sign == "+") == (back > 0) and (sign == "−") == (back < 0)


@given(st.text())
def test_foreign_text_stays_on_one_line(text: str) -> None:
    shown = visible(text)
    assert "\n" not in shown and "\x1b" not in shown and "\r" not in shown
    assert all(ord(sign) >= 32 for sign in shown)


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.1), st.floats(0, 1), st.sampled_from(sorted(METRICS)))
def test_words_never_say_more_than_the_interval(delta: float, half: float, p: float, name: str) -> None:
    kind = metric(name)
    said = meaning(Delta(0.5, 0.5 + delta, delta, delta - half, delta + half, p, p), kind)
    harm = -delta if kind.better == "higher" else delta
    if abs(delta) <= half:
        assert said == "no difference shown"
    else:
        assert said.endswith("worse" if harm > 0 else "better")
        assert said.startswith("perhaps") == (p >= 0.05)


def test_missing_values_have_words() -> None:
    gone = Delta(None, None, None, reason="no image of class 'x'")
    assert meaning(gone, metric("auroc")) == "not defined: no image of class 'x'"
    assert meaning(Delta(0.5, 0.5, 0.0), metric("auroc")) == "no interval"
    assert change_bounds(gone, metric("auroc")) == "" and metric("auroc").value(None) == "–"
    assert ordered({"zzz": 1, "ece": 1, "accuracy": 1}) == ["accuracy", "ece", "zzz"]


def test_the_deciding_findings_are_the_worst_ones() -> None:
    good, open_, bad = (Finding(c, "", c, None, None, "") for c in ("pass", "undecided", "fail"))  # type: ignore[arg-type]
    assert deciding(Verdict("x", (good, open_, bad))) == (bad,)
    assert deciding(Verdict("x", (good, open_))) == (open_,)
    assert deciding(Verdict("x", (good,))) == ()
    assert summary(Verdict("x", (good, open_, bad))) == "1 failed and 1 undecided of 3 gates"


def test_sentences_on_flips_add_up() -> None:
    def comparison(flips: Flips) -> Comparison:
        return Comparison("a", "b", 100, ("x", "y"), {}, {}, flips)

    assert "2 from one wrong class to another" in flipped(comparison(Flips(7, 0.07, 0.03, 0.12, 3, 2)))
    assert "another" not in flipped(comparison(Flips(5, 0.05, 0.02, 0.1, 3, 2)))
    assert flipped(comparison(Flips(0, 0.0, 0.0, 0.036))).startswith("No image changed")
    assert lost(comparison(Flips(0, 0.0, 0.0, 0.036)), "a") == ""


def test_rows_and_tally(usual: Dossier) -> None:
    rows = verdict_rows(usual.entries, usual.chosen)
    assert [row.chosen for row in rows].count(True) == 1
    assert sum(int(part) for part in tally(rows).replace(":", "").split() if part.isdigit()) == 2 * (len(rows) - 1)
    assert rows[-1].state == "failed" and not rows[-1].measured and rows[-1].why


def test_matrices_hold_every_image_once(usual: Dossier) -> None:
    found = matrices(usual.entries[3], usual.entries[0])
    assert [matrix.title for matrix in found] == ["Confusion of fp32", "Confusion of int8-static", "Flips"]
    for matrix in found:
        cells = [cell for _, line in matrix.rows for cell in line]
        assert sum(int(c.text.replace(",", "")) for c in cells if c.text != "·") == 420
        assert all(0 <= float(c.heat) <= 1 and not math.isnan(float(c.heat)) for c in cells)
