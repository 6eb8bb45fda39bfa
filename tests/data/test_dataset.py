"""Opening by looking, parts of a data set, and another class order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantward.core.errors import Refused
from quantward.data import open_dataset, subset, with_classes


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(b"x")
    with pytest.raises(Refused, match="a folder, a "):
        open_dataset(tmp_path / "scan.png")


def test_reading_is_lazy(tree: Path) -> None:
    data = open_dataset(tree)
    (tree / "benign/0.png").write_bytes(b"torn since")
    with pytest.raises(Refused, match=r"benign/0\.png"):
        data.read(0)
    assert data.read(1).shape == (24, 20, 3)


def test_a_part_keeps_classes_and_maps_everything(tree: Path) -> None:
    data = open_dataset(tree)
    part = subset(data, [4, 1], groups=["p", "q"])
    assert part.ids == (data.ids[4], data.ids[1])
    assert part.labels.tolist() == [1, 0]
    assert part.classes == data.classes
    assert part.groups == ("p", "q")
    assert np.array_equal(part.read(0), data.read(4))
    again = subset(part, [1])
    assert np.array_equal(again.read(0), data.read(1))
    assert again.groups == ("q",)


def test_a_part_has_a_fingerprint_of_its_own(tree: Path) -> None:
    data = open_dataset(tree)
    parts = (([0, 1], None), ([1, 0], None), ([0, 1], ["a", "b"]), ([0, 1], ["a", "a"]))
    prints = [subset(data, rows, groups=groups).fingerprint for rows, groups in parts]
    assert len({data.fingerprint, *prints}) == 5
    assert subset(data, np.array([0, 1])).fingerprint == prints[0]


def test_another_class_order(tree: Path) -> None:
    data = open_dataset(tree)
    turned = with_classes(data, ("other", "malign", "benign"))
    assert [turned.classes[k] for k in turned.labels] == [data.classes[k] for k in data.labels]
    assert turned.fingerprint == data.fingerprint
    with pytest.raises(Refused, match="got malign"):
        with_classes(data, ("benign",))
    assert with_classes(subset(data, [0, 1]), ("benign",)).labels.tolist() == [0, 0]
