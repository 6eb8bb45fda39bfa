"""Files on runtimes, timed in turns: each in a process of its own, stopped while another has its turn.

`time_rows` is the one place where anything is timed: for `quantward bench`, for the candidates of a search, and on a
device to which nothing but a bundle and the base install was copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from quantward import __version__
from quantward.core.apart import Apart, Broken, executed
from quantward.core.energy import meter
from quantward.core.errors import QuantwardError, Refused, UsageError
from quantward.core.machine import board, cores, cpu, describe, free_memory
from quantward.core.progress import Track, silent
from quantward.core.quiet import alone
from quantward.core.registry import Registry
from quantward.core.store import digest_folder
from quantward.core.values import Bench, ColdStart, Efficiency, Variant
from quantward.evaluate.efficiency import Timing, bench
from quantward.evaluate.results import SCHEMA, load_bench, require_same_files, save_bench
from quantward.evaluate.speedups import same_runtime, with_speedups
from quantward.graph.files import load_plan
from quantward.incoming import is_plain, to_time
from quantward.workbench import open_variant, runtime_for

RUNTIMES = Registry("runtime", "quantward.runtimes")
OVERHEAD = 400_000_000
"""Bytes that an open file may take besides its own: the runtime's library and a batch of activations."""

HERE = "here"
"""What this machine is called among the results."""

