"""Study files: what a paper did, or what you want to know, as one short YAML file, read without forgiving a typo.

A mistake costs a sentence before anything runs, never a row after a night of training. So every name, option and
range in the file is looked up when it is read, and told with the line it stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from quantward.core.errors import UsageError, suggestion
from quantward.core.registry import Registry
from quantward.core.store import plain
from quantward.core.values import ROLES
from quantward.evaluate.verdict import PRESETS
from quantward.study import fields
from quantward.study.lines import Lined, read_lines, resolved
from quantward.study.spelling import fillings, names_in, teachers_in
from quantward.study.wants import Images, Net, Paper, Study, made, recipe_needs
from quantward.workbench import RECIPES, RUNTIMES, TARGETS

__all__ = ["KEYS", "SCALES", "Study", "read_study"]

SCALES = ("full", "laptop", "smoke")
"""How much of a study is run: all of it, or what the file's keys of the same name replace."""

KEYS = ("title", "paper", "data", "folds", "shares", "seed", "backbones", "weights", "size", "stages", "teachers",
        "recipes", "lessons", "vary", "targets", "runtimes", "skip", "threads", "gates", "replicates", "bench", "drift",
        "sensitivity", "published", "tables", "figures", "cut")  # fmt: skip
"""What a scale may replace."""

TABLES = Registry("table", "quantward.study.tables")
FIGURES = Registry("figure", "quantward.study.figures")


def read_study(path: Path | str, scale: str = "full") -> Study:
    """A study file at one of the `SCALES`; the others are checked along.

    Raises UsageError, with file and line, for whatever is wrong in it, or for a scale that it does not have.
    """
    path = Path(path)
    if scale not in SCALES:
        raise UsageError(f"Expected a scale out of {', '.join(SCALES)}; got {scale!r}. {suggestion(scale, SCALES)}")
    top = read_lines(path).entries("a study", ("format", "name", *KEYS, *SCALES[1:]))
    if "format" not in top or top["format"].value != 1:
        raise UsageError(f"Expected `format: 1` in {path}; got another form. Write it as the first line.")
    overs = {one: top.pop(one).entries(f"the scale {one}", KEYS) for one in SCALES[1:] if one in top}
    if scale not in ("full", *overs):
        raise UsageError(f"Expected the scale {scale!r} in {path}; it has none. Add the key, or use --scale full.")
    found = {one: _Reader(resolved(top, overs.get(one, {})), path, one).study() for one in ("full", *overs)}
    return found[scale]


