"""The course: rates start, peak and end where they should; impossible options are refused."""

from __future__ import annotations

import pytest

from quantward.core.errors import UsageError
from quantward.train.course import Course, rate


def test_warm_up_peaks_at_lr_and_cosine_ends_near_zero() -> None:
    course = Course(lr=0.01, warmup=0.1)
    rates = [rate(course, step, 200) for step in range(200)]
    assert max(rates) == pytest.approx(0.01) and rates.index(max(rates)) in (19, 20)
    assert rates[0] == pytest.approx(0.01 / 20) and rates[-1] < 1e-5
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_constant_and_plateau_follow_the_factor() -> None:
    for schedule in ("constant", "plateau"):
        course = Course(lr=0.1, warmup=0.0, schedule=schedule)  # type: ignore[arg-type]
        assert rate(course, 0, 10) == rate(course, 9, 10) == 0.1
        assert rate(course, 5, 10, factor=0.1) == pytest.approx(0.01)


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("batch", 0), ("lr", 0.0), ("lr", float("nan")),
                                             ("warmup", 1.5), ("patience", 0), ("min_delta", -1.0)])  # fmt: skip
def test_impossible_options_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"Expected {name} of at least"):
        Course(**{name: value})  # type: ignore[arg-type]