NAMED = 4
"""Operators named where a file is slower than FP32."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """One row of a bench: this file, on this runtime (spelled with its options), with so many threads."""

    variant: Variant
    runtime: str
    threads: int = 1
    name: str = ""


@dataclass(frozen=True)
class Effort:
    """How much is done for a figure: batch sizes, rounds and seconds as in `evaluate.efficiency.bench`; `starts` cold
    starts, of which the median is told."""

    batches: tuple[int, ...] = (1, 32)
    rounds: int = 30
    seconds: float = 5.0
    starts: int = 3


USUAL = Effort()


class _Held:
    """An opened file that runs during its own turn only, whatever threads its runtime keeps spinning."""

    def __init__(self, session: Apart) -> None:
        self.session = session
        session.pause()

    def time(self, batch: int, calls: int, touch: int = 1) -> list[float]:
        """The calls of a turn."""
        self.session.resume()
        try:
            return self.session.time(batch, calls, touch)
        finally:
            self.session.pause()

    def peak_bytes(self) -> int | None:
        """The most memory the process held so far."""
        self.session.resume()
        try:
            return self.session.peak_bytes()
        finally:
            self.session.pause()


def time_rows(
    asked: Sequence[Asked],
    effort: Effort = USUAL,
    *,
    seed: int = 0,
    tell: Tell = lambda text: None,
    track: Track = silent,
) -> tuple[tuple[Efficiency, ...], str]:
    """A row for each of `asked`, in their order, and why no energy stands in them (empty where it does).

    All rows take turns in one schedule; where they would not fit in memory together, those of one network do. A file
    that cannot be opened or dies is a row with its reason. Waits for any other measurement of time on this machine.
    """
    counter, reason = meter()
    rows: dict[int, Efficiency] = {}
    with alone(tell=tell):
        for part in _together(asked):
            rows.update(_timed({i: asked[i] for i in part}, effort, seed, counter, track))
    found = with_speedups([rows[i] for i in range(len(asked))], seed=seed)
    return tuple(_explained(row, found, one.variant) for row, one in zip(found, asked, strict=True)), reason


def bench_files(
    paths: Sequence[Path],
    *,
    runtimes: Sequence[str] = (),
    threads: Sequence[int] = (1,),
    effort: Effort = USUAL,
    seed: int = 0,
    tell: Tell = lambda text: None,
    track: Track = silent,
) -> Bench:
    """Time deployed files or bundles on every runtime named that reads them (each on its default where none is named),
    with each number of threads, on random inputs: what is in a picture does not change the time.

    Raises Refused where a file cannot be read, UsageError for an unknown runtime.
    """
    if not paths or not threads or min(threads) < 1:
        raise UsageError("Expected files and at least one thread; got none. Name them.")
    formats = {name: RUNTIMES.make(name).formats for name in runtimes}
    variants = [_opened(path) for path in paths]
    asked = []
    for path, variant, name in zip(paths, variants, labels(paths, variants), strict=True):
        able = [runtime for runtime in runtimes if variant.format in formats[runtime]]
        chosen = able or list(runtimes[:1]) or [runtime_for(variant, path)]
        asked += [Asked(variant, runtime, count, name) for runtime, count in product(chosen, threads)]
    rows, energy = time_rows(asked, effort, seed=seed, tell=tell, track=track)
    return Bench(rows, describe(), {**vars(effort), "seed": seed, "quantward": __version__}, energy, SCHEMA)


def bench_and_merge(
    paths: Sequence[Path],
    *,
    runtimes: Sequence[str] = (),
    threads: Sequence[int] = (1,),
    effort: Effort = USUAL,
    merge: Sequence[Path] = (),
    out: Sequence[Path] = (),
    seed: int = 0,
    tell: Tell = lambda text: None,
    track: Track = silent,
) -> dict[str, Bench]:
    """What `quantward bench` does: results by their source, `here` and then the files to merge; written to `out`, where
    a `.json` holds what was measured here and an `.html` shows everything.

    Raises UsageError where there is nothing to do or to write, Refused where results are not about the same files; both
    before anything is timed, as far as that can be known.
    """
    for path in out:
        if path.suffix not in (".json", ".html") or (path.suffix == ".json" and not paths):
            raise UsageError(
                f"Expected --out as .html{' or .json' if paths else ', as nothing is timed here'}; got {path.name}. "
                "Rename it."
            )
    if not paths and not merge:
        raise UsageError("Expected files to time, or results to --merge; got none. Name them.")
    others = {path.stem: load_bench(path) for path in merge}
    if len(others) < len(merge):
        raise UsageError("Expected results of different names; two are called the same. Rename one.")
    require_same_files(others)
    results = others
    if paths:
        found = bench_files(paths, runtimes=runtimes, threads=threads, effort=effort, seed=seed, tell=tell, track=track)
        results = {HERE: found, **others}
    for path in out:
        if path.suffix == ".json":
            save_bench(results[HERE], path)
    require_same_files(results)
    for path in out:
        if path.suffix == ".html":
            from quantward.report.speed import write_bench

            write_bench(results, path)
    return results


def labels(paths: Sequence[Path], variants: Sequence[Variant]) -> list[str]:
    """A name for each file: its own where that tells it from all others, else as much of its path as does."""
    found = []
    for path, variant in zip(paths, variants, strict=True):
        rivals = [p for p, v in zip(paths, variants, strict=True) if v.name == variant.name and p != path]
        depth = 1
        while rivals and any(p.parts[-depth:] == path.parts[-depth:] for p in rivals) and depth < len(path.parts):
            depth += 1
        found.append("/".join(path.parts[-depth:]) if rivals else variant.name)
    return found


def _opened(path: Path) -> Variant:
    """A deployed file, a bundle, a plain `.onnx`, or a Plan folder, also one without a card such as a RUN's `plan`."""
    if is_plain(path):
        return to_time(path)
    if not (path / "plan.json").is_file() or path.with_name(f"{path.name}.json").exists():
        return open_variant(path)
    plan = load_plan(path)
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return Variant(plan.recipe, "plan", path, digest_folder(path), size, plan.recipe, plan.parent, plan.preprocess,
                   plan.classes)  # fmt: skip


def _together(asked: Sequence[Asked]) -> list[list[int]]:
    """Which rows are open at once: all, or those of one network where all would fill the memory."""
    free, need = free_memory(), sum(OVERHEAD + 6 * one.variant.bytes for one in asked)
    if free is None or need < 0.7 * free:
        return [list(range(len(asked)))]
    networks = dict.fromkeys(one.variant.parent for one in asked)
    return [[i for i, one in enumerate(asked) if one.variant.parent == network] for network in networks]


