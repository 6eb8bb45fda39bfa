"""The bootstrap: the same for any width and thread, paired, and equal to a loop over scikit-learn."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from quantward.core.errors import Refused, UsageError
from quantward.core.values import Predictions
from quantward.evaluate import bootstrap as room
from quantward.evaluate import draws
from quantward.evaluate.bootstrap import Replicates, bootstrap, jackknife

Maker = Callable[..., Predictions]


def equal(one: Replicates, two: Replicates) -> bool:
    return all(np.array_equal(one.overall[k], two.overall[k], equal_nan=True) for k in one.overall) and all(
        np.array_equal(one.per_class[k], two.per_class[k], equal_nan=True) for k in one.per_class
    )


def test_a_loop_over_scikit_learn_gives_the_same(predictions: Maker) -> None:
    p = predictions(90, 3)
    (found,) = bootstrap(p.truth, [p.probabilities], replicates=20, seed=3)
    picks = draws.drawn(draws.base_of(3), 0, 20, draws.units(90))
    for b in range(20):
        rows = picks[b]
        for k in range(3):
            positive, score = p.truth[rows] == k, p.probabilities[rows, k]
            assert abs(found.per_class["auroc"][k, b] - roc_auc_score(positive, score)) < 1e-12
            assert abs(found.per_class["auprc"][k, b] - average_precision_score(positive, score)) < 1e-12


@pytest.mark.parametrize("grouped", [None, 3])
def test_threads_and_block_widths_change_no_bit(
    predictions: Maker, monkeypatch: pytest.MonkeyPatch, grouped: int | None
) -> None:
    p, q = predictions(150, 3, images_a_patient=grouped), predictions(150, 3, noise=0.5)
    options: dict[str, Any] = {"replicates": 203, "seed": 5, "groups": p.groups}
    first = bootstrap(p.truth, [p.probabilities, q.probabilities], threads=1, **options)
    for threads, width in ((4, 16), (2, 64), (1, 7), (3, 203)):
        monkeypatch.setattr(room, "_width", lambda *_, width=width: width)
        again = bootstrap(p.truth, [p.probabilities, q.probabilities], threads=threads, **options)
        assert equal(first[0], again[0]) and equal(first[1], again[1]), (threads, width)


def test_both_models_see_the_same_draws(predictions: Maker) -> None:
    p = predictions(60, 2)
    one, two = bootstrap(p.truth, [p.probabilities, p.probabilities], replicates=50)
    assert equal(one, two)
    assert one.overall["auroc"].std() > 0


def test_a_class_that_was_not_drawn_is_undefined_unless_stratified(predictions: Maker) -> None:
    p = predictions(40, 3, weights=(0.6, 0.37, 0.03))
    assert 0 < np.sum(p.truth == 2) < 4
    (free,) = bootstrap(p.truth, [p.probabilities], replicates=300)
    assert 0 < np.isnan(free.overall["auroc"]).mean() < 0.5
    assert np.array_equal(np.isnan(free.overall["auroc"]), np.isnan(free.overall["sensitivity"]))
    assert not np.isnan(free.overall["accuracy"]).any()
    (kept,) = bootstrap(p.truth, [p.probabilities], replicates=300, strata=p.truth)
    assert not np.isnan(kept.overall["auroc"]).any()


def test_patients_widen_the_interval(predictions: Maker) -> None:
    p = predictions(200, 2)
    twice = np.repeat(np.arange(200), 5)
    groups = [f"p{i}" for i in twice]
    (alone,) = bootstrap(p.truth[twice], [p.probabilities[twice]], replicates=400)
    (whole,) = bootstrap(p.truth[twice], [p.probabilities[twice]], replicates=400, groups=groups)
    assert 1.8 < whole.overall["auroc"].std() / alone.overall["auroc"].std() < 2.7


def test_jackknife_leaves_each_out_once(predictions: Maker) -> None:
    p = predictions(30, 2)
    (found,) = jackknife(p.truth, [p.probabilities])
    right = p.probabilities.argmax(axis=1) == p.truth
    expected = sorted((right.sum() - hit) / 29 for hit in right)
    np.testing.assert_allclose(sorted(found.overall["accuracy"]), expected, atol=1e-15)
    (parts,) = jackknife(p.truth, [p.probabilities], most=7)
    assert len(parts.overall["accuracy"]) == 7


def test_memory_does_not_grow_with_replicates(predictions: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    p = predictions(4000, 2)
    monkeypatch.setattr(room, "_width", lambda *_: 16)
    peaks = []
    for replicates in (32, 256):
        tracemalloc.start()
        bootstrap(p.truth, [p.probabilities], replicates=replicates, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 256 * 40 * 8


def test_progress_counts_blocks(predictions: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    p = predictions(50, 2)
    monkeypatch.setattr(room, "_width", lambda *_: 16)
    seen: list[Any] = []

    def track(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        seen.append((label, total))
        for item in items:
            seen.append("block")
            yield item

    bootstrap(p.truth, [p.probabilities], replicates=40, track=track)
    assert seen == [("bootstrap", 3), "block", "block", "block"]


def test_wrong_requests_are_refused(predictions: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    p = predictions(20, 2)
    with pytest.raises(UsageError, match="at least one"):
        bootstrap(p.truth, [p.probabilities], replicates=0)
    with pytest.raises(UsageError, match="auc"):
        bootstrap(p.truth, [p.probabilities], wanted=("auc",))
    monkeypatch.setattr(room, "LARGEST", 10)
    with pytest.raises(Refused, match="at most 10"):
        bootstrap(p.truth, [p.probabilities])
