"""The paired comparison: differences of the right sign, ties, clusters, alignment and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from quantward.core.errors import Refused, UsageError
from quantward.core.values import Efficiency, Latency, Predictions
from quantward.evaluate import metrics
from quantward.evaluate.alignment import aligned
from quantward.evaluate.decisions import youden
from quantward.evaluate.multiple import holm
from quantward.evaluate.paired import assess, compare, flips, measured
from quantward.evaluate.predictions import load, save
from quantward.evaluate.proportions import tango
from quantward.evaluate.single import evaluate

Maker = Callable[..., Predictions]


def test_deltas_are_candidate_less_baseline(predictions: Maker) -> None:
    good, bad = predictions(300, strength=3.0), predictions(300, strength=3.0, noise=2.0)
    found = compare(good, bad, replicates=300)
    assert list(found.deltas) == list(metrics.OVERALL) and list(found.per_class) == list(metrics.PER_CLASS)
    for name, delta in found.deltas.items():
        before = metrics.overall(name, good.truth, good.probabilities)
        after = metrics.overall(name, bad.truth, bad.probabilities)
        assert delta.baseline == before and delta.candidate == after
        assert delta.delta == pytest.approx(after - before)
        assert delta.low is not None and delta.high is not None and delta.low < delta.high
        worse = delta.delta if name in metrics.SMALLER_IS_BETTER else -delta.delta
        assert worse > 0
    auroc = found.deltas["auroc"]
    assert auroc.high is not None and auroc.high < 0 and auroc.p is not None and auroc.p < 0.01
    for name in ("accuracy", "brier", "kappa"):
        delta, other = found.deltas[name], compare(bad, good, replicates=300).deltas[name]
        assert delta.high is not None and other.low == pytest.approx(-delta.high) and other.p == pytest.approx(delta.p)


def test_identical_models_differ_in_nothing(predictions: Maker) -> None:
    p = predictions(200)
    found = compare(p, replace(p, source="copy"), replicates=200)
    for delta in [*found.deltas.values(), *(d for row in found.per_class.values() for d in row.values())]:
        assert (delta.delta, delta.p, delta.p_holm, delta.ties) == (0.0, 1.0, 1.0, 1.0)
        assert delta.low is not None and delta.high is not None and delta.low <= 0 <= delta.high
    assert found.flips.count == 0 and found.flips.high > 0
    assert found.deltas["accuracy"].high == pytest.approx(tango(0, 0, 200)[1])
    assert found.notes["tests"]["delong"]["macro"]["p"] == 1.0
    old = compare(p, replace(p, source="copy"), replicates=200, method="eq3")
    assert {delta.p for delta in old.deltas.values()} == {0.0}
    assert (old.deltas["accuracy"].low, old.deltas["accuracy"].high) == (0.0, 0.0)


def test_proportions_have_score_intervals(predictions: Maker) -> None:
    one, two = predictions(250), predictions(250, noise=0.8)
    found = compare(one, two, replicates=100)
    calls = [p.probabilities.argmax(axis=1) for p in (one, two)]
    right = [call == one.truth for call in calls]
    expected = tango(int(np.sum(right[0] & ~right[1])), int(np.sum(~right[0] & right[1])), 250)
    assert (found.deltas["accuracy"].low, found.deltas["accuracy"].high) == pytest.approx(expected)
    here = one.truth == 1
    hit = [call[here] == 1 for call in calls]
    expected = tango(int(np.sum(hit[0] & ~hit[1])), int(np.sum(~hit[0] & hit[1])), int(here.sum()))
    delta = found.per_class["sensitivity"]["b"]
    assert (delta.low, delta.high) == pytest.approx(expected)
    assert delta.n_positive == here.sum()
    assert found.deltas["balanced_accuracy"].low == found.deltas["sensitivity"].low


@pytest.mark.parametrize("seed", range(12))
def test_a_proportion_never_claims_more_than_its_interval(predictions: Maker, seed: int) -> None:
    one, two = predictions(90, seed=seed, strength=2.5), predictions(90, seed=seed, strength=2.5, noise=1.0)
    found = compare(one, two, replicates=200)
    every = [found.deltas["accuracy"], found.deltas["balanced_accuracy"], *found.per_class["sensitivity"].values()]
    for delta in every:
        assert delta.p is not None and delta.low is not None and delta.high is not None
        assert delta.p >= 0.05 - 1e-6 or not delta.low <= 0 <= delta.high


def test_bootstrap_and_witnesses_agree(predictions: Maker) -> None:
    one, two = predictions(500, 2, strength=1.5), predictions(500, 2, strength=1.5, noise=0.7)
    found = compare(one, two, replicates=2000)
    delong = found.notes["tests"]["delong"]
    delta = found.per_class["auroc"]["b"]
    assert delta.low is not None and delta.high is not None
    assert delong["per_class"]["b"]["delta"] == pytest.approx(delta.delta, abs=1e-12)
    width = delong["per_class"]["b"]["high"] - delong["per_class"]["b"]["low"]
    assert delta.high - delta.low == pytest.approx(width, rel=0.15)
    accuracy = found.notes["tests"]["accuracy"]
    assert accuracy["bootstrap"][0] == pytest.approx(accuracy["tango"][0], abs=0.01)
    assert accuracy["discordance"] == (accuracy["broken"] + accuracy["mended"]) / 500


def test_bca_differs_from_percentile_a_little(predictions: Maker) -> None:
    one, two = predictions(150), predictions(150, noise=1.0)
    plain = compare(one, two, replicates=500).deltas["auprc"]
    better = compare(one, two, replicates=500, method="bca").deltas["auprc"]
    assert plain.delta == better.delta and plain.p == better.p
    assert plain.low is not None and better.low is not None and plain.low != better.low
    assert abs(plain.low - better.low) < 0.02


def test_patients_are_drawn_whole(predictions: Maker) -> None:
    one, two = predictions(80), predictions(80, noise=0.7)
    rows = np.repeat(np.arange(80), 6)
    ids = tuple(f"i{i}" for i in range(480))

    def spread(p: Predictions, groups: bool) -> Predictions:
        patients = tuple(f"p{i}" for i in rows) if groups else None
        return Predictions(ids, p.truth[rows], p.probabilities[rows], p.classes, p.source, patients)

    alone = compare(spread(one, False), spread(two, False), replicates=300)
    whole = compare(spread(one, True), spread(two, True), replicates=300)
    for name in ("accuracy", "auroc", "brier"):
        a, b = alone.deltas[name], whole.deltas[name]
        assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
        assert 1.8 < (b.high - b.low) / (a.high - a.low) < 3.2
    assert whole.n_groups == 80 and alone.n_groups is None
    assert whole.flips.high > alone.flips.high
    assert whole.notes["tests"]["delong"] is None


def test_assess_gives_what_compare_and_evaluate_give(predictions: Maker) -> None:
    one, two = predictions(120), predictions(120, noise=0.5)
    comparison, before, after = assess(one, two, replicates=150, seed=4)
    assert comparison == compare(one, two, replicates=150, seed=4)
    assert before == evaluate(one, replicates=150, seed=4) and after == evaluate(two, replicates=150, seed=4)


def test_holm_runs_over_metrics_and_classes(predictions: Maker) -> None:
    found = compare(predictions(200), predictions(200, noise=1.0), replicates=200)
    every = [*found.deltas.values(), *(d for row in found.per_class.values() for d in row.values())]
    assert [d.p_holm for d in every] == holm([d.p if d.p is not None else np.nan for d in every])
    assert len(every) == 11 + 8 * 3


def test_an_absent_class_is_undefined_with_a_reason(predictions: Maker) -> None:
    shares = (0.5, 0.5, 0.0)
    found = compare(predictions(90, weights=shares), predictions(90, weights=shares, noise=0.5), replicates=50)
    delta = found.deltas["auroc"]
    assert delta.delta is None and delta.low is None and delta.p is None and "class 'c'" in delta.reason
    assert found.per_class["auroc"]["c"].delta is None and found.per_class["auroc"]["a"].delta is not None
    assert found.deltas["accuracy"].delta is not None


def test_stratified_draws_keep_rare_classes(predictions: Maker) -> None:
    shares = (0.6, 0.37, 0.03)
    one, two = predictions(60, weights=shares, seed=3), predictions(60, weights=shares, seed=3, noise=0.5)
    assert compare(one, two, replicates=200).notes["undefined_replicates"]["auroc"] > 0
    assert compare(one, two, replicates=200, stratified=True).notes["undefined_replicates"] == {}


def test_order_does_not_matter(predictions: Maker) -> None:
    one, two = predictions(70, images_a_patient=2), predictions(70, noise=0.5, images_a_patient=2)
    rows, columns = np.random.default_rng(0).permutation(70), [2, 0, 1]
    moved = Predictions(
        tuple(two.ids[i] for i in rows),
        np.argsort(columns)[two.truth[rows]],
        two.probabilities[rows][:, columns],
        tuple(two.classes[k] for k in columns),
        two.source,
        tuple(two.groups[i] for i in rows) if two.groups else None,
    )
    assert compare(one, moved, replicates=60) == compare(one, two, replicates=60)
    bare = replace(one, groups=None)
    assert compare(bare, two, replicates=60).n_groups == 35


def test_other_images_are_refused(predictions: Maker) -> None:
    one = predictions(20, source="fp32")
    part = Predictions(one.ids[:18], one.truth[:18], one.probabilities[:18], one.classes, "int8-static")
    with pytest.raises(Refused) as caught:
        compare(one, part)
    assert str(caught.value) == (
        "Expected both predictions to cover the same 20 images; 2 are only in 'fp32' (first 'i18'). "
        "Evaluate both on the same fold."
    )
    renamed = replace(one, ids=("new", *one.ids[1:]), source="int8")
    with pytest.raises(Refused, match=r"1 is only in 'fp32' .* and 1 is only in 'int8'"):
        aligned(one, renamed)
    twice = replace(one, ids=(one.ids[1], *one.ids[1:]))
    with pytest.raises(Refused, match="'i1' is there twice"):
        aligned(one, twice)


def test_other_classes_truth_or_groups_are_refused(predictions: Maker) -> None:
    one = predictions(20, source="fp32", images_a_patient=2)
    with pytest.raises(Refused, match="same classes; 'c', 'x'"):
        compare(one, replace(one, classes=("a", "b", "x"), source="int8"))
    truth = one.truth.copy()
    truth[4] = (truth[4] + 1) % 3
    with pytest.raises(Refused, match="1 of 20 images differ, first 'i4'"):
        compare(one, replace(one, truth=truth, source="int8"))
    assert one.groups is not None
    with pytest.raises(Refused, match="'i0' is of 'p0' in 'fp32' and of 'q' in 'int8'"):
        compare(one, replace(one, groups=("q", *one.groups[1:]), source="int8"))


def test_a_candidate_with_nan_is_refused(predictions: Maker) -> None:
    one = predictions(20)
    broken = one.probabilities.copy()
    broken[2] = np.nan
    with pytest.raises(Refused, match="finite probabilities from 'int8'"):
        compare(one, replace(one, probabilities=broken, source="int8"))


def test_an_unknown_method_is_refused(predictions: Maker) -> None:
    with pytest.raises(UsageError, match="Did you mean 'percentile'"):
        compare(predictions(20), predictions(20), method="percentil")  # type: ignore[arg-type]


def test_flips_are_counted_by_kind(predictions: Maker) -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    q = np.array([[0.6, 0.4], [0.4, 0.6], [0.7, 0.3], [0.1, 0.9]])
    truth = np.array([0, 0, 0, 1])
    one, two = (Predictions(tuple("wxyz"), truth, values, ("a", "b"), "m") for values in (p, q))
    found = flips(one, two)
    assert (found.count, found.rate, found.broken, found.mended) == (2, 0.5, 1, 1)
    assert found.matrix == ((1, 1), (1, 1))
    exact = stats.binomtest(2, 4).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_subgroups_and_thresholds_reach_the_notes(predictions: Maker) -> None:
    one, two = predictions(60), predictions(60, noise=1.0)
    sex = ["f" if i % 3 else "m" for i in range(60)]
    found = compare(one, two, replicates=50, attributes={"sex": sex}, thresholds={"a": 0.25}).notes["decisions"]
    assert {row["value"]: row["n"] for row in found["subgroups"]} == {"f": 40, "m": 20}
    assert found["worst_group"]["delta"] == min(row["delta"] for row in found["subgroups"])
    assert found["operating_points"]["a"]["frozen"]["threshold"] == 0.25


def test_select_images_freeze_thresholds_and_fit_temperatures(predictions: Maker) -> None:
    test = predictions(90), predictions(90, noise=1.0)
    select = predictions(150, seed=7), predictions(150, seed=7, noise=1.0)
    plain, found = (compare(*test, replicates=50, select=given) for given in (None, select))
    assert found.deltas == plain.deltas, "nothing is rescaled"
    frozen = found.notes["decisions"]["operating_points"]["a"]["frozen"]["threshold"]
    assert frozen == youden(select[0].truth == 0, select[0].probabilities[:, 0])
    assert found.notes["decisions"]["thresholds_from"] == "given"
    scaled = found.notes["calibration"]["temperature"]["candidate"]
    assert scaled["fitted_on"] == 150 and scaled["after"]["log_loss"] != scaled["before"]["log_loss"]
    assert "temperature" not in plain.notes["calibration"]
    others = replace(select[1], ids=tuple(f"x{name}" for name in select[1].ids))
    with pytest.raises(Refused):
        compare(*test, replicates=50, select=(select[0], others))


def test_measured_fills_size_and_speed(predictions: Maker) -> None:
    p = predictions(20)
    comparison = compare(p, p, replicates=20)
    slow = Efficiency("a", "r", 400, 0, (Latency(1, 10, 11, 12, 5, 0.01), Latency(32, 99, 99, 99, 5, 0.01)))
    quick = Efficiency("b", "r", 100, 0, (Latency(1, 4, 5, 6, 5, 0.01),))
    found = measured(comparison, slow, quick)
    assert (found.smaller, found.faster) == (4.0, 2.5)
    assert measured(comparison, slow, replace(quick, latency=())).faster is None


def test_files_compare_as_their_predictions(predictions: Maker, tmp_path: Path) -> None:
    one, two = predictions(40, source="fp32"), predictions(40, noise=0.5, source="int8")
    for p in (one, two):
        save(p, tmp_path / f"{p.source}.csv")
    found = compare(load(tmp_path / "fp32.csv"), load(tmp_path / "int8.csv"), replicates=40)
    assert found == compare(one, two, replicates=40)
