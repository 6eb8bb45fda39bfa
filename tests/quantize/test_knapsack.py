"""The front of choices against brute force over all of them, with and without times."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantward.core.errors import UsageError
from quantward.quantize._knapsack import Front, Option, front

WHOLE = st.integers(0, 12)
TIMED = st.builds(lambda b, loss, ms: Option(b, loss / 8, ms / 4), WHOLE, WHOLE, WHOLE)
UNTIMED = st.builds(lambda b, loss: Option(b, loss / 8), WHOLE, WHOLE)


def everything(layers: list[list[Option]]) -> list[tuple[int, float, float]]:
    """(bytes, milliseconds, loss) of every possible choice; eighths and quarters add up without rounding."""
    return [
        (sum(o.bytes for o in way), sum(o.milliseconds for o in way), sum(o.loss for o in way))
        for way in product(*layers)
    ]


def points(found: Front) -> list[tuple[int, float, float]]:
    return list(zip(found.bytes.tolist(), found.milliseconds.tolist(), found.loss.tolist(), strict=True))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(TIMED, min_size=1, max_size=3), min_size=1, max_size=5))
def test_front_is_exactly_what_no_choice_beats(layers: list[list[Option]]) -> None:
    ways = set(everything(layers))
    unbeaten = {
        way for way in ways if not any(all(a <= b for a, b in zip(o, way, strict=True)) and o != way for o in ways)
    }
    found = front(layers)
    assert found.exact
    assert set(points(found)) == unbeaten
    assert len(points(found)) == len(unbeaten)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(TIMED, min_size=1, max_size=3), min_size=1, max_size=5), st.integers(0, 60), st.integers(0, 15)
)
def test_best_within_budgets_equals_brute_force(layers: list[list[Option]], size: int, time: int) -> None:
    found = front(layers)
    for limit in (None, float(time)):
        fits = [loss for b, ms, loss in everything(layers) if b <= size and (limit is None or ms <= limit)]
        point = found.best(size, limit)
        assert (point is None) == (not fits)
        if point is not None:
            assert found.loss[point] == min(fits)
            assert found.bytes[point] <= size
            assert limit is None or found.milliseconds[point] <= limit


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(UNTIMED, min_size=1, max_size=4), min_size=1, max_size=6))
def test_picks_give_the_costs_of_their_point_and_the_front_is_monotone(layers: list[list[Option]]) -> None:
    found = front(layers)
    for number in range(len(found)):
        chosen = [options[pick] for options, pick in zip(layers, found.picks(number), strict=True)]
        assert sum(o.bytes for o in chosen) == found.bytes[number]
        assert sum(o.loss for o in chosen) == found.loss[number]
    assert (np.diff(found.bytes) > 0).all()
    assert (np.diff(found.loss) < 0).all()


def test_thinned_front_says_so_and_holds_real_choices() -> None:
    draw = np.random.default_rng(0)
    layers = [[Option(int(b), float(v)) for b, v in zip(draw.integers(1, 10**6, 3), draw.random(3), strict=True)]
              for _ in range(20)]  # fmt: skip
    whole, thin = front(layers), front(layers, limit=40)
    assert whole.exact and not thin.exact
    assert len(thin) <= 40
    for number in range(len(thin)):
        chosen = [options[pick] for options, pick in zip(layers, thin.picks(number), strict=True)]
        assert sum(o.bytes for o in chosen) == thin.bytes[number]
    middle = float(whole.bytes.mean())
    assert thin.loss[thin.best(middle)] <= whole.loss[whole.best(middle)] * 1.1


def test_spread_holds_the_cheapest_and_the_best() -> None:
    found = front([[Option(2**k, 0.0), Option(0, 1.0 + k)] for k in range(8)])
    few = found.spread(5)
    assert len(few) <= 5
    assert few[0] == 0 and few[-1] == len(found) - 1
    assert found.spread(10**6) == list(range(len(found)))


@pytest.mark.parametrize("layers", [[[]], [[Option(1, -0.1)]], [[Option(1, float("nan"))]], [[Option(1, 0.1, -1.0)]]])
def test_what_is_no_cost_is_refused(layers: list[list[Option]]) -> None:
    with pytest.raises(UsageError, match=r"^Expected "):
        front(layers)
