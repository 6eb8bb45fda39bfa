"""Which images of one set are also in another: an external test set must hold nothing the model was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantward.core.progress import Track, silent
from quantward.core.store import digest_text
from quantward.core.values import Dataset, ImageArray
from quantward.data import check, link_groups


@dataclass(frozen=True)
class Both:
    """Reads the images of one set, then those of another."""

    first: Dataset
    second: Dataset

    def __call__(self, i: int) -> ImageArray:
        return self.first.read(i) if i < len(self.first) else self.second.read(i - len(self.first))


def shared(dataset: Dataset, other: Dataset, track: Track = silent) -> list[int]:
    """The images of `dataset` that look like one of `other`, or like another image that does: its copies, re-saved or
    shifted, and their neighbours, by the measure of `quantward check`."""
    both = Dataset(
        name=f"{dataset.name} and {other.name}",
        classes=("image",),
        ids=(*(f"a/{name}" for name in dataset.ids), *(f"b/{name}" for name in other.ids)),
        labels=np.zeros(len(dataset) + len(other), np.int64),
        fingerprint=digest_text("both", dataset.fingerprint, other.fingerprint),
        reader=Both(dataset, other),
    )
    groups = link_groups(both, check(both, track=track), near=True)
    theirs = set(groups[len(dataset) :])
    return [i for i in range(len(dataset)) if groups[i] in theirs]
