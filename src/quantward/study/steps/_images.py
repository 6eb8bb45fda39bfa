"""The images that a step is about, opened once a process: looking for copies among thousands takes minutes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from quantward.core.errors import Refused
from quantward.core.store import read_json
from quantward.core.values import Dataset
from quantward.data import open_dataset
from quantward.runs import Prepared, Run, run_with
from quantward.study.images import opened
from quantward.study.values import Workplace


def images_of(place: Path, fingerprint: str, split: str) -> Prepared:
    """The images at `place` as the study saw them; `split` is as `study.images.how_split` says.

    Raises Refused where they have changed since.
    """
    found = _prepared(place, fingerprint, split)
    _require_same(found.dataset, fingerprint, place)
    return found


def external_of(place: Workplace) -> Dataset:
    """The external images of a step. Raises Refused where they have changed since the study was designed."""
    path = Path(place.step.places["external"])
    found = _external(path, place.step.asked["fingerprint"])
    _require_same(found, place.step.asked["fingerprint"], path)
    return found


def network_of(place: Workplace) -> Run:
    """The trained network that a step needs (`run`), with its images and its fold."""
    told = read_json(place.inputs["run"] / "data.json")
    images = images_of(Path(place.step.places["data"]), told["fingerprint"], told["split"])
    return run_with(place.inputs["run"], images)


@lru_cache(maxsize=4)
def _prepared(place: Path, fingerprint: str, split: str) -> Prepared:
    return opened(place, split, 1)


@lru_cache(maxsize=2)
def _external(place: Path, fingerprint: str) -> Dataset:
    return open_dataset(place)


def _require_same(dataset: Dataset, fingerprint: str, place: Path) -> None:
    if dataset.fingerprint != fingerprint:
        raise Refused(
            f"Expected the images at {place} as they were when the study began; they have changed. Run the same "
            "command again: what depends on them is carried out anew."
        )
