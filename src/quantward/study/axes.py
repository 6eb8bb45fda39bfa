"""Along which coordinates the rows of a study differ, and how they are called then: a column that says the same in
every row is noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from quantward.report._words import visible
from quantward.study.record import COORDINATES, Line, Record
from quantward.study.spelling import fillings, names_in, spelled

TITLES = {"data": "data", "backbone": "backbone", "stage": "training", "recipe": "recipe", "lesson": "lesson",
          "target": "file", "runtime": "runtime"}  # fmt: skip

ATTENTION = ("vit", "deit", "swin", "beit", "cait", "xcit", "levit", "eva", "pvt", "twins", "maxvit", "davit")
"""How the names of networks begin whose layers are mostly attention; all others count as convolutional."""


def varying(lines: Sequence[Line], among: Sequence[str] = COORDINATES) -> tuple[str, ...]:
    """The coordinates at which these rows are not all alike."""
    return tuple(name for name in among if len({line.at(name) for line in lines}) > 1)


def precision(line: Line, kept: Sequence[str]) -> str:
    """What was done to a network, in one name: the coordinates `kept` (those that vary), the recipe always."""
    parts = [line.at(name) for name in ("stage", "recipe", "lesson", "target", "runtime")
             if name == "recipe" or (name in kept and line.at(name))]  # fmt: skip
    return visible(" · ".join(parts))


def precisions(lines: Sequence[Line]) -> tuple[str, ...]:
    """The coordinates that a precision's name must hold for these rows."""
    return varying(lines, ("stage", "recipe", "lesson", "target", "runtime"))


def grouped(lines: Iterable[Line], *names: str) -> dict[tuple[str, ...], list[Line]]:
    """The rows by some coordinates, in their order."""
    found: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        found.setdefault(tuple(line.at(name) for name in names), []).append(line)
    return found


def family(backbone: str) -> str:
    """CNN or Transformer, by the network's name.

    >>> family("resnet18"), family("swin_tiny_patch4_window7_224")
    ('CNN', 'Transformer')
    """
    return "Transformer" if backbone.lower().startswith(ATTENTION) else "CNN"


def is_float(line: Line) -> bool:
    """Whether a row is the network in full precision."""
    return line.row.recipe == "fp32"


def varied(record: Record) -> dict[str, tuple[Any, ...]]:
    """The names that the study varies, with their values."""
    found = record.study.get("vary") or {}
    return {str(name): tuple(values) for name, values in found.items()}


def values_of(record: Record, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """What each row's spellings say for the names that the study varies (`{samples}` in a recipe), as the study's own
    values; a name that does not stand in a row is absent there."""
    known = {text: values for text, (_, values) in _spellings(record).items()}
    return [{**known.get(line.row.stage, {}), **known.get(line.row.lesson, {}), **known.get(line.row.recipe, {})}
            for line in lines]  # fmt: skip


def without(record: Record, text: str, name: str) -> str:
    """A spelling in which the varied `name` is left open: what rows that differ in it alone have in common."""
    template, values = _spellings(record).get(text, (text, {}))
    for other, value in values.items():
        template = template.replace("{" + other + "}", spelled(value) if other != name else "*")
    return template


@lru_cache(maxsize=4)
def _spellings(record: Record) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Every filled spelling of the study -> its template and the values in it."""
    vary = varied(record)
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for key in ("recipes", "lessons", "stages"):
        for template in map(str, record.study.get(key) or ()):
            for one in fillings(template, vary) if names_in(template) else ():
                found.setdefault(one.text, (template, one.values))
    return found
