"""MedMNIST-style archives, and archives that only pretend to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantward.core.errors import Refused
from quantward.data import open_dataset


def arrays(**changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        made[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    return made | changed


def save(path: Path, **changed: Any) -> Path:
    np.savez_compressed(path, **{key: value for key, value in arrays(**changed).items() if value is not None})
    return path


def test_splits_labels_and_pixels(tmp_path: Path) -> None:
    data = open_dataset(save(tmp_path / "toy.npz"), classes=("normal", "ill"))
    assert (data.name, len(data), data.classes) == ("toy", 10, ("normal", "ill"))
    assert data.splits == ("train",) * 5 + ("val",) * 2 + ("test",) * 3
    assert data.ids[4:8] == ("train/000004", "val/000000", "val/000001", "test/000000")
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 1, 0]
    made = arrays()
    for i, expected in ((0, made["train_images"][0]), (6, made["val_images"][1]), (9, made["test_images"][2])):
        assert np.array_equal(data.read(i), np.repeat(expected[:, :, None], 3, axis=2))


def test_colour_and_one_channel(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 256, (3, 30, 20, 3), dtype=np.uint8)
    data = open_dataset(save(tmp_path / "c.npz", test_images=colour, val_images=np.zeros((2, 28, 28, 1), np.uint8)))
    assert np.array_equal(data.read(8), colour[1])
    assert data.read(5).shape == (28, 28, 3)


def test_only_some_splits(tmp_path: Path) -> None:
    gone = {key: None for key in arrays() if key.startswith(("val", "train"))}
    assert open_dataset(save(tmp_path / "t.npz", **gone)).splits == ("test",) * 3


class Boom:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("key", ["train_images", "train_labels", "note"])
def test_pickles_are_refused_and_not_run(tmp_path: Path, key: str) -> None:
    with pytest.raises(Refused, match="pickled"):
        open_dataset(save(tmp_path / "evil.npz", **{key: np.array([Boom()] * 5, object)}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train_images": np.zeros((5, 28, 28), np.float32)}, "uint8 images"),
        ({"train_images": np.zeros((5, 28, 28, 28), np.uint8)}, "uint8 images"),
        ({"train_labels": np.zeros((5, 14), np.uint8)}, "one label an image"),
        ({"train_labels": np.zeros(5, np.float32)}, "whole numbers"),
        ({"train_labels": np.full(5, -1)}, "whole numbers"),
        ({"train_labels": None}, "Expected train_labels"),
        (dict.fromkeys(arrays()) | {"x": np.zeros(3)}, "got x"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        open_dataset(save(tmp_path / "odd.npz", **changed))


def test_too_few_class_names(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="labels below 1"):
        open_dataset(save(tmp_path / "a.npz"), classes=("normal",))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04rubbish"])
def test_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(Refused, match=r"a\.npz"):
        open_dataset(tmp_path / "a.npz")


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first = open_dataset(save(tmp_path / "a.npz")).fingerprint
    other = open_dataset(save(tmp_path / "a.npz", test_images=np.zeros((3, 28, 28), np.uint8))).fingerprint
    assert first != other
