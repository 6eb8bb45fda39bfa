"""Small data sets for the tests of this room, and the way to the published packs where they are at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantward.core.values import Dataset, ImageArray

PACKS = (Path(__file__).resolve().parents[2] / "../shared/data").resolve()


def noise(seed: int, height: int = 24, width: int = 20) -> ImageArray:
    """A picture that no other seed gives."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def picture() -> Callable[..., ImageArray]:
    return noise


@pytest.fixture
def save() -> Callable[..., Path]:
    """save(path, pixels): a PNG, folders made as needed."""

    def write(path: Path, pixels: ImageArray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def tree(tmp_path: Path, save: Callable[..., Path]) -> Path:
    """Two classes, three pictures each."""
    for k in range(6):
        save(tmp_path / "data" / ("benign", "malign")[k % 2] / f"{k}.png", noise(k))
    return tmp_path / "data"


@pytest.fixture
def memory() -> Callable[..., Dataset]:
    """memory(labels, groups=..., splits=...): a Dataset without files; image i is `noise(i)` unless `same` maps i."""

    def make(
        labels: list[int],
        groups: list[str] | None = None,
        splits: list[str] | None = None,
        same: dict[int, int] | None = None,
        fingerprint: str = "f" * 64,
    ) -> Dataset:
        known = same or {}
        return Dataset(
            name="memory",
            classes=tuple("abcdefgh"[: max(labels) + 1]),
            ids=tuple(f"i{k:04d}" for k in range(len(labels))),
            labels=np.array(labels, np.int64),
            fingerprint=fingerprint,
            reader=lambda i: noise(known.get(i, i)),
            groups=tuple(groups) if groups else None,
            splits=tuple(splits) if splits else None,
        )

    return make


@pytest.fixture
def pack() -> Callable[[str], Path]:
    """pack(name): the folder of a published pack; the test is skipped where it is not at hand."""

    def find(name: str) -> Path:
        if not (PACKS / name).exists():
            pytest.skip(f"the published pack {name} is not at hand")
        return PACKS / name

    return find
