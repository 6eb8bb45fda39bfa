"""`quantward study` from the command line: plan, run, go on, fail in a row, and refuse what would spoil a study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_study import designed, written
from typer.testing import CliRunner

from quantward.cli import app
from quantward.core.errors import Refused, UsageError
from quantward.core.lock import only_run
from quantward.core.store import read_json
from quantward.study import run
from quantward.study.live import Watch, watching
from quantward.study.run import lasting, study_plan, study_run
from quantward.study.store import FolderStore
from quantward.study.values import Design, Done, Failed, News, Step, Store

KINDS = ("train", "plan", "file", "said", "sensitivity", "score", "drift", "bench")


class Inside:
    """An engine without processes, that does no work: it writes down what steps of each kind would leave."""

    failing: str = ""

    def missing(self) -> str | None:
        return None

    def run(self, design: Design, store: Store, wanted: Sequence[str]) -> Iterator[News]:
        from quantward.study.engines._order import Order

        order = Order(design, store, wanted)
        yield from order.begin()
        while (step := order.next()) is not None:
            yield News(step, "running")
            if self.failing and self.failing in step.label and step.kind == "plan":
                failed = Failed(step.key, step.kind, step.label, "Expected more; got less. Mend it.")
                store.fail(failed)
                yield from order.note(News(step, "failed", failed=failed))
                continue
            (store.scratch(step.key) / "text").write_text(step.label, encoding="utf-8")
            done = store.keep(step, facts(step), 2.0)
            yield from order.note(News(step, "done", done=done))


def facts(step: Step) -> dict[str, Any]:
    if step.kind == "score":
        one = {"value": 0.9, "low": 0.8, "high": 0.95, "folds": [0.9]}
        metrics = dict.fromkeys(("accuracy", "auroc", "ece"), one)
        return {"n": 20, "folds": 2, "metrics": metrics, "deltas": {}, "flips": None, "verdict": "PASS", "bytes": 1000}
    return {"bench": {"rows": []}, "sensitivity": {"layers": [], "spearman": None}}.get(step.kind, {})


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Inside:
    made = Inside()

    class Engines:
        def make(self, text: str) -> Inside:
            return made

    monkeypatch.setattr(run, "ENGINES", Engines())
    return made


def said(*arguments: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, ["study", *arguments])
    assert found.exit_code == code, (found.output, found.exception)
    return found.stdout


def test_a_plan_tells_steps_and_time_and_writes_nothing(tmp_path: Path) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    told = said(str(file), "--out", str(out), "--dry-run")
    assert "2 rows of 4 trials" in told and "by rule of thumb" in told
    assert all(f"  {kind} " in told for kind in KINDS)
    found = json.loads(said(str(file), "--out", str(out), "--dry-run", "--json"))
    assert found["steps"]["train"]["steps"] == 2 and found["seconds"] > 0 and found["rows"] == 2
    assert not out.exists()


def test_a_study_runs_goes_on_and_shows_its_rows(tmp_path: Path, engine: Inside) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    told = said(str(file), "--out", str(out))
    assert (
        "int8-static" in told
        and "PASS" in told
        and "0.900" in told
        and str(out / "report.html") in told.replace("\n", "")
    )
    record = read_json(out / "study.json")
    assert record["name"] == "small" and record["scale"] == "full" and len(record["rows"]) == 2
    assert (out / "report.html").is_file()
    found = json.loads(said(str(file), "--out", str(out), "--json"))
    assert found["steps"] == {"kept": len(record["steps"]), "done": 0, "failed": 0}
    assert found["rows"][1]["recipe"] == "int8-static" and found["rows"][1]["verdict"] == "PASS"
    plan = study_plan(file, tmp_path, out)
    assert plan.forecast.seconds == 0 and "done" in run.plan_lines(plan)[1]


def test_a_failed_row_says_why_and_the_exit_code_too(tmp_path: Path, engine: Inside) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    engine.failing = "int8-static"
    told = said(str(file), "--out", str(out), code=3)
    assert "failed: Expected more; got less." in " ".join(told.split()) and "PASS" in told
    found = json.loads(said(str(file), "--out", str(out), "--json", code=3))
    assert found["rows"][1]["failure"] == "Expected more; got less. Mend it." and found["steps"]["failed"] > 3
    engine.failing = ""
    found = json.loads(said(str(file), "--out", str(out), "--json"))
    assert found["steps"]["failed"] == 0 and "failure" not in found["rows"][1]


@pytest.mark.parametrize(("change", "again"), [
    ({"recipes": ["fp32", "int8-static", "fp16"]},
     {"plan": 2, "file": 2, "said": 3, "score": 2, "drift": 1, "bench": 1}),
    ({"replicates": 150}, {"score": 4}),
    ({"bench": {"batches": [1, 2], "seconds": 0.05}}, {"bench": 1}),
    ({"threads": 2}, {"said": 6, "score": 4, "bench": 1}),
    ({"drift": {"method": "gradcam", "images": 8}}, {"drift": 1}),
    ({"title": "Another title", "cut": ["Nothing."]}, {}),
])  # fmt: skip
def test_a_changed_study_runs_what_depends_on_the_change(
    tmp_path: Path, engine: Inside, change: dict[str, Any], again: dict[str, int]
) -> None:
    before = designed(tmp_path, tmp_path / "toys")
    after = designed(tmp_path, tmp_path / "toys", **change)
    store = FolderStore(str(tmp_path / "store"))
    for _ in engine.run(before, store, list(before.steps)):
        pass
    done = [news.step for news in engine.run(after, store, list(after.steps)) if news.state == "done"]
    assert {step.key for step in done} == set(after.steps) - set(before.steps)
    counts = {kind: sum(step.kind == kind for step in done) for kind in KINDS}
    assert {kind: count for kind, count in counts.items() if count} == again


def test_a_corrupted_result_runs_again_and_is_told(tmp_path: Path, engine: Inside) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    said(str(file), "--out", str(out))
    victim = next(path for path in (out / "store").glob("*/*/text"))
    victim.write_text("x", encoding="utf-8")
    found = CliRunner().invoke(app, ["study", str(file), "--out", str(out), "--json"])
    assert json.loads(found.stdout)["steps"]["done"] == 1
    assert found.stderr.count("Set aside a broken result") == 1


HOLD = """
from pathlib import Path
from quantward.core.lock import only_run
with only_run(Path({out!r})):
    print(flush=True)
    input()
