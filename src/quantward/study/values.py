"""The nouns of a study: what is asked, the steps that answer it, and what a step leaves.

A step is the unit that is kept: its key is a digest of everything that decides its result (its own settings, the keys
of the steps it builds on, the sources of the rooms it runs through, the versions of the libraries that matter). A trial
is one way through the steps, from a data set to what one deployed file said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from quantward.core.progress import Track


@dataclass(frozen=True)
class Step:
    """One piece of work. `asked` is plain JSON and all that the key is made of, with `needs` (part -> key of a step
    that goes before). `places` says where things lie on this machine (part -> path), which decides nothing.

    `alone` steps are timed: nothing else runs beside them. `cpus` and `gpus` are what a cluster reserves. `guess` is
    how many seconds it may take, as a rule of thumb has it; it decides nothing.
    """

    key: str
    kind: str
    label: str
    asked: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False
    cpus: float = 1
    gpus: float = 0
    guess: float = 0.0


@dataclass(frozen=True)
class Done:
    """What a finished step left: `facts` is plain JSON, `files` name -> SHA-256 of what lies in its folder."""

    key: str
    kind: str
    label: str
    facts: Mapping[str, Any]
    files: Mapping[str, str]
    seconds: float
    machine: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """Why a step has no result: one sentence. `because` is the key of the earlier step that failed, where one did."""

    key: str
    kind: str
    label: str
    reason: str
    because: str = ""


@dataclass(frozen=True)
class Trial:
    """One way through the grid; `step` is the key of the step that holds what the deployed file said."""

    data: str
    fold: int
    backbone: str
    stage: str
    recipe: str
    lesson: str
    target: str
    runtime: str
    step: str


@dataclass(frozen=True)
class Row:
    """One row of the study's tables: trials that differ only in the fold, pooled by the `score` step, with the steps
    that hold their latency, drift, answers about the external images (a `score`, of the first fold's network) and layer
    sensitivity; empty where the study does not ask."""

    data: str
    backbone: str
    stage: str
    recipe: str
    lesson: str
    target: str
    runtime: str
    score: str
    trials: tuple[int, ...]
    bench: str = ""
    drift: str = ""
    external: str = ""
    sensitivity: str = ""


@dataclass(frozen=True)
class Design:
    """A study turned into work: `steps` stand so that each comes after what it needs; `study` is the file as read."""

    name: str
    study: Mapping[str, Any]
    steps: Mapping[str, Step]
    trials: tuple[Trial, ...]
    rows: tuple[Row, ...]


State = Literal["waiting", "running", "done", "kept", "failed"]
"""`kept` is a step that was done before this run began."""


@dataclass(frozen=True)
class News:
    """What an engine tells while it works: a step's new state, with its result or reason where there is one."""

    step: Step
    state: State
    done: Done | None = None
    failed: Failed | None = None


@runtime_checkable
class Store(Protocol):
    """Keeps results by key. Processes and machines share one by its `address` (a folder, or an fsspec URL)."""

    address: str

    def find(self, key: str) -> Done | None:
        """The whole result of a step: None where there is none, or where it is broken (then it is set aside)."""

    def folder(self, key: str) -> Path:
        """A folder of this machine with the files of a finished step."""

    def scratch(self, key: str) -> Path:
        """The folder in which a step works; it outlives a kill, so that a long step goes on where it was."""

    def keep(self, step: Step, facts: Mapping[str, Any], seconds: float) -> Done:
        """Make the scratch folder the step's result, all at once."""

    def fail(self, failed: Failed) -> None:
        """Note the reason; the next run tries the step again."""

    def failure(self, key: str) -> Failed | None:
        """The reason noted last, None where there is none or the step has succeeded since."""


@dataclass(frozen=True)
class Workplace:
    """What a kind of step gets to work with: folders and facts of the steps it needs, its own `folder` to write in."""

    step: Step
    folder: Path
    inputs: Mapping[str, Path]
    facts: Mapping[str, Mapping[str, Any]]
    track: Track


class Kind(Protocol):
    """One kind of step (a file in `study/steps`): a frozen dataclass without options. `rooms` are the rooms whose
    sources are part of the key, `libraries` the distributions whose versions are."""

    rooms: ClassVar[tuple[str, ...]]
    libraries: ClassVar[tuple[str, ...]]

    def run(self, place: Workplace) -> Mapping[str, Any]:
        """Do the work in `place.folder` and return the facts. Raises QuantwardError with the reason."""


class Engine(Protocol):
    """Carries steps out (a file in `study/engines`): each once all it needs is done; a failed step fails what builds on
    it and stops nothing else."""

    def missing(self) -> str | None: ...

    def run(self, design: Design, store: Store, wanted: Sequence[str]) -> Iterator[News]:
        """Carry out the steps `wanted` (in an order that keeps needs first), telling each change as it happens."""
