"""A study from its file to its report: what `quantward study` does, and the same as a function.

`study.json` is written before the first step, so a folder always says what is going on in it, and `report` reads it at
any moment. What is finished is never done again, whatever ended the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantward.core.errors import Refused, UsageError
from quantward.core.lock import only_run
from quantward.core.progress import Track, silent
from quantward.core.registry import Registry
from quantward.core.store import plain, read_json, write_json
from quantward.study.design import design
from quantward.study.forecast import Forecast, estimate
from quantward.study.reading import FILE, read
from quantward.study.record import COORDINATES, Record
from quantward.study.schema import read_study
from quantward.study.shared import open_store
from quantward.study.store import FolderStore, full_disk, no_room
from quantward.study.values import Design, News, Store

ENGINES = Registry("engine", "quantward.study.engines")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    """A study that has not been carried out: its design, what its store holds of it, and how long the rest may take."""

    folder: Path
    design: Design
    forecast: Forecast

    def document(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "name": self.design.name,
            "folder": self.folder,
            "rows": len(self.design.rows),
            "trials": len(self.design.trials),
            "steps": {work.kind: {"steps": work.steps, "done": work.done, "seconds": work.seconds, "rough": work.rough}
                      for work in self.forecast.kinds},
            "seconds": self.forecast.seconds,
            "rough": self.forecast.rough,
        }  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A study that was carried out as far as it goes: every row with its result or its reason."""

    folder: Path
    record: Record
    steps: Mapping[str, int]
    report: Path

    @property
    def failed(self) -> int:
        """Rows without a result."""
        return sum(bool(line.failure) for line in self.record.lines)

    def document(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        rows = [
            {
                **{name: line.at(name) for name in COORDINATES},
                **({"failure": line.failure} if line.failure else line.facts),
            }
            for line in self.record.lines
        ]
        return {"name": self.record.name, "folder": self.folder, "scale": self.record.scale, "steps": self.steps,
                "rows": rows, "report": self.report}  # fmt: skip


def study_plan(
    file: Path,
    root: Path,
    out: Path | None = None,
    *,
    scale: str = "full",
    store: str = "",
    tell: Tell = lambda _: None,
    track: Track = silent,
) -> Planned:
    """What `study_run` would do. Opens the images, and writes nothing into the study's folder."""
    folder, made = _designed(file, root, out, scale, track)
    return Planned(folder, made, estimate(made, _open(folder, store, tell)))


def study_run(
    file: Path,
    root: Path,
    out: Path | None = None,
    *,
    scale: str = "full",
    engine: str = "local",
    store: str = "",
    command: str = "",
    watch: Callable[[Design, Store], Callable[[News], None]] = lambda design, store: lambda news: None,
    tell: Tell = lambda _: None,
    track: Track = silent,
) -> Finished:
    """Carry a study out, or go on with it. `root` is the folder that the paths of its data start from, `out` is where
    everything goes (a folder of its name by default), `store` a folder or URL for the results where that is elsewhere.
    `watch` gets the design and hears of each change.

    Raises UsageError for what is wrong in the file, Refused where another run is at work in `out`, where `out` holds
    another study, or where a disk is full. A step that fails is told in its row.
    """
    chosen = ENGINES.make(engine)
    absent = chosen.missing()
    if absent:
        raise UsageError(f"Expected an engine that is installed; {absent}.")
    folder, made = _designed(file, root, out, scale, track)
    _require_own(folder, made.name)
    with only_run(folder):
        kept = _open(folder, store, tell)
        try:
            write_json(folder / FILE, {"format": 1, "name": made.name, "scale": scale, "command": command,
                                       "store": store if "://" in store or not store else str(Path(store).resolve()),
                                       "study": made.study, "rows": made.rows, "trials": made.trials,
                                       "steps": made.steps})  # fmt: skip
            steps = _carried_out(chosen, made, kept, watch(made, kept))
            record = read(folder, kept)
            return Finished(folder, record, steps, _report(folder))
        except OSError as error:
            if full_disk(error):
                raise no_room(kept.address) from None
            raise


def _designed(file: Path, root: Path, out: Path | None, scale: str, track: Track) -> tuple[Path, Design]:
    study = read_study(file, scale)
    folder = out or Path(study.name if scale == "full" else f"{study.name}-{scale}")
    return folder, design(study, root.resolve(), track=track)


def _open(folder: Path, store: str, tell: Tell) -> Store:
    if "://" in store:
        return open_store(store)
    return FolderStore(str((Path(store) if store else folder / "store").resolve()), tell)


def _require_own(folder: Path, name: str) -> None:
    """Raises Refused where the folder holds another study, or a `study.json` that is none."""
    path = folder / FILE
    if not path.exists():
        return
    try:
        other = read_json(path)
    except Refused:
        return  # torn by another program: it is written anew
    if isinstance(other, Mapping) and other.get("name") not in (None, name):
        raise Refused(f"Expected the study {name} in {folder}; it holds {other['name']}. Choose another --out.")


def _carried_out(engine: Any, made: Design, store: Store, hear: Callable[[News], None]) -> dict[str, int]:
    """Run the engine; how many steps ended in which state."""
    states: dict[str, int] = {"kept": 0, "done": 0, "failed": 0}
    news = engine.run(made, store, list(made.steps))
    try:
        for one in news:
            if one.state in states:
                states[one.state] += 1
            hear(one)
    finally:
        news.close()
    return states


def _report(folder: Path) -> Path:
    from quantward.study.report import write

    return write(folder)


def plan_lines(planned: Planned) -> list[str]:
    """A plan for people: steps by kind, what is done, and how long the rest may take."""
    made, forecast = planned.design, planned.forecast
    lines = [f"{made.name}: {len(made.rows):,} rows of {len(made.trials):,} trials, {len(made.steps):,} steps in "
             f"{planned.folder}"]  # fmt: skip
    for work in forecast.kinds:
        left = work.steps - work.done
        how = f"{lasting(work.seconds)}{' (by rule of thumb)' if work.rough else ''}" if left else "done"
        lines.append(f"  {work.kind:12}{work.steps:>8,} steps {work.done:>8,} done   {how}")
    thumb = ", by rule of thumb until steps of each kind have been timed here" if forecast.rough else ""
    lines.append(f"left: {lasting(forecast.seconds)} of one process{thumb}")
    return [*lines, *(f"warning: {text}" for text in plain(made.study.get("warnings", ())))]


def lasting(seconds: float) -> str:
    """A time for people.

    >>> lasting(8), lasting(600), lasting(9000), lasting(200000)
    ('8 s', '10 min', '2 h 30 min', '56 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 24 * 60 else f"{round(minutes / 60)} h"
