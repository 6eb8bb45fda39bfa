"""Opens whatever DATA is, and cuts or renames what was opened. The format is decided by looking, not by a flag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused
from quantward.core.progress import Track, silent
from quantward.core.store import digest_text
from quantward.core.values import Dataset, ImageArray
from quantward.data._images import BLACK, Colour, Picture, look
from quantward.data.folder import read_folder
from quantward.data.npz import read_npz
from quantward.data.table import read_table


def open_dataset(
    path: Path | str,
    *,
    name: str | None = None,
    background: Colour = BLACK,
    root: Path | str | None = None,
    classes: Sequence[str] | None = None,
    labels_from: Literal["auto", "folders"] = "auto",
    track: Track = silent,
) -> Dataset:
    """DATA as a Dataset: a folder of class folders, a folder with `images.csv`, a `.csv`, or a MedMNIST-style `.npz`.

    Images are read when asked for; every file is hashed now, for the fingerprint. `background` lies under
    transparent pixels. `root` is the folder a CSV's paths are relative to (its own by default). `classes` fixes the
    class order. `labels_from="folders"` passes over an `images.csv`.

    Raises Refused, in one sentence, for anything else.
    """
    path = Path(path)
    title = name or (path.resolve().name if path.is_dir() else path.stem)
    suffix = path.suffix.lower()
    if root is not None and suffix != ".csv":
        raise Refused(f"Expected a CSV together with root; got {path}. Leave root out.")
    if path.is_dir():
        table = path / "images.csv"
        if labels_from == "auto" and table.exists():
            return read_table(table, name=title, background=background, classes=classes, track=track)
        return read_folder(path, name=title, background=background, classes=classes, track=track)
    if not path.exists():
        raise Refused(f"Expected a data set at {path}; there is nothing. Check the path.")
    if suffix == ".csv":
        home = Path(root) if root is not None else None
        return read_table(path, name=title, root=home, background=background, classes=classes, track=track)
    if suffix == ".npz":
        return read_npz(path, name=title, classes=classes)
    raise Refused(f"Expected a folder, a .csv or a .npz; got {path}. List single images in a CSV with path,label.")


@dataclass(frozen=True)
class PartReader:
    """Reads image i of a part through the whole's reader."""

    whole: Callable[[int], ImageArray]
    rows: tuple[int, ...]

    def __call__(self, i: int) -> ImageArray:
        return self.whole(self.rows[i])

    def picture(self, i: int) -> Picture:
        """Image i with what had to be decided while decoding it."""
        return look(self.whole, self.rows[i])


def subset(
    dataset: Dataset,
    indices: Sequence[int] | npt.NDArray[np.integer],
    *,
    name: str | None = None,
    groups: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Dataset:
    """The images at `indices`, in that order; `groups` and `splits`, one an image kept, replace the old ones.

    All classes stay, so that labels keep their meaning. The fingerprint is derived from the whole's.
    """
    rows = [int(i) for i in indices]
    new_groups = _cells(groups, dataset.groups, rows)
    return replace(
        dataset,
        name=name or dataset.name,
        ids=tuple(dataset.ids[i] for i in rows),
        labels=dataset.labels[rows],
        fingerprint=digest_text("part", dataset.fingerprint, *map(str, rows), "groups", *(new_groups or ())),
        reader=PartReader(dataset.reader, tuple(rows)),
        groups=new_groups,
        splits=_cells(splits, dataset.splits, rows),
        attributes={key: tuple(values[i] for i in rows) for key, values in dataset.attributes.items()},
    )


def _cells(new: Sequence[str] | None, old: Sequence[str] | None, rows: list[int]) -> tuple[str, ...] | None:
    """A column of a part: the new one where given, the old one's cells otherwise."""
    if new is not None:
        return tuple(new)
    return None if old is None else tuple(old[i] for i in rows)


def with_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """The same images with labels counted in another class order, for example a model's; classes may be absent.

    Raises Refused for a label that is not among `classes`.
    """
    unknown = [name for i, name in enumerate(dataset.classes) if name not in classes and (dataset.labels == i).any()]
    if unknown:
        raise Refused(
            f"Expected only the classes {', '.join(classes)} in {dataset.name}; got {', '.join(unknown)}. "
            "Rename them or leave these images out."
        )
    position = np.array([list(classes).index(c) if c in classes else -1 for c in dataset.classes], np.int64)
    return replace(dataset, classes=tuple(classes), labels=position[dataset.labels])
