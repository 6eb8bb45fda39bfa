"""What a test set can prove: the published table, its inverse, and a simulation of the promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantward.core.errors import UsageError
from quantward.evaluate.power import images_needed, sentence, smallest_margin
from quantward.evaluate.proportions import tango


def test_the_known_table() -> None:
    assert [images_needed(0.02, d) for d in (0.01, 0.02, 0.04, 0.08)] == [197, 393, 785, 1570]


@given(st.integers(10, 100_000), st.floats(0, 0.5))
def test_margin_and_images_are_inverse(n: int, discordance: float) -> None:
    margin = smallest_margin(n, discordance)
    if margin < 1:
        assert images_needed(margin, discordance) == n


def test_silence_proves_no_more_than_its_score_bound() -> None:
    assert smallest_margin(142, 0.0) == pytest.approx(tango(0, 0, 142)[1])
    assert images_needed(0.02, 0.0) == 189


def test_the_promised_power_is_kept() -> None:
    rng = np.random.default_rng(0)
    n = images_needed(0.02, 0.08)
    draws = rng.multinomial(n, [0.04, 0.04, 0.92], 800)
    passed = np.mean([tango(broken, mended, n)[0] >= -0.02 for broken, mended, _ in draws])
    assert 0.75 < passed < 0.85


def test_sentences() -> None:
    assert sentence(142, 0.04) == "142 images at 4 % discordance prove no margin below 4.7 points."
    assert sentence(2000, 0.04, margin=0.02).endswith("a margin of 2 points needs only about 785 images.")
    assert "if the images of each of the 50 groups tell the same" in sentence(200, 0.04, n_groups=50)
    assert sentence(1, 0.04).startswith("1 image at")


@pytest.mark.parametrize("call", [lambda: images_needed(2.0, 0.04), lambda: smallest_margin(10, 4.0)])
def test_per_cent_for_shares_is_refused(call: object) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        call()  # type: ignore[operator]


def test_odd_levels_are_refused() -> None:
    with pytest.raises(UsageError, match="alpha"):
        smallest_margin(10, 0.1, alpha=0.9)
