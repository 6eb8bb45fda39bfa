"""Steps in processes of this machine: what is ready runs, what dies is a reason, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from quantward.core.errors import Refused, UsageError
from quantward.core.registry import Registry
from quantward.core.store import digest_text, plain
from quantward.study.engines import local
from quantward.study.engines._order import Order
from quantward.study.engines.local import Local
from quantward.study.execute import ACCIDENT
from quantward.study.store import FolderStore, Full
from quantward.study.values import Design, Done, Failed, News, Step

ODD = """
import errno, os, sys, time, threading
from dataclasses import dataclass
from typing import ClassVar
from quantward.core.errors import Refused

@dataclass(frozen=True)
class Odd:
    rooms: ClassVar = ()
    libraries: ClassVar = ()

    def run(self, place):
        do, began = place.step.asked["do"], time.monotonic()
        print("a library talks", flush=True)
        print("and complains", file=sys.stderr, flush=True)
        if do == "kill":
            os.kill(os.getpid(), 9)
        if do == "abort":
            os.abort()
        if do == "leave":
            sys.stderr.write("the last word\\n")
            os._exit(7)
        if do == "refuse":
            raise Refused("Expected sense; got none. Ask again.")
        if do == "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        if do == "sleep":
            (place.folder / "asleep").write_text(str(os.getpid()))
            while not (place.folder / "wake").exists():
                time.sleep(0.02)
        time.sleep(place.step.asked.get("nap", 0))
        (place.folder / "text").write_text(place.step.label)
        return {"began": began, "ended": time.monotonic(), "pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"],
                "parts": sorted(place.inputs)}
"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kind of step from outside, as an extension brings it: found by this process and by those that it starts."""
    home = tmp_path / "extension"
    told = home / "odd_steps-1.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-steps\nVersion: 1.0\n", encoding="utf-8")
    (told / "entry_points.txt").write_text("[quantward.study.steps]\nodd = odd_steps:Odd\n", encoding="utf-8")
    (home / "odd_steps.py").write_text(ODD, encoding="utf-8")
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.setenv("PYTHONPATH", str(home))
    return home


def step(name: str, needs: Sequence[str] = (), *, do: str = "write", alone: bool = False, nap: float = 0.0) -> Step:
    return Step(digest_text(name), "odd", name, {"do": do, "nap": nap}, {part: digest_text(part) for part in needs},
                alone=alone)  # fmt: skip


def designed(*steps: Step) -> Design:
    return Design("odd", {}, {one.key: one for one in steps}, (), ())


def run(made: Design, store: FolderStore, jobs: int = 2) -> dict[str, News]:
    """The last news of each step, by its label."""
    return {news.step.label: news for news in Local(jobs).run(made, store, list(made.steps))}


def facts(news: News) -> dict[str, object]:
    assert news.done is not None, news
    return dict(news.done.facts)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(str(tmp_path / "store"))


def order_of(made: Design, store: FolderStore, fails: dict[str, str]) -> tuple[list[str], dict[str, Failed]]:
    """In which order an Order gives steps, and what failed, where the steps in `fails` do."""
    order, given, failed = Order(made, store, list(made.steps)), [], {}
    assert not list(order.begin())
    while (one := order.next()) is not None:
        given.append(one.label)
        if one.label in fails:
            news = News(one, "failed", failed=Failed(one.key, "odd", one.label, fails[one.label]))
        else:
            news = News(one, "done", done=Done(one.key, "odd", one.label, {}, {}, 1.0))
        failed.update({more.step.label: more.failed for more in order.note(news) if more.failed})
    assert not order.open
    return given, failed


def test_needs_come_first_and_timed_steps_last(store: FolderStore) -> None:
    made = designed(step("a"), step("b", ["a"], alone=True), step("c", ["a"]), step("d", ["c"]))
    assert order_of(made, store, {}) == (["a", "c", "d", "b"], {})


def test_a_failure_fails_what_builds_on_it_with_the_first_reason(store: FolderStore) -> None:
    made = designed(step("a"), step("b"), step("c", ["a"]), step("d", ["c", "b"]), step("e", ["b"]))
    given, failed = order_of(made, store, {"a": "Expected x; got y. Do z."})
    assert given == ["a", "b", "e"] and set(failed) == {"a", "c", "d"}
    assert {failed[name].because for name in ("c", "d")} == {digest_text("a")}
    noted = store.failure(digest_text("d"))
    assert noted is not None and noted.reason == "Expected x; got y. Do z."


def test_what_is_timed_together_does_without_a_file_that_cannot_be_made(store: FolderStore) -> None:
    def timed(*names: str) -> Step:
        return Step(digest_text("t"), "odd", "t", {}, {f"file/{name}": digest_text(name) for name in names}, alone=True)

    made = designed(step("p"), step("a"), step("b", ["p"]), timed("a", "b"))
    given, failed = order_of(made, store, {"p": "Expected a target that can. Choose another."})
    assert given == ["p", "a", "t"] and set(failed) == {"p", "b"}
    given, failed = order_of(made, store, {"p": "Expected this", "a": "Expected that"})
    assert given == ["p", "a"] and failed["t"].reason == "Expected that"
    given, failed = order_of(made, store, {"p": f"{ACCIDENT}; its process was killed."})
    assert given == ["p", "a"] and set(failed) == {"p", "b", "t"}, "it may be there next time"


def test_what_is_wanted_brings_what_it_needs(store: FolderStore) -> None:
    made = designed(step("a"), step("b", ["a"]), step("c"))
    order = Order(made, store, [digest_text("b")])
    assert not list(order.begin())
    assert order.next() == made.steps[digest_text("a")] and order.next() is None
    with pytest.raises(UsageError, match="Expected a step of the study odd"):
        Order(made, store, ["nothing"])


