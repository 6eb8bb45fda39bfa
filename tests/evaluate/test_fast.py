"""The compiled path gives what the NumPy path gives, to the last bit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from quantward.core.errors import UsageError
from quantward.core.values import Predictions
from quantward.evaluate import bootstrap as room
from quantward.evaluate.bootstrap import bootstrap

Maker = Callable[..., Predictions]
compiled = pytest.mark.skipif(not room.fast_is_installed(), reason="Numba is not installed")


@compiled
@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("how", ["images", "patients", "strata"])
def test_both_paths_agree_to_the_last_bit(predictions: Maker, levels: int | None, how: str) -> None:
    p = predictions(157, 3, images_a_patient=3, weights=(0.6, 0.35, 0.05))
    q = predictions(157, 3, noise=0.4, weights=(0.6, 0.35, 0.05))
    both = [p.probabilities, q.probabilities]
    if levels:
        both = [np.round(values * levels) / levels for values in both]
    options: dict[str, Any] = {
        "images": {},
        "patients": {"groups": p.groups},
        "strata": {"strata": p.truth},
    }[how]
    slow = bootstrap(p.truth, both, replicates=75, seed=9, engine="numpy", **options)
    quick = bootstrap(p.truth, both, replicates=75, seed=9, engine="numba", threads=2, **options)
    for one, two in zip(slow, quick, strict=True):
        for name, values in one.overall.items():
            assert np.array_equal(values, two.overall[name], equal_nan=True), name
        for name, values in one.per_class.items():
            assert np.array_equal(values, two.per_class[name], equal_nan=True), name


@compiled
def test_few_metrics_alone(predictions: Maker) -> None:
    p = predictions(100, 2)
    for wanted in (("auroc",), ("accuracy",), ("ece",), ("brier", "ece_debiased")):
        one, two = (
            bootstrap(p.truth, [p.probabilities], replicates=20, wanted=wanted, engine=engine)[0]
            for engine in ("numpy", "numba")
        )
        assert list(one.overall) == list(two.overall) == list(wanted)
        for name in wanted:
            assert np.array_equal(one.overall[name], two.overall[name])


def test_auto_takes_the_compiled_path_only_for_large_work(predictions: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(room, "fast_is_installed", lambda: bool(asked.append("?")))
    p = predictions(50, 2)
    bootstrap(p.truth, [p.probabilities], replicates=10)
    assert asked == []
    monkeypatch.setattr(room, "_WORTH_COMPILING", 1000)
    bootstrap(p.truth, [p.probabilities], replicates=10)
    assert asked == ["?"]


def test_a_broken_numba_falls_back_or_says_so(predictions: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "quantward.evaluate.fast", raising=False)
    monkeypatch.setattr(room, "fast_is_installed", lambda: True)
    monkeypatch.setattr(room, "_WORTH_COMPILING", 0)
    p = predictions(30, 2)
    bootstrap(p.truth, [p.probabilities], replicates=5)
    with pytest.raises(UsageError, match="cannot be loaded"):
        bootstrap(p.truth, [p.probabilities], replicates=5, engine="numba")


def test_an_unknown_engine_is_refused(predictions: Maker) -> None:
    p = predictions(20, 2)
    with pytest.raises(UsageError, match="Did you mean 'numba'"):
        bootstrap(p.truth, [p.probabilities], engine="nomba")  # type: ignore[arg-type]
