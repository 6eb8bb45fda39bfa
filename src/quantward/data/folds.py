"""Who plays which role: folds that keep each patient in one role and each class's share in all of them.

A patient on both sides of a split makes a test set answer for the training set. So whole groups are dealt, the
largest first, each to the part that lacks its classes most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused, UsageError
from quantward.core.store import plain, read_json, write_json
from quantward.core.values import ROLES, Dataset, Fold, IntArray

SHARES: Mapping[str, float] = MappingProxyType(
    {"train": 0.45, "tune": 0.10, "calibrate": 0.08, "select": 0.07, "test": 0.30}
)
"""What each role gets of all images, unless told otherwise. A proof takes more test images than a mean does."""

Groups = Sequence[str]


def make_folds(
    dataset: Dataset,
    *,
    folds: int = 5,
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    groups: Groups | None = None,
) -> tuple[Fold, ...]:
    """`folds` stratified, grouped folds whose test parts partition the dataset.

    Each test part holds 1/folds of the images; `shares` divides the rest among the other roles (only their ratios
    count, and a share of 0 leaves a role empty). `groups`, one name an image, replace the dataset's own; without
    either, every image is a group. The same arguments give the same folds, whatever the order of the images.

    Raises Refused where a class has fewer groups than folds, UsageError for shares that make no sense.
    """
    if folds < 2:
        raise UsageError(f"Expected at least 2 folds; got {folds}. Use split for a single one.")
    rest = {role: share for role, share in _checked(shares).items() if role != "test" and share > 0}
    deck = _Deck(dataset, groups, seed)
    deck.require(folds, f"{folds} folds", "Use fewer folds or gather more")
    part = deck.deal(np.ones(len(deck.counts), bool), [1.0] * folds)
    return tuple(deck.fold(number, folds, {"test": part == number}, rest) for number in range(folds))


def split(
    dataset: Dataset,
    *,
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    groups: Groups | None = None,
) -> Fold:
    """One stratified, grouped Fold; `shares` says what each role gets of all images (ratios count).

    Raises Refused where a class has fewer than two groups, UsageError for shares that make no sense.
    """
    given = {role: share for role, share in _checked(shares).items() if share > 0}
    deck = _Deck(dataset, groups, seed)
    deck.require(2, "training and test", "Gather more")
    return deck.fold(0, 1, {}, given)


def published_fold(
    dataset: Dataset,
    *,
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    groups: Groups | None = None,
) -> Fold:
    """The Fold that the dataset's own `splits` describe; roles that they do not name are cut from train.

    `train`, `val` (which is `tune`), `tune`, `calibrate`, `select` and `test` are known; other splits play no role.
    Splits that name `calibrate` or `select` were written by `write_split`: then nothing is cut from train.

    Raises Refused where train or test is not among the splits, or a group is in two roles.
    """
    if dataset.splits is None:
        raise Refused(f"Expected published splits in {dataset.name}; there are none. Use a fold of its own.")
    names = np.array(["tune" if split == "val" else split for split in dataset.splits])
    for role in ("train", "test"):
        if role not in names:
            raise Refused(f"Expected a split {role!r} in {dataset.name}; got {', '.join(sorted(set(names)))}. Add it.")
    whole = bool(np.isin(names, ("calibrate", "select")).any())
    wanted = {role: share for role, share in _checked(shares).items() if share > 0 and (role == "train" or not whole)}
    missing = {role: share for role, share in wanted.items() if role == "train" or role not in names}
    kept = {role: np.flatnonzero(names == role) for role in ROLES if role not in missing}
    pool = np.flatnonzero(names == "train")
    deck = _Deck(dataset, groups, seed)
    parts = deck.roles(np.isin(np.arange(len(deck.counts)), deck.group[pool]), missing)
    cut = {role: pool[np.isin(deck.group[pool], np.flatnonzero(chosen))] for role, chosen in parts.items()}
    fold = _fold(dataset, 0, 1, seed, {**kept, **cut})
    verify_fold(dataset, fold, groups=groups)
    return fold


def verify_fold(dataset: Dataset, fold: Fold, *, groups: Groups | None = None) -> tuple[str, ...]:
    """Check that a Fold belongs to the dataset and leaks nothing; the warnings it deserves, as sentences.

    Raises Refused for another dataset, an index out of range, an image in two roles (calibration images that are
    test images, say), or a group in two roles.
    """
    if fold.dataset != dataset.fingerprint:
        raise Refused(
            f"Expected a fold of {dataset.name} ({dataset.fingerprint[:12]}); it was made for {fold.dataset[:12]}. "
            "An image, label or group has changed: make the folds anew."
        )
    images: dict[int, str] = {}
    patients: dict[str, str] = {}
    names = groups if groups is not None else dataset.groups
    for role in ROLES:
        for i in fold.role(role).tolist():
            if not 0 <= i < len(dataset):
                raise Refused(
                    f"Expected image numbers below {len(dataset)} in role {role!r}; got {i}. Make the fold anew."
                )
            if i in images:
                raise Refused(
                    f"Expected every image once in one role; {dataset.ids[i]!r} is in {images[i]!r} and in {role!r}. "
                    "Make the fold anew."
                )
            images[i] = role
            if names is not None and patients.setdefault(names[i], role) != role:
                raise Refused(
                    f"Expected every group in one role; {names[i]!r} is in {patients[names[i]]!r} and in {role!r}. "
                    "Make the fold anew with these groups."
                )
    return _warnings(dataset, fold)


def _warnings(dataset: Dataset, fold: Fold) -> tuple[str, ...]:
    found = []
    for role in ROLES:
        labels = dataset.labels[fold.role(role)]
        absent = [name for k, name in enumerate(dataset.classes) if not (labels == k).any()]
        if len(labels) and absent:
            effect = {
                "calibrate": "activation ranges will not cover it",
                "test": "its metrics and every macro average are undefined",
            }.get(role, "nothing is learnt or chosen for it there")
            found.append(f"Role {role!r} has no image of {', '.join(absent)}; {effect}.")
    return tuple(found)


def save_fold(fold: Fold, path: Path | str) -> None:
    """Write a Fold as JSON."""
    write_json(path, {"format": 1, **plain(fold)})


def load_fold(path: Path | str, dataset: Dataset, *, groups: Groups | None = None) -> Fold:
    """Read a Fold and verify it against the dataset.

    Raises Refused for a broken file, a fold of other images, or one that leaks.
    """
    data = read_json(path)
    names = {field.name for field in fields(Fold)}
    if not isinstance(data, dict) or not names <= set(data):
        raise Refused(f"Expected a fold in {path}; got other JSON. Make the fold anew.")
    try:
        parts = {role: np.asarray(data[role], np.int64).reshape(-1) for role in ROLES}
        fold = Fold(int(data["number"]), int(data["of"]), int(data["seed"]), str(data["dataset"]), **parts)
    except (TypeError, ValueError) as error:
        raise Refused(f"Expected a fold in {path}; got: {error}. Make the fold anew.") from None
    verify_fold(dataset, fold, groups=groups)
    return fold


def _checked(shares: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(set(shares) - set(ROLES))
    if unknown:
        raise UsageError(f"Expected shares for {', '.join(ROLES)}; got {unknown[0]!r}. Use these names.")
    if min(shares.values(), default=-1.0) < 0 or not shares.get("train", 0) > 0:
        raise UsageError("Expected shares of at least 0 and a train share above 0; got others. Mend them.")
    return {role: float(shares[role]) for role in ROLES if role in shares}


def _fold(dataset: Dataset, number: int, of: int, seed: int, parts: Mapping[str, IntArray]) -> Fold:
    empty = np.zeros(0, np.int64)
    return Fold(number, of, seed, dataset.fingerprint, **{role: parts.get(role, empty) for role in ROLES})


class _Deck:
    """A dataset's groups in the order they are dealt: large ones first, equal ones shuffled by the seed.

    `group[i]` is the group of image i, `counts` (groups, classes) its images by class.
    """

    def __init__(self, dataset: Dataset, groups: Groups | None, seed: int) -> None:
        names = groups if groups is not None else dataset.groups or dataset.ids
        if len(names) != len(dataset):
            raise UsageError(f"Expected one group for each of {len(dataset)} images; got {len(names)}. Give them all.")
        self.dataset, self.seed = dataset, seed
        unique, self.group = np.unique(np.asarray(names, dtype=str), return_inverse=True)
        self.counts = np.zeros((len(unique), len(dataset.classes)), np.int64)
        np.add.at(self.counts, (self.group, dataset.labels), 1)
        chance = np.random.default_rng(seed).permutation(len(unique))
        self.order = np.lexsort((chance, -self.counts.sum(1)))

    def require(self, least: int, purpose: str, cure: str) -> None:
        for k, name in enumerate(self.dataset.classes):
            having = int((self.counts[:, k] > 0).sum())
            if having < least:
                raise Refused(
                    f"Expected at least {least} groups (patients) of {name!r} for {purpose} of {self.dataset.name}; "
                    f"got {having}. {cure}."
                )

    def deal(self, among: npt.NDArray[np.bool_], shares: Sequence[float]) -> npt.NDArray[np.int64]:
        """Deal the groups `among` to parts that should get `shares` of each class; the part of each group, else -1.

        A group goes where it lowers the sum over classes of (have - want)^2 / want most, `want` being the part's
        share of the class; among equals to the part that lacks its class altogether.
        """
        ratio = np.asarray(shares, float) / np.sum(shares)
        want = np.maximum(ratio[:, None] * self.counts[among].sum(0)[None, :], 1e-9)
        have = np.zeros_like(want)
        part = np.full(len(self.counts), -1, np.int64)
        for g in self.order[among[self.order]].tolist():
            gain = self.counts[g]
            cost = (gain * (2 * (have - want) + gain) / want).sum(1) - 1e-6 * ((have == 0) & (gain > 0)).any(1)
            part[g] = int(np.argmin(cost))
            have[part[g]] += gain
        return part

    def roles(self, among: npt.NDArray[np.bool_], shares: Mapping[str, float]) -> dict[str, npt.NDArray[np.bool_]]:
        part = self.deal(among, list(shares.values()))
        return {role: part == k for k, role in enumerate(shares)}

    def fold(
        self, number: int, of: int, fixed: Mapping[str, npt.NDArray[np.bool_]], shares: Mapping[str, float]
    ) -> Fold:
        """A Fold of the groups `fixed` to roles and the others dealt by `shares`."""
        free = ~np.logical_or.reduce([*fixed.values(), np.zeros(len(self.counts), bool)])
        chosen = {**fixed, **self.roles(free, shares)}
        parts = {role: np.flatnonzero(mask[self.group]) for role, mask in chosen.items()}
        return _fold(self.dataset, number, of, self.seed, parts)