def _timed(
    asked: Mapping[int, Asked], effort: Effort, seed: int, counter: Callable[[], float] | None, track: Track
) -> dict[int, Efficiency]:
    """Open, time and close some rows together."""
    rows: dict[int, Efficiency] = {}
    held: dict[str, _Held] = {}
    with ExitStack() as stack:
        for i, one in track(asked.items(), "open", total=len(asked)):
            rows[i] = _blank(one)
            try:
                session, cold = _started(one, effort.starts)
            except QuantwardError as error:
                rows[i] = replace(rows[i], failure=error.reason if isinstance(error, Broken) else str(error))
                continue
            stack.callback(session.close)
            held[str(i)] = _Held(session)
            rows[i] = replace(rows[i], cold=cold)
        if held:
            caps = {str(i): one.variant.max_batch for i, one in asked.items() if one.variant.max_batch}
            timings = bench(held, batches=effort.batches, rounds=effort.rounds, seconds=effort.seconds, largest=caps,
                            seed=seed, energy=counter, track=track)  # fmt: skip
            rows.update({int(i): _with(rows[int(i)], timing) for i, timing in timings.items()})
    return rows


def _started(one: Asked, starts: int) -> tuple[Apart, ColdStart]:
    """A freshly opened file, the last of `starts`, and the median of what the starts took.

    Raises Refused for what cannot be opened here.
    """
    if one.threads > cores():
        raise Refused(f"Expected at most {cores()} threads, this machine's cores; got {one.threads}. Ask for fewer.")
    formats = RUNTIMES.make(one.runtime).formats
    if one.variant.format not in formats:
        raise Refused(
            f"Expected a runtime for {one.variant.format} files; {one.runtime} reads {', '.join(formats)}. "
            "Name another."
        )
    seen = []
    for k in range(max(1, starts)):
        session = Apart(one.variant, one.runtime, one.threads, private=True)
        try:
            first = session.time(1, 1, touch=0)[0]
        except BaseException:
            session.close()
            raise
        seen.append((session.process_seconds, session.library_seconds, session.file_seconds, first))
        if k + 1 < starts:
            session.close()
    process, library, file, answer = (float(value) for value in np.median(np.array(seen), axis=0))
    return session, ColdStart(process, library, file, answer, len(seen))


def _blank(one: Asked) -> Efficiency:
    """What is known of a row before it is timed."""
    file = one.variant
    return Efficiency(one.name or file.name, one.runtime, file.bytes, file.seconds, (), machine=board() or cpu()[0],
                      threads=one.threads, recipe=file.recipe, sha256=file.sha256, parent=file.parent)  # fmt: skip


def _with(row: Efficiency, timing: Timing) -> Efficiency:
    """The row with its times; its memory is that of the smallest batch, the largest stands with its batch."""
    peak = timing.latency[0].peak_bytes if timing.latency else None
    return replace(row, latency=timing.latency, throughput=timing.throughput, peak_bytes=peak, failure=timing.failure)


def _explained(row: Efficiency, rows: Sequence[Efficiency], variant: Variant) -> Efficiency:
    """A row that is slower than FP32 on its runtime says so, and which operators run instead of integers."""
    beside = same_runtime(row, rows)
    if beside is None or beside is row or not row.speedups:
        return row
    name = f"{beside.name} on {beside.runtime}"
    slow = [one for one in row.speedups if one.reference == name and one.value < 1]
    if not slow:
        return row
    where = ", ".join(f"{one.value:.2f} times as fast at batch {one.batch}" for one in slow)
    return replace(row, notes=(*row.notes, f"Slower than {name}: {where}. {_operators(row.runtime, variant)}"))


def _operators(runtime: str, variant: Variant) -> str:
    """The layers and the most frequent operators that a runtime says it runs, as a sentence."""
    try:
        ran = executed(variant, runtime)
    except QuantwardError as error:
        return f"What it runs is not known: {error.reason if isinstance(error, Broken) else error}"
    if ran is None:
        return f"{runtime} does not tell what it runs."
    layers = ", ".join(f"{count} in {kind}" for kind, count in sorted(ran.layers.items())) or "none"
    most = sorted(ran.operators.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
    return f"Layers: {layers}; most frequent operators: {', '.join(f'{name} ×{n}' for name, n in most)}."