"""


def test_two_runs_in_one_folder_are_refused(tmp_path: Path, engine: Inside) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    code = HOLD.format(out=str(out))
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(Refused, match=f"Expected to be the only run in .*; process {other.pid} is at work there"):
            study_run(file, tmp_path, out)
        assert not (out / "study.json").exists()
    finally:
        other.communicate(b"\n")
    assert study_run(file, tmp_path, out).failed == 0
    with only_run(out):
        pass


def test_another_study_in_the_folder_is_refused(tmp_path: Path, engine: Inside) -> None:
    out = tmp_path / "out"
    study_run(written(tmp_path), tmp_path, out)
    with pytest.raises(Refused, match=r"Expected the study other in .*; it holds small"):
        study_run(written(tmp_path / "second", name="other"), tmp_path, out)
    (out / "study.json").write_text("{", encoding="utf-8")
    assert study_run(written(tmp_path), tmp_path, out).failed == 0


def test_a_full_disk_is_one_sentence(tmp_path: Path, engine: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run, "write_json", full)
    with pytest.raises(Refused, match="Expected room on the disks of this study"):
        study_run(written(tmp_path), tmp_path, tmp_path / "out")


def test_an_engine_that_is_not_installed_is_told_first(
    tmp_path: Path, engine: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "missing", lambda: "ray missing; install quantward[ray]", raising=False)
    with pytest.raises(UsageError, match=r"Expected an engine that is installed; ray missing"):
        study_run(tmp_path / "no.yaml", tmp_path)


def test_an_unknown_engine_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'local'"):
        study_run(tmp_path / "no.yaml", tmp_path, engine="locl")


def test_results_may_lie_elsewhere(tmp_path: Path, engine: Inside) -> None:
    done = study_run(written(tmp_path), tmp_path, tmp_path / "out", store=str(tmp_path / "results"))
    assert not (tmp_path / "out" / "store").exists() and list((tmp_path / "results").glob("*/*/result.json"))
    from quantward.study.reading import read

    assert (
        [line.failure for line in read(tmp_path / "out").lines]
        == ["", ""]
        == [line.failure for line in done.record.lines]
    )


def test_a_watch_counts_and_forecasts(tmp_path: Path) -> None:
    made, now = designed(tmp_path, tmp_path / "toys"), [0.0]
    watch = Watch(made, clock=lambda: now[0])
    train = [step for step in made.steps.values() if step.kind == "train"]
    assert watch.counts("train") == {"waiting": 2, "running": 0, "done": 0, "failed": 0}
    whole = watch.left()
    watch.note(News(train[0], "kept", done=Done(train[0].key, "train", "", {}, {}, train[0].guess)))
    watch.note(News(train[1], "running"))
    assert watch.counts("train") == {"waiting": 0, "running": 1, "done": 1, "failed": 0}
    now[0] = 10.0
    assert 0 < watch.left() < whole
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(watch.table())
    told = console.export_text()
    assert "train: scans" in told and "10 s" in told and "small" in told
    console.file.close()
    watch.note(News(train[1], "failed", failed=Failed(train[1].key, "train", "", "Expected x.")))
    assert watch.counts("train")["failed"] == 1


def test_without_a_terminal_each_step_is_a_line(tmp_path: Path, engine: Inside) -> None:
    lines: list[str] = []
    engine.failing = "int8-static"
    with open(os.devnull, "w") as nothing, watching(Console(file=nothing), lines.append) as watch:  # noqa: PTH123
        study_run(written(tmp_path), tmp_path, tmp_path / "out", watch=watch)
        first = len(lines)
        study_run(written(tmp_path), tmp_path, tmp_path / "out", watch=watch)
    assert any(line.startswith("1/") and "train: scans" in line and "left)" in line for line in lines[:first])
    assert sum("failed: Expected more; got less." in line for line in lines[:first]) == 2, "the two folds, and no more"
    assert "steps were done before" in lines[first]


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1 h 30 min"), (86400, "24 h")]
)
def test_times_are_for_people(seconds: float, told: str) -> None:
    assert lasting(seconds) == told


def test_it_runs_with_real_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way once: training, a file, its answers, a score, by the local engine; a table and a report."""
    pytest.importorskip("timm")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = written(tmp_path, folds=1, bench=None, drift=None, sensitivity=None, data={"scans": "toy"},
                   recipes=["fp32", "fp16"])  # fmt: skip
    out = tmp_path / "out"
    found = CliRunner().invoke(app, ["study", str(file), "--out", str(out), "--engine", "local:jobs=1", "--json"])
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)["rows"]
    assert [row["recipe"] for row in rows] == ["fp32", "fp16"] and rows[1]["smaller"] > 1.8
    assert rows[1]["metrics"]["accuracy"]["value"] is not None
    assert (out / "report.html").is_file()