@dataclass(frozen=True)
class _Reader:
    """Reads the keys of one scale."""

    top: Mapping[str, Lined]
    path: Path
    scale: str

    def study(self) -> Study:
        vary, teachers = self._vary(), self._teachers()
        known = tuple(teacher.name for teacher in teachers)
        study = Study(
            name=fields.name(self._required("name")),
            path=self.path,
            scale=self.scale,
            title=self._read("title", lambda item: item.text("a title"), ""),
            paper=self._read("paper", fields.paper, Paper()),
            data=self._data(),
            folds=self._whole("folds", 1, 1),
            shares=self._read("shares", _shares, {}),
            seed=self._whole("seed", 0, 0),
            backbones=self._backbones(),
            stages=self._spellings("stages", ("fit",), vary, fields.stage, known),
            teachers=teachers,
            recipes=self._recipes(vary),
            lessons=self._spellings("lessons", ("",), vary, fields.lesson, known),
            vary=vary,
            targets=self._spellings("targets", ("onnx-cpu",), {}, partial(made, TARGETS)),
            runtimes=self._spellings("runtimes", ("onnxruntime",), {}, partial(made, RUNTIMES)),
            skip=tuple(fields.skipped(item) for item in self._items("skip", "mappings")),
            threads=self._whole("threads", 1, 1),
            gates=self._read("gates", fields.gates, PRESETS[0]),
            replicates=self._whole("replicates", 2000, 100),
            bench=self._read("bench", fields.timing, None),
            drift=self._read("drift", fields.looks, None),
            sensitivity=self._read("sensitivity", fields.sensitive, ""),
            published=tuple(fields.published(item) for item in self._items("published", "figures of the paper")),
            tables=self._spellings("tables", (), {}, partial(made, TABLES)),
            figures=self._spellings("figures", (), {}, partial(made, FIGURES)),
            cut=tuple(item.text("a sentence") for item in self._items("cut", "sentences")),
        )
        self._require_used(study)
        self._require_pairs(study)
        return replace(study, document={key: value for key, value in plain(study).items()
                                        if key not in ("path", "document")})  # fmt: skip

    def _required(self, key: str) -> Lined:
        if key not in self.top:
            raise UsageError(f"Expected the key {key} in {self.path} (scale {self.scale}); it is not there. Add it.")
        return self.top[key]

    def _read(self, key: str, read: Callable[[Lined], Any], default: Any) -> Any:
        return read(self.top[key]) if key in self.top else default

    def _whole(self, key: str, default: int, least: int) -> int:
        return int(self._read(key, lambda item: item.whole(key, least), default))

    def _items(self, key: str, what: str) -> list[Lined]:
        return self.top[key].items(what, empty=True) if key in self.top else []

    def _data(self) -> tuple[Images, ...]:
        given = self._required("data").entries("data")
        if not given:
            raise self.top["data"].wrong("at least one data set", "Name one, or write {scans: toy}.")
        return tuple(fields.images(name, item) for name, item in given.items())

    def _net(self, item: Lined, keys: Sequence[str], title: str = "") -> Net:
        weights = self._read("weights", lambda one: one.text("weights"), "timm")
        size = self._read("size", lambda one: one.whole("size", 16), None)
        return fields.net(item, keys, weights, size, title)

    def _backbones(self) -> tuple[Net, ...]:
        found: dict[str, Net] = {}
        for item in self._required("backbones").items("networks"):
            net = self._net(item, ("name", "arch", "weights", "size"))
            if net.name in found:
                raise item.wrong(f"each network once, and {net.name!r} is there already,", "Give it a `name`.")
            found[net.name] = net
        return tuple(found.values())

    def _teachers(self) -> tuple[Net, ...]:
        """A teacher may learn from one that stands before it."""
        found: list[Net] = []
        given = self._read("teachers", lambda item: item.entries("teachers"), {})
        for name, item in given.items():
            net = self._net(item, ("arch", "weights", "size", "stage"), name)
            item.checked(partial(fields.stage, net.stage))
            fields.require_teachers(net.stage, [one.name for one in found], item)
            found.append(net)
        return tuple(found)

    def _vary(self) -> dict[str, tuple[Any, ...]]:
        found = {}
        for name, item in self._read("vary", lambda one: one.entries("vary"), {}).items():
            values = item.items(f"values of {name}")
            for one in values:
                if not isinstance(one.value, bool):
                    one.text(f"a value of {name}")
            found[name] = tuple(one.value for one in values)
        return found

    def _spellings(
        self,
        key: str,
        default: tuple[str, ...],
        vary: Mapping[str, Sequence[Any]],
        make: Callable[[str], object],
        teachers: Sequence[str] = (),
    ) -> tuple[str, ...]:
        """A list of spellings, each of which, filled in every way, can be made."""
        if key not in self.top:
            return default
        found: list[str] = []
        for item in self.top[key].items(key, empty=not default):
            text = "" if key == "lessons" and item.value == "" else item.text(f"one of the {key}")
            if text in found:
                raise item.wrong(f"each of the {key} once", "Remove one.")
            for name in names_in(text):
                if name not in vary:
                    cure = suggestion(name, vary) if vary else "Add it to vary."
                    raise UsageError(f"Expected {{{name}}} among the names of vary in {item.where}; it is not. {cure}")
            for one in fillings(text, vary):
                if one.text:
                    item.checked(partial(make, one.text))
            fields.require_teachers(text, teachers, item)
            found.append(text)
        return tuple(found)

    def _recipes(self, vary: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
        """The recipes, fp32 always there and first: it is what all others are compared with."""
        given = self._spellings("recipes", (), vary, partial(made, RECIPES))
        return ("fp32", *(text for text in given if text != "fp32"))

    def _require_used(self, study: Study) -> None:
        """Raise UsageError for a name, teacher or lesson that nothing uses: most likely a typo elsewhere."""
        spellings = [*study.stages, *study.recipes, *study.lessons]
        for name in study.vary:
            if all(name not in names_in(text) for text in spellings):
                where = self.top["vary"].value[name].where
                raise UsageError(
                    f"Expected {{{name}}} in a recipe, lesson or stage, as {where} varies it; got none. "
                    "Use it, or leave it out."
                )
        asked = [*spellings, *(one.stage for one in study.teachers)]
        for teacher in study.teachers:
            if all(teacher.name not in teachers_in(text) for text in asked):
                where = self.top["teachers"].value[teacher.name].where
                raise UsageError(
                    f"Expected a stage or lesson with @{teacher.name}, as {where} trains it; got none. "
                    "Name the teacher, or leave it out."
                )
        made = [one.text for text in study.recipes for one in fillings(text, study.vary)]
        if any(study.lessons) and all(recipe_needs(text) != "training" for text in made):
            raise self.top["lessons"].wrong("a recipe that trains with the lessons", "Add qat, or leave them out.")

    def _require_pairs(self, study: Study) -> None:
        """Raise UsageError for a target that no runtime reads, and for a runtime that reads none."""
        pairs = study.pairs()
        for key, place, values in (("targets", 0, study.targets), ("runtimes", 1, study.runtimes)):
            for number, value in enumerate(values):
                if all(pair[place] != value for pair in pairs):
                    other = "a runtime that reads" if place == 0 else "a target that writes for"
                    where = self.top[key].value[number].where if key in self.top else str(self.path)
                    raise UsageError(f"Expected {other} {value!r} ({where}); got none. Add one, or leave it out.")


def _shares(item: Lined) -> dict[str, float]:
    """What each role gets of the images that are not for testing; 0 leaves a role empty."""
    found = {}
    for role, one in item.entries("shares", ROLES).items():
        found[role] = 0.0 if one.value == 0 and role != "train" else one.number(f"the share of {role}")
    return found
