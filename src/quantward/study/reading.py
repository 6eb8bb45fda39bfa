"""From a study's folder and its store to a `Record`: every row with what its steps left, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quantward.core.errors import Refused
from quantward.core.store import read_json
from quantward.evaluate.speedups import ratio
from quantward.study.measures import canonical
from quantward.study.record import WAITING, Layers, Line, Paper, Record
from quantward.study.values import Done, Row, Store

FILE = "study.json"


def is_study(folder: Path) -> bool:
    """Whether a folder is one that `quantward study` made."""
    return (folder / FILE).is_file()


def read(folder: Path, store: Store | None = None) -> Record:
    """The study in `folder` as it stands; `store` where its results are elsewhere than the study says.

    Raises Refused where there is no study, or its `study.json` is not whole.
    """
    if not is_study(folder):
        raise Refused(f"Expected a study's folder; there is no {FILE} in {folder}. Name what --out of study named.")
    data = read_json(folder / FILE)
    try:
        whole = _Whole(folder, data, store or _store(folder, data))
        return whole.record()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(
            f"Expected {folder / FILE} as quantward study writes it; {type(error).__name__}: {error}. Run the study "
            "again: what is finished stays."
        ) from None


def _store(folder: Path, data: Mapping[str, Any]) -> Store:
    from quantward.study.shared import open_store

    return open_store(data.get("store") or folder / "store")


@dataclass(frozen=True, eq=False)
class _Whole:
    """What is known while a study is read."""

    folder: Path
    data: Mapping[str, Any]
    store: Store
    found: dict[str, Done | None] = field(default_factory=dict)

    def record(self) -> Record:
        study = self.data["study"]
        lines = self._sizes([self._line(Row(**{**row, "trials": tuple(row["trials"])})) for row in self.data["rows"]])
        papers = tuple(
            Paper(str(one.get("row", "")), one.get("where") or {}, canonical(str(one["metric"])), one.get("value"),
                  str(one.get("cite", "")))
            for one in study.get("published") or ()
        )  # fmt: skip
        told = (str(self.data.get(name) or "") for name in ("command", "scale"))
        layers, machines = self._layers(lines), self._machines()
        return Record(self.folder, str(self.data["name"]), study, lines, papers, layers, machines, *told)

    def done(self, key: str) -> Done | None:
        if key not in self.found:
            self.found[key] = self.store.find(key) if key else None
        return self.found[key]

    def facts(self, key: str) -> Mapping[str, Any]:
        done = self.done(key)
        return {} if done is None else done.facts

    def why(self, key: str) -> str:
        """Why a step has no result."""
        failed = self.store.failure(key) if key else None
        return WAITING if failed is None else failed.reason

    def _line(self, row: Row) -> Line:
        done = self.done(row.score)
        if done is None:
            return Line(row, failure=self.why(row.score))
        timed, untimed = self._timed(row)
        drift = self.facts(row.drift)
        return Line(
            row, done.facts, timed=timed, untimed=untimed, drift=drift.get("measures", drift),
            undrifted=self.why(row.drift) if row.drift and not drift else "",
            external=self.facts(row.external), store=self.store,
        )  # fmt: skip

    def _timed(self, row: Row) -> tuple[tuple[Mapping[str, Any], ...], str]:
        """The bench's rows of this row's file on its runtime, or why there are none."""
        if not row.bench:
            return (), ""
        rows = self.facts(row.bench).get("rows")
        if rows is None:
            return (), self.why(row.bench)
        label = " · ".join(part for part in (row.stage, row.recipe, row.lesson, row.target) if part)
        mine = [one for one in rows if one["runtime"] == row.runtime and one["name"] == label]
        floats = [one for one in rows if one["recipe"] == "fp32" and one["name"].startswith(row.stage)]
        return tuple({**one, "speedups": _gains(one, floats)} for one in mine), ""

    def _sizes(self, lines: list[Line]) -> tuple[Line, ...]:
        """Each line with the size of FP32 in the same form over its own."""
        floats = {_form(line): line.facts.get("bytes") for line in lines if line.row.recipe == "fp32"}
        found = []
        for line in lines:
            whole, own = floats.get(_form(line)), line.facts.get("bytes")
            found.append(replace(line, smaller=whole / own) if whole and own else line)
        return tuple(found)

    def _layers(self, lines: Sequence[Line]) -> tuple[Layers, ...]:
        """What the layers of each network mind, each step once."""
        found: dict[str, Layers] = {}
        for line in lines:
            row, key = line.row, line.row.sensitivity
            if key and key not in found:
                facts = self.facts(key)
                found[key] = Layers(row.data, row.backbone, row.stage, facts, "" if facts else self.why(key))
        return tuple(found.values())

    def _machines(self) -> tuple[Mapping[str, Any], ...]:
        """The machines that did the work, each once."""
        found: dict[str, Mapping[str, Any]] = {}
        for done in self.found.values():
            if done is not None and done.machine:
                found.setdefault(str(sorted(done.machine.items(), key=str)), done.machine)
        return tuple(found.values())


def _form(line: Line) -> tuple[str, ...]:
    """What has to be alike for two sizes to be compared like for like."""
    row = line.row
    return row.data, row.backbone, row.stage, row.target


def _gains(own: Mapping[str, Any], floats: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """How many times as fast as FP32: as the bench has it, or where FP32 does not exist on that runtime, against the
    first other one that was timed in the same rounds."""
    found: list[Mapping[str, Any]] = [
        {**gain, "reference": f"FP32 on {gain['reference'].rpartition(' on ')[2]}"} for gain in own["speedups"]
    ]
    if own["recipe"] == "fp32" or any("torch-float" not in gain["reference"] for gain in found):
        return found
    for other in floats:
        pairs = [(one, two) for one in own["latency"] for two in other["latency"]
                 if one["batch"] == two["batch"] and len(one["rounds"]) == len(two["rounds"]) > 1]  # fmt: skip
        if pairs:
            told = f"FP32 on {other['runtime']}"
            return [*found, *(_gain(told, one, two) for one, two in pairs)]
    return found


def _gain(told: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    value, low, high = ratio(other["rounds"], own["rounds"])
    return {"reference": told, "batch": own["batch"], "value": value, "low": low, "high": high,
            "rounds": len(own["rounds"])}  # fmt: skip
