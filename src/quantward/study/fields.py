"""Single fields of a study file, each read into its value or refused in one sentence with its line."""

from __future__ import annotations

import re
import tempfile
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from quantward.core.errors import UsageError, suggestion
from quantward.core.store import plain
from quantward.evaluate import read_gates
from quantward.evaluate.verdict import PRESETS
from quantward.explaining import METHODS
from quantward.study.lines import Lined
from quantward.study.measures import measure
from quantward.study.record import COORDINATES
from quantward.study.spelling import teachers_in
from quantward.study.wants import Images, Looks, Net, Paper, Published, Timing, made, recipe_needs

SPLITS = ("auto", "published", "own", "ungrouped")
SENSITIVE = "int8-static"
"""Whose layers are looked at where `sensitivity` is only asked for."""


def name(item: Lined) -> str:
    """The study's name, which is that of its folder too."""
    text = item.text("a name")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text):
        raise item.wrong("a name of small letters, digits, dots and dashes", "It names the study's folder too.")
    return text


def paper(item: Lined) -> Paper:
    """Whom the study follows."""
    return Paper(**{key: one.text(key) for key, one in item.entries("paper", ("file", "citation")).items()})


def images(title: str, item: Lined) -> Images:
    """One data set: its path, the word toy, or a mapping."""
    if not isinstance(item.value, dict):
        text = item.text("a path below the data's root, or toy,")
        return Images(title, toy=96) if text == "toy" else Images(title, text)
    given = item.entries("a data set", ("path", "split", "external", "toy", "classes"))
    if ("path" in given) == ("toy" in given):
        raise item.wrong("either path or toy in a data set", "Keep one of them.")
    if "toy" not in given and "classes" in given:
        raise given["classes"].wrong("classes only with toy images", "Leave it out.")
    split = given["split"].text("a split") if "split" in given else "auto"
    if split not in SPLITS:
        raise given["split"].wrong(f"a split out of {', '.join(SPLITS)}", suggestion(split, SPLITS))
    classes = given["classes"].whole("classes", 2) if "classes" in given else 4
    return Images(
        title,
        given["path"].text("a path below the data's root") if "path" in given else "",
        split,
        given["external"].text("a path, or toy,") if "external" in given else "",
        given["toy"].whole("toy", 8 * classes) if "toy" in given else 0,
        classes,
    )


def net(item: Lined, keys: Sequence[str], weights: str, size: int | None, title: str = "") -> Net:
    """A network: its timm name, or a mapping of `keys`; `weights` and `size` where it does not say."""
    if not isinstance(item.value, dict):
        return Net(title or item.text("a network"), _arch(item), weights, size)
    given = item.entries("a network", keys)
    if "arch" not in given:
        raise item.wrong("the key arch, a timm name,", "Write {arch: resnet18}.")
    arch = _arch(given["arch"])
    return Net(
        title or (given["name"].text("a name") if "name" in given else arch),
        arch,
        given["weights"].text("weights") if "weights" in given else weights,
        given["size"].whole("size", 16) if "size" in given else size,
        given["stage"].text("a stage") if "stage" in given else "fit",
    )


def _arch(item: Lined) -> str:
    arch = item.text("a network's timm name")
    item.checked(lambda: _known(arch))
    return arch


@lru_cache(maxsize=256)
def _known(arch: str) -> object:
    from quantward.train.backbones import configuration_of

    return configuration_of(arch)


def skipped(item: Lined) -> dict[str, tuple[str, ...]]:
    """Which rows are left out: coordinate -> what it may be like, all of which have to hold."""
    given = item.entries("skip", COORDINATES)
    if not given:
        raise item.wrong("what is left out", f"Name some of {', '.join(COORDINATES)}.")
    found = {}
    for key, one in given.items():
        globs = one.value if isinstance(one.value, list) else [one]
        found[key] = tuple("" if glob.value == "" else glob.text("what is left out") for glob in globs)
    return found


