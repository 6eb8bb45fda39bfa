"""From flawed to leak-free: linked groups, one image a picture, and a split that reads back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantward.core.errors import Refused, UsageError
from quantward.core.values import ROLES, Dataset
from quantward.data import (
    check,
    distinct,
    leak_free,
    link_groups,
    make_toy,
    open_dataset,
    published_fold,
    split,
    subset,
    verify_fold,
    with_split,
    write_split,
)  # fmt: skip
from quantward.data.check import Report

Memory = Callable[..., Dataset]


def test_groups_are_linked_transitively(memory: Memory) -> None:
    # 0 and 1 are one patient, 1 = 2 in pixels, 2 and 3 are another patient, 4 stands alone.
    data = memory([0, 0, 0, 1, 1, 1], groups=["p", "p", "q", "q", "r", "s"], same={2: 1})
    assert link_groups(data, check(data, near=False)) == ("p", "p", "p", "p", "r", "s")


def test_without_groups_every_image_starts_alone(memory: Memory) -> None:
    data = memory([0, 0, 1, 1], same={3: 2})
    assert link_groups(data, check(data, near=False)) == ("i0000", "i0001", "i0002", "i0002")


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_linked_groups_are_connected_components(draw: st.DataObject) -> None:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = draw.draw(st.integers(2, 25))
    picture = np.arange(n)
    for i in range(1, n):
        if draw.draw(st.booleans()):
            j = draw.draw(st.integers(0, i - 1))
            picture[i] = picture[j]
    groups = [f"g{draw.draw(st.integers(0, n))}" for _ in range(n)]
    near = draw.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=5))
    data = Dataset("d", ("a",), tuple(map(str, range(n))), np.zeros(n, int), "f", lambda i: None, tuple(groups))  # type: ignore[arg-type, return-value]
    report = Report("d", "f", n, n, len(set(picture)), {}, (), picture, tuple(near))
    edges = [(i, int(p)) for i, p in enumerate(picture)] + [(i, groups.index(g)) for i, g in enumerate(groups)] + near
    rows, columns = zip(*edges, strict=True)
    _, expected = connected_components(coo_matrix((np.ones(len(edges)), (rows, columns)), (n, n)), directed=False)
    got = link_groups(data, report, near=True)
    assert [[a == b for b in got] for a in got] == (expected[:, None] == expected[None]).tolist()


def test_distinct_keeps_one_of_each_and_drops_contradictions(memory: Memory) -> None:
    data = memory([0, 0, 0, 1, 1, 0, 1, 1], same={2: 1, 4: 3, 6: 5})
    kept = distinct(data, check(data, near=False))
    assert kept.indices.tolist() == [0, 1, 3, 7]
    assert (kept.copies, kept.conflicts, kept.unreadable) == (2, 2, 0)
    assert kept.sentence == (
        "4 different pictures kept; left out: 2 copies, 2 images whose picture has two labels, 0 unreadable."
    )


def test_the_copy_in_the_published_test_split_is_the_one_that_stays(memory: Memory) -> None:
    data = memory([0] * 6, splits=["train", "val", "test", "train", "train", "val"], same={1: 0, 2: 0, 5: 4})
    assert distinct(data, check(data, near=False)).indices.tolist() == [2, 3, 5]


def test_unreadable_images_are_left_out(tree: Path) -> None:
    (tree / "benign/0.png").write_bytes(b"")
    data = open_dataset(tree)
    kept = distinct(data, check(data))
    assert kept.unreadable == 1
    assert 0 not in kept.indices
    assert len(link_groups(data, check(data))) == 6


def test_a_report_on_other_images_is_not_used(memory: Memory) -> None:
    report = check(memory([0, 1], fingerprint="other"))
    for use in (distinct, link_groups):
        with pytest.raises(UsageError, match="the report on memory"):
            use(memory([0, 1]), report)


def test_toy_from_flawed_to_a_split_on_disk(tmp_path: Path) -> None:
    make_toy(tmp_path / "toy", n=160, classes=2, size=(32, 40), leaks=8, truncated=4, conflicts=3)
    data = open_dataset(tmp_path / "toy")
    clean, kept = leak_free(data, check(data), near=False)
    assert (kept.copies, kept.conflicts, kept.unreadable) == (8, 6, 4)
    report = check(clean)
    assert not {"unreadable", "label-conflict", "duplicate", "group-duplicate"} & {flaw.code for flaw in report.flaws}
    fold = split(clean)
    assert verify_fold(clean, fold) == ()

    written = write_split(clean, fold, tmp_path / "out/split.csv")
    assert written.read_text(encoding="utf-8").startswith("path,label,split,group\n")
    for back in (with_split(data, written), open_dataset(written, root=tmp_path / "toy")):
        again = published_fold(back)
        for role in ROLES:
            names = {clean.ids[i] for i in fold.role(role)}
            assert {back.ids[i] for i in again.role(role)} == names
        assert np.array_equal(back.read(5), clean.read(clean.ids.index(back.ids[5])))
    assert set(with_split(data, written).attributes) == {"sex", "mask"}


def test_a_written_split_without_some_role_comes_back_without_it(memory: Memory, tmp_path: Path) -> None:
    data = memory([0, 1] * 30)
    fold = split(data, shares={"train": 0.6, "calibrate": 0.2, "test": 0.2})
    again = published_fold(with_split(data, write_split(data, fold, tmp_path / "s.csv")))
    assert [len(again.role(role)) for role in ROLES] == [36, 0, 12, 0, 12]


def test_a_split_of_an_npz_is_laid_over_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "m.npz", train_images=pixels, train_labels=np.arange(60) % 2)
    data = open_dataset(tmp_path / "m.npz")
    path = write_split(data, split(data), tmp_path / "split.csv")
    back = with_split(data, path)
    assert sorted(back.ids) == sorted(data.ids)
    assert set(back.splits or ()) == set(ROLES)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("i9999,a,train,g", r"line 3, an image of memory; got 'i9999'"),
        ("i0001,a,train,g", r"line 3, the label 'b'"),
        ("i0000,a,train,g", r"line 3 repeats line 2"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(memory: Memory, tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "s.csv").write_text(f"path,label,split,group\ni0000,a,train,g\n{row}\n", encoding="utf-8")
    with pytest.raises(Refused, match=said):
        with_split(memory([0, 1]), tmp_path / "s.csv")


def test_parts_can_be_checked_too(memory: Memory) -> None:
    part = subset(memory([0, 1] * 25, same={4: 2}), range(0, 50, 2))
    assert check(part, near=False).duplicates == 1
