"""Draws: pure functions of seed and replicate, uniform, whole patients, strata kept."""

from __future__ import annotations

import numpy as np
from scipy import stats

from quantward.evaluate import draws


def split_mix(state: int) -> int:
    """SplitMix64 in plain integers, from its published code."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_words_are_those_of_split_mix() -> None:
    base = draws.base_of(7)
    assert int(base) == split_mix(7)
    n = 9
    half, mask = 5, 2**64 - 1
    expected = []
    for i in range(half):
        word = split_mix((int(base) + (3 * half + i) * 0x9E3779B97F4A7C15) & mask)
        expected += [((word & 0xFFFFFFFF) * n) >> 32, ((word >> 32) * n) >> 32]
    assert draws.drawn(base, 3, 1, draws.units(n))[0].tolist() == expected[:n]


def test_any_replicate_can_be_made_alone() -> None:
    base, from_ = draws.base_of(1), draws.units(50)
    whole = draws.weights(base, 0, 40, from_)
    assert np.array_equal(whole[:, 17:18], draws.weights(base, 17, 1, from_))
    assert np.array_equal(whole, np.hstack([draws.weights(base, 0, 13, from_), draws.weights(base, 13, 27, from_)]))
    assert (whole.sum(axis=0) == 50).all()


def test_seeds_and_replicates_differ() -> None:
    from_ = draws.units(50)
    one = draws.weights(draws.base_of(1), 0, 2, from_)
    assert not np.array_equal(one[:, 0], one[:, 1])
    assert not np.array_equal(one, draws.weights(draws.base_of(2), 0, 2, from_))
    assert int(draws.base_of(-1)) != int(draws.base_of(1))


def test_every_image_is_drawn_as_often_and_counts_are_binomial() -> None:
    n, many = 100, 4000
    table = draws.weights(draws.base_of(0), 0, many, draws.units(n))
    assert stats.chisquare(table.sum(axis=1)).pvalue > 1e-4
    seen = np.bincount(table.astype(int).ravel(), minlength=8)[:8]
    law = stats.binom.pmf(np.arange(7), n, 1 / n)
    expected = np.append(law, 1 - law.sum()) * n * many
    assert stats.chisquare(np.append(seen[:7], table.size - seen[:7].sum()), expected).pvalue > 1e-4
    together = np.corrcoef(table[:20])
    np.fill_diagonal(together, 0)
    assert np.abs(together + 1 / (n - 1)).max() < 0.08


def test_patients_are_drawn_whole() -> None:
    groups = ["b", "a", "b", "c", "a", "b"]
    table = draws.weights(draws.base_of(0), 0, 200, draws.units(6, groups))
    assert np.array_equal(table[0], table[2]) and np.array_equal(table[0], table[5])
    assert np.array_equal(table[1], table[4])
    assert ((table[0] + table[1] + table[3]) == 3).all()


def test_strata_keep_their_size_with_and_without_patients() -> None:
    strata = np.array([2, 0, 0, 1, 2, 2, 0])
    table = draws.weights(draws.base_of(0), 0, 100, draws.units(7, strata=strata))
    for stratum in range(3):
        assert (table[strata == stratum].sum(axis=0) == np.sum(strata == stratum)).all()
    assert table[3].tolist() == [1] * 100
    groups = ["p", "q", "q", "r", "p", "s", "t"]
    table = draws.weights(draws.base_of(0), 0, 100, draws.units(7, groups, strata))
    assert np.array_equal(table[0], table[4]) and np.array_equal(table[1], table[2])
    assert (table[0] + table[5] == 2).all() and (table[1] + table[6] == 2).all()
    assert table[0].min() == 0


def test_jackknife_leaves_one_part_out() -> None:
    from_ = draws.units(4, ["a", "b", "a", "c"])
    table = draws.left_out(0, 3, np.array([0, 1, 2]), from_)
    assert table.T.tolist() == [[0, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]]
