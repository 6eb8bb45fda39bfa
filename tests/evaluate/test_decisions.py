"""Operating points, net benefit and subgroups against what can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantward.core.errors import Refused
from quantward.core.values import Predictions
from quantward.evaluate.decisions import (
    NET_BENEFIT_AT,
    at_threshold,
    benefits,
    net_benefit,
    operating_points,
    subgroups,
    summary,
    youden,
)
from quantward.evaluate.proportions import tango

Maker = Callable[..., Predictions]


@given(st.integers(0, 10_000), st.integers(2, 30))
def test_youden_is_the_best_of_all_thresholds(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    positive, score = rng.random(n) < 0.5, np.round(rng.random(n), 1)
    found = youden(positive, score)
    if positive.all() or not positive.any():
        assert found is None
        return
    assert found is not None

    def worth(threshold: float) -> float:
        point = at_threshold(positive, score, threshold)
        return (point.sensitivity or 0) + (point.specificity or 0)

    assert worth(found) == pytest.approx(max(worth(t) for t in score))
    assert not np.any(np.abs(score - found) < 1e-6) or found == 0


def test_net_benefit_weighs_false_calls() -> None:
    positive = np.array([True, True, False, False, False])
    score = np.array([0.9, 0.1, 0.8, 0.3, 0.1])
    assert net_benefit(positive, score, 0.2) == pytest.approx(1 / 5 - 2 / 5 * 0.25)
    assert net_benefit(positive, score, 0.5) == pytest.approx(1 / 5 - 1 / 5)


def test_benefit_rows_add_up(predictions: Maker) -> None:
    one, two = predictions(200, 2), predictions(200, 2, noise=1.0)
    for row in benefits(one, two, 1):
        assert row.delta == pytest.approx(row.candidate - row.baseline)
        assert row.low <= row.delta <= row.high and row.low < row.high
        everything = net_benefit(one.truth == 1, np.ones(200), row.at)
        assert row.call_all == pytest.approx(everything)
    assert [row.at for row in benefits(one, two, 1)] == list(NET_BENEFIT_AT)


def test_frozen_and_retuned_points(predictions: Maker) -> None:
    one = predictions(300, 2)
    squeezed = 0.5 * one.probabilities[:, 1]
    two = Predictions(one.ids, one.truth, np.c_[1 - squeezed, squeezed], one.classes, "low")
    point = operating_points(one, two)["b"]
    assert point.frozen.threshold == point.baseline.threshold
    assert point.frozen.sensitivity is not None and point.baseline.sensitivity is not None
    assert point.frozen.sensitivity < point.baseline.sensitivity
    assert point.retuned.sensitivity == point.baseline.sensitivity
    assert point.retuned.threshold == pytest.approx(point.baseline.threshold / 2)
    here = one.truth == 1
    before, after = (p.probabilities[here, 1] >= point.baseline.threshold for p in (one, two))
    expected = tango(int(np.sum(before & ~after)), int(np.sum(~before & after)), int(here.sum()))
    assert (point.sensitivity_low, point.sensitivity_high) == pytest.approx(expected)


def test_thresholds_may_come_from_other_images(predictions: Maker) -> None:
    one, two = predictions(100, 2), predictions(100, 2, noise=0.5)
    found = operating_points(one, two, {"b": 0.9})
    assert found["b"].baseline.threshold == 0.9 and found["a"].baseline.threshold != 0.9
    assert summary(one, two, thresholds={"b": 0.9})["thresholds_from"] == "given"


def test_an_absent_class_has_no_operating_point(predictions: Maker) -> None:
    one = predictions(50, 3, weights=(0.5, 0.5, 0.0))
    assert set(operating_points(one, one)) == {"a", "b"}


def test_subgroups_are_counted_by_hand_and_worst_first() -> None:
    truth = np.array([0, 0, 0, 0])
    p = np.array([[0.9, 0.1]] * 4)
    q = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    one, two = (Predictions(tuple("wxyz"), truth, values, ("a", "b"), "m") for values in (p, q))
    rows = subgroups(one, two, {"sex": ["f", "f", "m", "m"], "site": ["1", "1", "1", "1"]})
    assert [(r.attribute, r.value, r.n, r.baseline, r.candidate) for r in rows] == [
        ("sex", "m", 2, 1.0, 0.5),
        ("sex", "f", 2, 1.0, 1.0),
        ("site", "1", 4, 1.0, 0.75),
    ]
    assert (rows[0].low, rows[0].high) == pytest.approx(tango(1, 0, 2))
    with pytest.raises(Refused, match="Expected 4 values of attribute 'sex'"):
        subgroups(one, two, {"sex": ["f"]})
