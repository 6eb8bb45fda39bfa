"""Many hypotheses: Holm against its definition, the ladder stops for good."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from quantward.evaluate.multiple import fixed_sequence, holm

ps = st.lists(st.floats(0, 1), min_size=0, max_size=12)


@given(ps, st.floats(0.001, 0.2))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float], alpha: float) -> None:
    rejected = set()
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - rank) > alpha:
            break
        rejected.add(i)
    adjusted = holm(p)
    assert {i for i, value in enumerate(adjusted) if value <= alpha} == rejected
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))


def test_undefined_values_do_not_count() -> None:
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[0] == 0.02 and math.isnan(adjusted[1]) and adjusted[2] == 0.04


@given(ps)
def test_the_ladder_stops_at_the_first_failure(p: list[float]) -> None:
    decided = fixed_sequence(p, 0.05)
    first = next((i for i, value in enumerate(p) if value > 0.05), len(p))
    assert decided == [i < first for i in range(len(p))]