def test_steps_run_in_processes_that_are_kept(odd: Path, store: FolderStore) -> None:
    made = designed(*(step(f"s{i}") for i in range(6)), step("after", ["s0", "s5"]))
    told = run(made, store)
    assert all(news.state == "done" for news in told.values())
    workers = {facts(news)["pid"] for news in told.values()}
    assert len(workers) <= 2 and os.getpid() not in workers
    assert facts(told["after"])["parts"] == ["s0", "s5"]
    again = list(Local(2).run(made, store, list(made.steps)))
    assert {news.state for news in again} == {"kept"} and len(again) == 7


def test_a_timed_step_has_the_machine_to_itself(odd: Path, store: FolderStore) -> None:
    steps = [step(f"s{i}", nap=0.05) for i in range(4)]
    made = designed(step("timed", alone=True, nap=0.2), step("timed too", alone=True), *steps)
    told = {name: facts(news) for name, news in run(made, store).items()}
    for timed in ("timed", "timed too"):
        for other, spent in told.items():
            mine = told[timed]
            assert other == timed or spent["ended"] <= mine["began"] or spent["began"] >= mine["ended"], (timed, other)  # type: ignore[operator]


def test_a_process_that_dies_is_a_reason_and_is_replaced(odd: Path, store: FolderStore) -> None:
    made = designed(step("k", do="kill"), step("x", do="leave"), step("a", do="abort"), step("r", do="refuse"),
                    step("on k", ["k"]), *(step(f"s{i}") for i in range(3)))  # fmt: skip
    told = run(made, store)
    assert {name for name, news in told.items() if news.state == "done"} == {"s0", "s1", "s2"}
    why = {name: news.failed.reason for name, news in told.items() if news.failed is not None}
    assert "its process was killed (SIGKILL), as systems do when memory runs out" in why["k"]
    assert "failed with exit code 7 (the last word)" in why["x"] and "crashed (SIGABRT)" in why["a"]
    assert why["r"] == "Expected sense; got none. Ask again." and why["on k"] == why["k"]
    noted = store.failure(digest_text("x"))
    assert noted is not None and noted.reason == why["x"]


def test_a_full_disk_stops_the_study(odd: Path, store: FolderStore) -> None:
    made = designed(step("first"), step("second", ["first"], do="disk"), step("third", ["second"]))
    with pytest.raises(Refused, match="Expected room on the disks of this study"):
        run(made, store)
    assert store.find(digest_text("first")) is not None and store.failure(digest_text("second")) is None


def test_code_that_changes_meanwhile_stops_the_study(
    odd: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "made_by", lambda rooms, libraries: "another code")
    with pytest.raises(Refused, match="Expected the code that this study began with"):
        run(designed(step("a")), store)
    assert store.find(digest_text("a")) is None


def gone(pid: int) -> bool:
    """Whether a process ended (or waits only for its parent to notice)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def until(what: object, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def sleeper(store: FolderStore, one: Step) -> int:
    """The process of a step that sleeps."""
    path = store.scratch(one.key) / "asleep"
    until(lambda: path.exists() and path.read_text(encoding="utf-8"))
    return int(path.read_text(encoding="utf-8"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_leaving_the_loop_ends_all_processes(odd: Path, store: FolderStore) -> None:
    one = step("long", do="sleep")
    news = Local(1).run(designed(one), store, [one.key])
    assert next(news).state == "running"
    pid = sleeper(store, one)
    news.close()  # type: ignore[attr-defined]
    assert gone(pid) and store.find(one.key) is None and store.failure(one.key) is None


DRIVER = """
import json, sys
from quantward.core.store import decode
from quantward.study.engines.local import Local
from quantward.study.store import FolderStore
from quantward.study.values import Design
made = decode(Design, json.loads(sys.argv[1]))
for news in Local(2).run(made, FolderStore(sys.argv[2]), list(made.steps)):
    print(news.state, news.step.label, flush=True)
"""


@pytest.fixture
def drivers() -> Iterator[list[subprocess.Popen[str]]]:
    found: list[subprocess.Popen[str]] = []
    yield found
    for one in found:
        one.kill()
        one.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_study_leaves_no_process_and_goes_on(
    odd: Path, store: FolderStore, drivers: list[subprocess.Popen[str]], number: signal.Signals
) -> None:
    made = designed(step("first"), step("long", ["first"], do="sleep"), step("after", ["long"]))
    arguments = [sys.executable, "-c", DRIVER, json.dumps(plain(made)), store.address]
    first = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
                             start_new_session=True)  # fmt: skip
    drivers.append(first)
    pid = sleeper(store, made.steps[digest_text("long")])
    first.send_signal(number)
    first.wait(30)
    until(lambda: gone(pid))
    assert store.find(digest_text("first")) is not None and store.find(digest_text("long")) is None
    (store.scratch(digest_text("long")) / "wake").write_text("", encoding="utf-8")
    told = run(made, store)
    assert {name: news.state for name, news in told.items()} == {"first": "kept", "long": "done", "after": "done"}


@pytest.mark.parametrize("jobs", [0, -1])
def test_jobs_are_at_least_one(jobs: int) -> None:
    with pytest.raises(UsageError, match="Expected at least one job"):
        Local(jobs)


def test_the_engine_is_found_by_its_name() -> None:
    engines = Registry("engine", "quantward.study.engines")
    assert engines.make("local:jobs=3") == Local(3) and Local(3).missing() is None
    assert {"local", "ray"} <= set(engines.names())
    assert 1 <= local._jobs() <= (os.cpu_count() or 1)


def test_a_full_disk_is_refused_data() -> None:
    assert Full("x").exit_code == 5
