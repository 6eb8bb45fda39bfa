"""What a design has to know of its data sets before anything runs: that they can be used, and how many images play
which role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from quantward.core.errors import UsageError
from quantward.core.progress import Track, silent
from quantward.core.store import decode, digest_text, read_json, write_json
from quantward.core.values import ROLES, Dataset, Fold
from quantward.data import SHARES, default_folder, make_folds, make_toy, open_dataset
from quantward.runs import Prepared
from quantward.study.images import fold_of, opened
from quantward.study.keys import canonical, made_by
from quantward.study.wants import Images

ROOMS, LIBRARIES = ("data", "runs", "study.images", "study.looking"), ("numpy", "pillow")
"""What decides how images are seen."""


@dataclass(frozen=True)
class Seen:
    """What a design knows of one data set of its study. `fingerprint` is that of the images as they are used, `counts`
    how many play which role, a mapping a fold."""

    place: Path
    fingerprint: str
    counts: tuple[Mapping[str, int], ...]
    external: Path | None = None
    external_fingerprint: str = ""
    external_count: int = 0
    warnings: tuple[str, ...] = ()


def located(images: Images, root: Path, toys: Path | None = None, *, track: Track = silent) -> tuple[Path, Path | None]:
    """Where the images and the external ones lie. Made-up images are made, below `toys` (the cache by default)."""
    home = toys or default_folder() / "toys"

    def toy(seed: int) -> Path:
        folder = home / f"{images.toy}-images-{images.classes}-classes-seed-{seed}"
        return make_toy(folder, n=images.toy, classes=images.classes, seed=seed, track=track)

    own = toy(0) if images.toy else root / images.path
    if not images.external:
        return own, None
    return own, toy(1) if images.external == "toy" else root / images.external


def look(
    images: Images,
    root: Path,
    *,
    folds: int,
    seed: int,
    shares: Mapping[str, float],
    toys: Path | None = None,
    track: Track = silent,
) -> Seen:
    """Open one data set, check it and deal its folds. While no file of it changes (by size and time), what was seen is
    remembered: looking for copies among thousands takes a minute. Every step compares fingerprints anyway.

    Raises Refused for images that cannot be used as the study says, UsageError for a split that it cannot have.
    """
    if folds > 1 and images.split not in ("auto", "own", "ungrouped"):
        raise UsageError(
            f"Expected a split of auto, own or ungrouped with {folds} folds; {images.name} has {images.split!r}. "
            "Every fold tests its own part: write folds: 1, or another split."
        )
    place, external = located(images, root, toys, track=track)
    asked = {"images": images, "folds": folds, "seed": seed, "shares": shares, "code": made_by(ROOMS, LIBRARIES),
             "files": [_files(place), _files(external)]}  # fmt: skip
    note = default_folder() / "seen" / f"{digest_text(canonical(asked))[:32]}.json"
    if note.exists():
        return decode(Seen, read_json(note), note)
    prepared = opened(place, images.split, folds, track=track)
    counts = [{role: len(fold.role(role)) for role in ROLES} for fold in _folds(prepared, folds, seed, shares)]
    seen = Seen(place, prepared.dataset.fingerprint, tuple(counts), warnings=prepared.warnings)
    if external is not None:
        outside = open_dataset(external, track=track)
        _require_classes(outside, prepared.dataset, images.name)
        seen = replace(seen, external=external, external_fingerprint=outside.fingerprint, external_count=len(outside))
    write_json(note, seen)
    return seen


def _files(place: Path | None) -> list[tuple[str, int, int]]:
    """Every file of a data set with its size and when it was last changed; for a CSV all that lie beside it."""
    if place is None or not place.exists():
        return []
    home = place.parent if place.suffix.lower() == ".csv" else place
    found = sorted(path for path in home.rglob("*") if path.is_file()) if home.is_dir() else [home]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in found]


def _require_classes(outside: Dataset, own: Dataset, name: str) -> None:
    unknown = sorted(set(outside.classes) - set(own.classes))
    if unknown:
        raise UsageError(
            f"Expected external images of the classes {', '.join(own.classes)} for {name}; got {', '.join(unknown)}. "
            "Name others, or leave external out."
        )


def _folds(images: Prepared, of: int, seed: int, shares: Mapping[str, float]) -> tuple[Fold, ...]:
    """All folds of a study; each is what `fold_of` draws.

    Raises Refused where a class has too few patients for so many.
    """
    if of == 1:
        return (fold_of(images, {"number": 0, "of": 1, "seed": seed, "shares": shares}),)
    return make_folds(images.dataset, folds=of, seed=seed, shares={**SHARES, **shares})
