"""Folds: no patient in two roles, test parts that partition, classes in proportion, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantward.core.errors import Refused, UsageError
from quantward.core.values import ROLES, Dataset, Fold
from quantward.data import SHARES, load_fold, make_folds, published_fold, save_fold, split, verify_fold

Memory = Callable[..., Dataset]


def hospital(seed: int, patients: int, classes: int, mixed: bool) -> tuple[list[int], list[str]]:
    """Labels and patients of a made-up hospital; with `mixed`, a patient may have images of several classes."""
    rng = np.random.default_rng(seed)
    labels: list[int] = []
    groups: list[str] = []
    for p in range(patients):
        own = p % classes
        for _ in range(int(rng.integers(1, 6))):
            labels.append(int(rng.integers(classes)) if mixed and rng.random() < 0.3 else own)
            groups.append(f"p{p}")
    order = rng.permutation(len(labels))
    return [labels[i] for i in order], [groups[i] for i in order]


def plain_dataset(labels: list[int], groups: list[str] | None) -> Dataset:
    classes = tuple("abcdefgh"[: max(labels) + 1])
    ids = tuple(f"i{k:04d}" for k in range(len(labels)))
    return Dataset("made", classes, ids, np.array(labels), "f" * 64, lambda i: np.zeros((9, 9, 3), np.uint8),
                   tuple(groups) if groups else None)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.integers(20, 90), st.integers(2, 4), st.booleans(), st.integers(2, 5), st.integers(0, 9))
def test_folds_partition_and_never_share_a_patient(
    seed: int, patients: int, classes: int, mixed: bool, k: int, chance: int
) -> None:
    data = plain_dataset(*hospital(seed, patients, classes, mixed))
    folds = make_folds(data, folds=k, seed=chance)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested.tolist()) == list(range(len(data)))
    assert data.groups is not None
    for fold in folds:
        everything = np.concatenate([fold.role(role) for role in ROLES])
        assert sorted(everything.tolist()) == list(range(len(data)))
        owners = [{data.groups[i] for i in fold.role(role)} for role in ROLES]
        assert sum(map(len, owners)) == len(set().union(*owners))


def test_classes_and_shares_are_balanced() -> None:
    labels, groups = hospital(3, 900, 4, False)
    data = plain_dataset(labels, groups)
    whole = np.bincount(data.labels) / len(data)
    for fold in (split(data), *make_folds(data)):
        tested = SHARES["test"] if fold.of == 1 else 1 / fold.of
        for role, share in SHARES.items():
            part = fold.role(role)
            wanted = tested if role == "test" else share * (1 - tested) / (1 - SHARES["test"])
            assert len(part) / len(data) == pytest.approx(wanted, abs=0.01)
            assert np.abs(np.bincount(data.labels[part], minlength=4) / len(part) - whole).max() < 0.02


def test_one_huge_patient_does_not_tilt_the_rest() -> None:
    labels = [0] * 60 + [0, 1] * 150
    groups = ["huge"] * 60 + [f"p{k}" for k in range(300)]
    for fold in make_folds(plain_dataset(labels, groups)):
        counts = np.bincount(np.array(labels)[fold.test], minlength=2)
        assert counts[1] == 30
        assert 36 <= counts[0] <= 60


def test_a_rare_class_reaches_every_role_where_it_can() -> None:
    labels = [0] * 200 + [1] * 12
    fold = split(plain_dataset(labels, None))
    assert all((np.array(labels)[fold.role(role)] == 1).any() for role in ROLES)


def test_seed_decides_and_order_does_not() -> None:
    labels, groups = hospital(5, 80, 3, True)
    data = plain_dataset(labels, groups)
    assert split(data, seed=1).test.tolist() == split(data, seed=1).test.tolist()
    assert split(data, seed=1).test.tolist() != split(data, seed=2).test.tolist()
    order = np.random.default_rng(0).permutation(len(labels))
    turned = plain_dataset([labels[i] for i in order], [groups[i] for i in order])
    tested = {groups[i] for i in split(data, seed=1).test}
    assert {turned.groups[i] for i in split(turned, seed=1).test} == tested  # type: ignore[index]


def test_given_groups_replace_the_datasets_own(memory: Memory) -> None:
    data = memory([0, 1] * 20)
    pairs = [f"g{i // 2}" for i in range(40)]
    fold = split(data, groups=pairs)
    assert verify_fold(data, fold, groups=pairs) is not None
    with pytest.raises(UsageError, match="one group for each of 40"):
        split(data, groups=pairs[:-1])


def test_too_few_groups_are_refused(memory: Memory) -> None:
    data = memory([0] * 20 + [1] * 8, groups=[f"p{i}" for i in range(20)] + [f"q{i // 2}" for i in range(8)])
    with pytest.raises(Refused, match=r"at least 5 groups \(patients\) of 'b' for 5 folds.*got 4"):
        make_folds(data, folds=5)
    assert len(make_folds(data, folds=4)) == 4
    with pytest.raises(Refused, match="at least 2 groups"):
        split(memory([0, 0, 0, 1]))


@pytest.mark.parametrize("shares", [{"train": 0.5, "exam": 0.5}, {"test": 1.0}, {"train": 1.0, "test": -0.1}, {}])
def test_shares_without_sense(memory: Memory, shares: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="shares"):
        split(memory([0, 1] * 10), shares=shares)
    with pytest.raises(UsageError, match="at least 2 folds"):
        make_folds(memory([0, 1] * 10), folds=1)


def test_a_share_of_zero_leaves_a_role_empty(memory: Memory) -> None:
    fold = split(memory([0, 1] * 50), shares={"train": 0.5, "calibrate": 0.0, "test": 0.5})
    assert (len(fold.train), len(fold.calibrate), len(fold.tune), len(fold.test)) == (50, 0, 0, 50)


def move(fold: Fold, index: int, source: str, target: str) -> Fold:
    """The fold with one image added to `target`, and taken from `source` where they differ."""
    given = {target: np.append(fold.role(target), index)}
    return replace(fold, **{source: fold.role(source)[fold.role(source) != index], **given})


def test_calibration_must_not_overlap_test(memory: Memory) -> None:
    data = memory([0, 1] * 30)
    fold = split(data)
    leaking = replace(fold, calibrate=np.append(fold.calibrate, fold.test[0]))
    with pytest.raises(Refused, match="is in 'calibrate' and in 'test'"):
        verify_fold(data, leaking)


def test_a_patient_in_two_roles_is_refused(memory: Memory) -> None:
    data = memory([0, 1] * 30, groups=[f"p{i // 2}" for i in range(60)])
    fold = split(data)
    with pytest.raises(Refused, match=r"every group in one role; 'p\d+'"):
        verify_fold(data, move(fold, int(fold.test[0]), "test", "train"))


def test_a_class_that_calibration_lacks_is_told(memory: Memory) -> None:
    data = memory([0] * 40 + [1] * 12)
    fold = split(data)
    rare = [i for i in fold.calibrate.tolist() if i >= 40]
    for i in rare:
        fold = move(fold, i, "calibrate", "train")
    told = verify_fold(data, fold)
    assert any("'calibrate' has no image of b; activation ranges" in sentence for sentence in told)
    assert verify_fold(data, split(data)) == ()


def test_saved_folds_come_back_and_other_data_are_refused(memory: Memory, tmp_path: Path) -> None:
    data = memory([0, 1] * 30, groups=[f"p{i // 2}" for i in range(60)])
    fold = make_folds(data, folds=3, seed=7)[1]
    save_fold(fold, tmp_path / "fold.json")
    back = load_fold(tmp_path / "fold.json", data)
    assert (back.number, back.of, back.seed) == (1, 3, 7)
    assert all(back.role(role).tolist() == fold.role(role).tolist() for role in ROLES)
    other = memory([0, 1] * 30, fingerprint="e" * 64)
    with pytest.raises(Refused, match="made for ffffffffffff"):
        load_fold(tmp_path / "fold.json", other)


@pytest.mark.parametrize("change", [{"train": ["x"]}, {"train": [999]}, {"seed": None}, {"dataset": None}])
def test_broken_fold_files_are_refused(memory: Memory, tmp_path: Path, change: dict[str, object]) -> None:
    data = memory([0, 1] * 30)
    save_fold(split(data), tmp_path / "fold.json")
    stored = json.loads((tmp_path / "fold.json").read_text(encoding="utf-8"))
    (tmp_path / "fold.json").write_text(json.dumps(stored | change), encoding="utf-8")
    with pytest.raises(Refused, match="fold"):
        load_fold(tmp_path / "fold.json", data)
    (tmp_path / "fold.json").write_text("{}", encoding="utf-8")
    with pytest.raises(Refused, match="Expected a fold"):
        load_fold(tmp_path / "fold.json", data)


def test_published_splits_become_roles_and_the_rest_is_cut_from_train(memory: Memory) -> None:
    splits = ["train"] * 80 + ["val"] * 10 + ["test"] * 20 + ["external"] * 10
    data = memory([0, 1] * 60, groups=[f"p{i // 2}" for i in range(120)], splits=splits)
    fold = published_fold(data)
    assert fold.test.tolist() == list(range(90, 110))
    assert fold.tune.tolist() == list(range(80, 90))
    carved = np.concatenate([fold.train, fold.calibrate, fold.select])
    assert sorted(carved.tolist()) == list(range(80))
    assert len(fold.train) > 4 * len(fold.calibrate) > 0
    verify_fold(data, fold)


def test_published_splits_that_leak_are_refused(memory: Memory) -> None:
    data = memory([0, 1] * 10, groups=["p"] * 20, splits=["train"] * 10 + ["test"] * 10)
    with pytest.raises(Refused, match="every group in one role"):
        published_fold(data)
    with pytest.raises(Refused, match="there are none"):
        published_fold(memory([0, 1] * 10))
    with pytest.raises(Refused, match="a split 'test'"):
        published_fold(memory([0, 1] * 10, splits=["train"] * 20))