def gates(item: Lined) -> str | dict[str, Any]:
    """A preset's name, or `{gates: {name: limits}}` from here or from a file beside the study's."""
    if isinstance(item.value, dict):
        return {"gates": _gates_here(item)}
    text = item.text("gates")
    if text in PRESETS:
        return text
    source: str | Path = item.path.parent / text if Path(text).suffix else text
    return {"gates": plain(item.checked(lambda: read_gates(source).document()["gates"]))}


def _gates_here(item: Lined) -> dict[str, Any]:
    """Gates written into the study itself, read as a gates file is, with the study's own line numbers."""
    lines = item.path.read_text(encoding="utf-8-sig").splitlines()
    block = "\n".join(lines[item.line - 1 : item.end])
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "gates.yaml"
        alone.write_text("\n" * (item.line - 1) + textwrap.dedent(block) + "\n", encoding="utf-8")
        try:
            found = read_gates(alone)
        except UsageError as error:
            raise UsageError(str(error).replace(str(alone), str(item.path))) from None
    return dict(plain(found.document()["gates"]))


def timing(item: Lined) -> Timing:
    """How files are timed."""
    given = item.entries("bench", ("batches", "seconds"))
    batches = given["batches"].items("batch sizes") if "batches" in given else None
    return Timing(
        Timing.batches if batches is None else tuple(one.whole("a batch size", 1) for one in batches),
        given["seconds"].number("seconds") if "seconds" in given else Timing.seconds,
    )


def looks(item: Lined) -> Looks:
    """How looks are compared."""
    given = item.entries("drift", ("method", "images"))
    method = given["method"].text("a method") if "method" in given else Looks.method
    if method not in METHODS:
        raise given["method"].wrong(f"a method out of {', '.join(METHODS)}", suggestion(method, METHODS))
    return Looks(method, given["images"].whole("images", 8) if "images" in given else Looks.images)


def sensitive(item: Lined) -> str:
    """The recipe whose layers are looked at, empty for none."""
    if isinstance(item.value, bool):
        return SENSITIVE if item.value else ""
    text = item.text("a recipe that calibrates, or true,")
    if item.checked(lambda: recipe_needs(text)) != "images":
        raise item.wrong("a recipe that calibrates, or true,", f"Write {SENSITIVE}, or true.")
    return text


def published(item: Lined) -> Published:
    """One figure of the paper."""
    given = item.entries("a published figure", ("row", "where", "metric", "value", "cite"))
    for key in ("row", "metric", "value"):
        if key not in given:
            raise item.wrong(f"the key {key} of a published figure", "Add it.")
    row = given["row"].text("a row of the mission")
    if not re.fullmatch(r"[A-E][1-9]", row):
        raise given["row"].wrong("a row of the mission such as A1", "Mend it.")
    where = given["where"].entries("where", COORDINATES) if "where" in given else {}
    metric = given["metric"].text("a figure's name")
    given["metric"].checked(lambda: measure(metric))
    value = given["value"].value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise given["value"].wrong("the paper's figure, a number,", "Write shares as 0.931, not as 93.1 %.")
    cite = given["cite"].text("where it stands") if "cite" in given else ""
    return Published(row, {key: str(one.value) for key, one in where.items()}, metric, value, cite)


def require_teachers(text: str, teachers: Sequence[str], item: Lined) -> None:
    """Raise UsageError where a stage or lesson names a teacher whom the study does not train."""
    for teacher in teachers_in(text):
        if teacher not in teachers:
            known = suggestion(teacher, teachers) if teachers else "Add it to teachers."
            raise UsageError(f"Expected a teacher in {item.where}; got @{teacher}. {known}")


def stage(text: str) -> object:
    """The training that is spelled so."""
    from quantward.train import STAGES

    return made(STAGES, text)


@lru_cache(maxsize=1024)
def lesson(text: str) -> object:
    """The lesson that is spelled so."""
    from quantward.train.lesson import lesson_named

    return lesson_named(text)
