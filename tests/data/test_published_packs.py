"""What `check` must find by itself on the published sets, without any list that comes with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from quantward.data import check, leak_free, make_folds, open_dataset, split, subset, verify_fold

Pack = Callable[[str], Path]


def test_brain_mri_leaks_most_of_its_test_set(pack: Pack) -> None:
    data = open_dataset(pack("brain_mri_sartaj"), labels_from="folders")
    assert data.groups is None
    report = check(data)
    found = {flaw.code: flaw for flaw in report.flaws}
    assert (report.n, report.distinct, report.duplicates) == (3264, 2870, 394)
    assert found["split-duplicate"].level == "error"
    assert found["split-duplicate"].text == "251 of the 394 test images are pixel-identical to training images."
    assert found["split-near-duplicate"].count == 8
    assert "label-conflict" not in found

    clean, kept = leak_free(data, report)
    assert len(clean) == 2870 and kept.copies == 394
    assert len(set(report.picture[kept.indices].tolist())) == 2870
    kept_as = {int(report.picture[i]): data.ids[i] for i in kept.indices}
    whole = np.bincount(clean.labels) / len(clean)
    for fold in (split(clean), *make_folds(clean)):
        assert verify_fold(clean, fold) == ()
        part = np.bincount(clean.labels[fold.test]) / len(fold.test)
        assert np.abs(part - whole).max() < 0.01
        tested = {clean.ids[i] for i in fold.test}
        assert all(len({kept_as[i] in tested for i in pair}) == 1 for pair in report.near)


def test_conjunctiva_holds_485_pictures(pack: Pack) -> None:
    white = open_dataset(pack("conjunctiva_cp_anemic"), labels_from="folders", background=(255, 255, 255))
    assert check(white, near=False).distinct == 485
    data = open_dataset(pack("conjunctiva_cp_anemic"), labels_from="folders")
    report = check(data)
    conflict = next(flaw for flaw in report.flaws if flaw.code == "label-conflict")
    assert (report.n, report.distinct) == (710, 485)
    assert conflict.cases == (("Anemic/Image_310.png", "Non-anemic/Image_188.png"),)
    clean, kept = leak_free(data, report)
    assert (len(clean), kept.conflicts) == (484, 2)


def test_conjunctiva_is_filed_under_several_children(pack: Pack) -> None:
    data = open_dataset(pack("conjunctiva_cp_anemic"))
    by_child = subset(data, range(len(data)), groups=data.attributes["subject"])
    found = {flaw.code: flaw.count for flaw in check(by_child, near=False).flaws}
    assert found["group-duplicate"] == 87


def test_skin_lesions_lie_on_both_sides(pack: Pack) -> None:
    report = check(open_dataset(pack("skin_isic9")), near=False)
    assert next(flaw.count for flaw in report.flaws if flaw.code == "split-group") == 32


def test_pneumoniamnist_validation_leaks_too(pack: Pack) -> None:
    data = open_dataset(pack("pneumoniamnist_28") / "pneumoniamnist.npz", classes=("normal", "pneumonia"))
    assert np.bincount(data.labels).tolist() == [1583, 4273]
    leak = next(flaw for flaw in check(data, near=False).flaws if flaw.code == "split-duplicate")
    assert leak.text == "8 of the 524 val images are pixel-identical to training images."


def test_patient_groups_hold_in_chest_folds(pack: Pack) -> None:
    data = open_dataset(pack("chest_xray_talo"))
    folds = make_folds(data, seed=3)
    for fold in folds:
        assert verify_fold(data, fold) == ()
        assert np.abs(np.bincount(data.labels[fold.test]) / np.bincount(data.labels) - 0.2).max() < 0.03
