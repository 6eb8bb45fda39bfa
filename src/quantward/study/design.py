"""From a study to its steps: every way through the grid, each piece of work once, in an order that keeps needs first.

Images are opened once to learn what they are, never while the grid is expanded; so ten thousand trials take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from quantward.core.errors import UsageError
from quantward.core.progress import Track, silent
from quantward.core.registry import Registry, spelling
from quantward.core.store import digest_file, digest_text
from quantward.study import rough
from quantward.study.grid import Way, baseline, wanted, ways
from quantward.study.images import how_split
from quantward.study.keys import Keys, keys_of
from quantward.study.looking import Seen, look
from quantward.study.spelling import teachers_in
from quantward.study.values import Design, Kind, Row, Step, Trial
from quantward.study.wants import Images, Net, Study, made
from quantward.workbench import RECIPES

STEPS = Registry("step", "quantward.study.steps")
KINDS = ("train", "plan", "file", "said", "score", "bench", "drift", "sensitivity")


def design(
    study: Study,
    root: Path,
    *,
    kinds: Mapping[str, Kind | type[Kind]] | None = None,
    seen: Mapping[str, Seen] | None = None,
    toys: Path | None = None,
    track: Track = silent,
) -> Design:
    """Everything that a study asks for. `root` is the folder that its paths start from; `toys` is where made-up images
    go (the cache by default). `kinds` are the registry's unless others are given, and `seen` spares opening the images
    of which it tells.

    Raises UsageError for a study whose rows are all left out, Refused for images that cannot be used.
    """
    known = dict(seen or {})
    for images in track([one for one in study.data if one.name not in known], "open images", len(study.data)):
        known[images.name] = look(images, root, folds=study.folds, seed=study.seed, shares=study.shares, toys=toys,
                                  track=track)  # fmt: skip
    chosen = kinds or {name: STEPS.get(name) for name in KINDS}
    shelf = _Shelf({name: keys_of(name, kind) for name, kind in chosen.items()})
    everything = ways(study)
    for images in study.data:
        for net in study.backbones:
            rows = wanted(study, images.name, net.name, everything)
            if rows:
                _Network(study, root, images, net, known[images.name], shelf).expand(rows)
    if not shelf.rows:
        raise UsageError(f"Expected rows in {study.path}; every one is left out by skip. Leave out fewer.")
    warnings = [f"{name}: {text}" for name, one in known.items() for text in one.warnings]
    return Design(study.name, {**study.document, "warnings": warnings}, shelf.ordered(), tuple(shelf.trials),
                  tuple(shelf.rows))  # fmt: skip


@dataclass(frozen=True)
class _Shelf:
    """What has been designed so far."""

    keys: Mapping[str, Keys]
    steps: dict[str, Step] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def add(self, kind: str, label: str, asked: Mapping[str, Any], needs: Mapping[str, str], **more: Any) -> str:
        """Take a step up, once; its key."""
        key = self.keys[kind](asked, needs)
        if key not in self.steps:
            self.steps[key] = Step(key, kind, label, asked, needs, **more)
        return key

    def ordered(self) -> dict[str, Step]:
        """All steps, with what is timed at the end: it wants the machine to itself."""
        return dict(sorted(self.steps.items(), key=lambda item: item[1].alone))


@dataclass(frozen=True)
class _Network:
    """One network on one data set: its trainings, one a fold and stage, and all that becomes of them."""

    study: Study
    root: Path
    images: Images
    net: Net
    seen: Seen
    shelf: _Shelf

    def expand(self, rows: tuple[Way, ...]) -> None:
        """Take up all steps of these rows, their trials and the rows themselves."""
        said: dict[Way, list[str]] = {way: [] for way in rows}
        needs: dict[Way, dict[str, str]] = {}
        runs: dict[str, str] = {}
        for number in range(self.study.folds):
            files: dict[tuple[str, ...], dict[str, str]] = {}
            for way in rows:
                parts = files.get(way.written) or files.setdefault(way.written, self._parts(way, number))
                said[way].append(self._said(way, number, parts, self.seen.counts[number]["test"]))
                if number == 0:
                    needs[way], runs[way.stage] = parts, parts["run"]
        outside = {way: self._outside(way, needs[way]) for way in rows if self.seen.external}
        sensitive = {stage: self._sensitivity(stage, run) for stage, run in runs.items()}
        bench = self._bench({way: parts["file"] for way, parts in needs.items()})
        for way in rows:
            other, first = baseline(way, rows), len(self.shelf.trials)
            place = self.images.name, self.net.name, *way.parts
            self.shelf.trials.extend(
                Trial(place[0], number, *place[1:], step=key) for number, key in enumerate(said[way])
            )
            self.shelf.rows.append(Row(
                *place,
                score=self._score(way, said[way], said[other] if other else []),
                trials=tuple(range(first, len(self.shelf.trials))),
                bench=bench,
                drift=self._drift(way, needs[way]),
                external=self._score(way, [outside[way]], [outside[other]] if other else [], "external images")
                if outside else "",
                sensitivity=sensitive[way.stage],
            ))  # fmt: skip

    def _add(
        self, kind: str, about: tuple[str, ...], number: int | None, asked: Mapping[str, Any], needs: Mapping[str, str],
        guess: float, *, places: Mapping[str, str] | None = None, alone: bool = False,
    ) -> str:  # fmt: skip
        """Take a step up; its label says what it is `about`, and of which fold where there are several."""
        fold = (f"fold {number + 1}/{self.study.folds}",) if number is not None and self.study.folds > 1 else ()
        label = " · ".join(filter(None, (self.images.name, self.net.name, *fold, *about)))
        return self.shelf.add(kind, label, asked, needs, guess=guess, alone=alone,
                              places={"data": str(self.seen.place), **(places or {})})  # fmt: skip

    def _parts(self, way: Way, number: int) -> dict[str, str]:
        """The training, the Plan and the file of a row in one fold."""
        counts, seed = self.seen.counts[number], self.study.seed
        run = self._train(way.stage, number)
        asked = {"recipe": _recipe(way.recipe), "lesson": _stage(way.lesson) if way.lesson else "", "seed": seed}
        plan = self._add("plan", way.made, number, asked, {"run": run, **self._teachers(way.lesson, number)},
                         rough.plan(self.net, way.recipe, way.lesson, counts))  # fmt: skip
        file = self._add("file", way.written, number, {"target": way.target}, {"plan": plan}, rough.file(self.net))
        return {"file": file, "plan": plan, "run": run}

    def _train(self, stage: str, number: int, title: str = "") -> str:
        study = self.study
        weights, place = _weights(self.net, self.root)
        fold: dict[str, Any] = {"number": number, "of": study.folds, "seed": study.seed}
        if study.shares:
            fold["shares"] = dict(study.shares)
        asked = {
            "fingerprint": self.seen.fingerprint,
            "split": how_split(self.images.split, study.folds),
            "fold": fold,
            "arch": self.net.arch,
            "weights": weights,
            "stage": _stage(stage),
            "size": self.net.size,
            "seed": study.seed,
        }
        return self._add("train", (title, stage), number, asked, self._teachers(stage, number),
                         rough.train(self.net, stage, self.seen.counts[number]),
                         places={"weights": place} if place else {})  # fmt: skip

    def _teachers(self, text: str, number: int) -> dict[str, str]:
        """The training of each teacher that a stage or lesson names, on the same fold."""
        found = {}
        for teacher in self.study.teachers:
            if teacher.name in teachers_in(text):
                home = _Network(self.study, self.root, self.images, teacher, self.seen, self.shelf)
                found[f"@{teacher.name}"] = home._train(teacher.stage, number, "teacher")
        return found

    def _said(self, way: Way, number: int, parts: Mapping[str, str], count: int) -> str:
        asked = {"runtime": way.runtime, "threads": self.study.threads, "images": "test"}
        return self._add("said", way.parts, number, asked, parts, rough.said(self.net, count))

    def _outside(self, way: Way, parts: Mapping[str, str]) -> str:
        """What the first fold's network says of the external images: those of other folds would say much the same of
        the same images, which makes no more images of them."""
        asked = {"runtime": way.runtime, "threads": self.study.threads, "images": "external",
                 "fingerprint": self.seen.external_fingerprint}  # fmt: skip
        return self._add("said", (*way.parts, "external images"), 0, asked, parts,
                         rough.said(self.net, self.seen.external_count),
                         places={"external": str(self.seen.external)})  # fmt: skip

    def _score(self, way: Way, said: list[str], other: list[str], of: str = "") -> str:
        asked = {"replicates": self.study.replicates, "seed": self.study.seed, "gates": self.study.gates}
        needs = {f"candidate/{number}": key for number, key in enumerate(said)}
        needs |= {f"baseline/{number}": key for number, key in enumerate(other)}
        return self._add("score", (*way.parts, of), None, asked, needs, rough.score(self.study.replicates))

    def _drift(self, way: Way, parts: Mapping[str, str]) -> str:
        looks = self.study.drift
        if looks is None or way.recipe == "fp32":
            return ""
        asked = {"method": looks.method, "images": looks.images, "seed": self.study.seed}
        needs = {"run": parts["run"], "plan": parts["plan"]}
        return self._add("drift", way.made, 0, asked, needs, rough.drift(self.net, looks.images))

    def _sensitivity(self, stage: str, run: str) -> str:
        if not self.study.sensitivity:
            return ""
        asked = {"recipe": _recipe(self.study.sensitivity), "seed": self.study.seed}
        about = stage, self.study.sensitivity
        return self._add("sensitivity", about, 0, asked, {"run": run}, rough.sensitivity(self.net))

    def _bench(self, files: Mapping[Way, str]) -> str:
        """All files of the first fold in one schedule, so that their times can be held against each other."""
        timing = self.study.bench
        if timing is None:
            return ""
        asked = {"runtimes": list(self.study.runtimes), "batches": list(timing.batches), "threads": self.study.threads,
                 "seconds": timing.seconds}  # fmt: skip
        needs = {f"file/{' · '.join(filter(None, way.written))}": key for way, key in files.items()}
        turns = len({(key, way.runtime) for way, key in files.items()})
        return self._add("bench", (), None, asked, needs, rough.bench(turns, len(timing.batches), timing.seconds),
                         alone=True)  # fmt: skip


def _weights(net: Net, root: Path) -> tuple[str, str]:
    """The weights that a training starts from as its key knows them, and where they lie (empty for timm's and none)."""
    if net.weights in ("none", "timm"):
        return net.weights, ""
    place = root / net.weights
    return _weights_digest(place, net.arch), str(place)


@lru_cache(maxsize=256)
def _weights_digest(place: Path, arch: str) -> str:
    """Digest of a weight file and of what its neighbour says of it."""
    from quantward.train.weights import find

    path = find(place, arch)
    told = path.with_suffix(".json")
    return digest_text(digest_file(path), digest_file(told) if told.exists() else "")


@lru_cache(maxsize=1024)
def _stage(text: str) -> str:
    """A stage or lesson by its options, so that two spellings of one training are one step."""
    from quantward.train import STAGES

    return spelling(made(STAGES, text))


@lru_cache(maxsize=1024)
def _recipe(text: str) -> str:
    return spelling(made(RECIPES, text))
