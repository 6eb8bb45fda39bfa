"""Steps on a Ray cluster: what is sent where, what becomes of every way to end, and the same tables as at home.

The first half faces a made-up Ray that ends tasks as it is told, the second a real cluster of two nodes.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="the extra [ray] is not installed")

from ray import exceptions as lost

from quantward.core.errors import Refused, UsageError
from quantward.core.registry import Registry
from quantward.study.engines import _cluster, _node
from quantward.study.engines import ray as engine
from quantward.study.engines._threads import POOLS, limit
from quantward.study.engines.ray import AHEAD, Ray
from quantward.study.shared import SharedStore
from quantward.study.store import FolderStore
from quantward.study.values import Design, Done, Failed, News, Step, Store

ENGINES = Registry("engine", "quantward.study.engines")
Script = Sequence[Any]

DIED = lost.NodeDiedError("the node is gone")
CRASHED = lost.WorkerCrashedError()
FULL = lost.OutOfMemoryError("too much")


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def step(name: str, needs: str = "", kind: str = "plan", **fields: Any) -> Step:
    return Step(key(name), kind, name, {"name": name}, {part: key(part) for part in needs.split()}, **fields)


def study(*steps: Step) -> Design:
    return Design("made up", {}, {each.key: each for each in steps}, (), ())


def node(name: str, cpus: float = 2.0, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    has = {"CPU": cpus, "GPU": gpus, "memory": 1e9}
    return {
        "NodeName": name,
        "NodeID": key(name)[:56],
        "Alive": alive,
        "Resources": has if cpus or gpus else {"memory": 1e9},
    }


class MadeUpRay:
    """A Ray whose tasks do what a script says: each try of a step is a list of `running`, `done`, a reason, or an error
    to end with. A step without a script runs and is done."""

    def __init__(self, store: Store, scripts: Mapping[str, Sequence[Script]], nodes: Sequence[dict[str, Any]]) -> None:
        self.store, self.scripts = store, {name: list(tries) for name, tries in scripts.items()}
        self.all = list(nodes)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.open: set[Any] = set()
        self.most = 0
        self.cancelled: list[str] = []

    def nodes(self) -> list[dict[str, Any]]:
        return self.all

    def remote(self, function: Any) -> Any:
        return _Task(self, {})

    def wait(self, streams: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert streams, "nothing is sent, and nothing will ever come"
        return streams[:1], streams[1:]

    def get(self, value: Any) -> Any:
        return value

    def cancel(self, stream: Any, force: bool) -> None:
        self.cancelled.append(stream.name)


class _Task:
    def __init__(self, ray: MadeUpRay, how: dict[str, Any]) -> None:
        self.ray, self.how = ray, how

    def options(self, **how: Any) -> _Task:
        return _Task(self.ray, how)

    def remote(self, order: str, *_: Any) -> _Stream:
        sent = _node.decode(Step, _node.json.loads(order))
        self.ray.sent.append((sent.label, self.how))
        tries = self.ray.scripts.get(sent.label, [])
        stream = _Stream(self.ray, sent, tries.pop(0) if tries else ["running", "done"])
        self.ray.open.add(stream)
        self.ray.most = max(self.ray.most, len(self.ray.open))
        return stream


class _Stream:
    def __init__(self, ray: MadeUpRay, sent: Step, script: Script) -> None:
        self.ray, self.step, self.name, self.script = ray, sent, sent.label, list(script)

    def __next__(self) -> dict[str, str]:
        event = self.script.pop(0)
        if event != "running":
            self.ray.open.discard(self)
        if isinstance(event, Exception):
            raise event
        if event == "running":
            return {"state": "running", "host": "node"}
        if event == "kept":
            self._keep()
            return {"state": "running"}
        if event == "done":
            self._keep()
            return {"state": "done"}
        return {"state": "done"} if event == "lies" else {"state": "failed", "reason": event}

    def _keep(self) -> None:
        (self.ray.store.scratch(self.step.key) / "x.txt").write_text(self.name, encoding="utf-8")
        self.ray.store.keep(self.step, {"name": self.name}, 1.0)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(str(tmp_path / "store"))


@pytest.fixture
def play(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[MadeUpRay, Iterator[News]]]:
    """Run steps on the made-up Ray."""

    def run(
        *steps: Step, scripts: Mapping[str, Sequence[Script]] | None = None, nodes: Any = None, **options: Any
    ) -> tuple[MadeUpRay, Iterator[News]]:
        made = MadeUpRay(store, scripts or {}, nodes or [node("one"), node("two")])

        @contextmanager
        def connected(address: str) -> Iterator[MadeUpRay]:
            yield made

        monkeypatch.setattr(engine, "connected", connected)
        monkeypatch.setattr(engine, "versions", lambda kind: {})
        monkeypatch.setattr(_node, "PATIENCE", 0.0)
        return made, Ray(**options).run(study(*steps), store, [each.key for each in steps])

    return run


def states(news: Iterator[News]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in news:
        found.setdefault(one.step.label, []).append(one.state)
    return found


def reasons(news: Iterator[News]) -> dict[str, str]:
    return {one.step.label: one.failed.reason for one in news if one.failed is not None}


def test_each_step_once_after_what_it_needs(play: Any, store: FolderStore) -> None:
    steps = step("a"), step("b"), step("c", "a b"), step("d", "c")
    made, news = play(*steps)
    seen = states(news)
    assert {name: told[-2:] for name, told in seen.items()} == {name: ["running", "done"] for name in "abcd"}
    order = [name for name, _ in made.sent]
    assert sorted(order) == ["a", "b", "c", "d"] and order[2:] == ["c", "d"]
    made, news = play(*steps)
    assert states(news) == {name: ["kept"] for name in "abcd"} and not made.sent


def test_a_dead_node_costs_a_try(play: Any, store: FolderStore) -> None:
    made, news = play(
        step("a"), step("b", "a"), scripts={"a": [["running", DIED], [DIED], [FULL], ["running", "done"]]}
    )
    seen = states(news)
    assert seen["a"][-6:] == ["running", "waiting", "waiting", "waiting", "running", "done"]
    assert seen["b"][-1] == "done"
    assert [name for name, _ in made.sent] == ["a"] * 4 + ["b"]
    assert store.failure(key("a")) is None


def test_a_pinned_node_that_is_gone_costs_a_try_and_is_not_taken_again(play: Any) -> None:
    gone = lost.TaskUnschedulableError("the node is gone")
    made, news = play(step("a", alone=True), scripts={"a": [[gone]]}, retries=1)
    assert states(news)["a"][-1] == "done"
    assert [how["scheduling_strategy"].node_id for _, how in made.sent] == [key("two")[:56], key("one")[:56]]


def test_a_process_that_dies_after_its_work_has_done_it(play: Any, store: FolderStore) -> None:
    _, news = play(step("a"), scripts={"a": [["running", "kept", CRASHED]]})
    assert states(news)["a"][-1] == "done" and store.failure(key("a")) is None


@pytest.mark.parametrize(("retries", "often"), [(0, "once"), (2, "3 times")])
def test_retries_come_to_an_end(play: Any, store: FolderStore, retries: int, often: str) -> None:
    scripts = {"a": [["running", DIED] for _ in range(9)]}
    made, news = play(step("a"), step("b", "a"), step("c"), scripts=scripts, retries=retries)
    told = list(news)
    found = reasons(iter(told))
    assert found["a"].startswith(f"Expected a node that carries the step out; its node died, {often}.")
    assert set(found) == {"a", "b"} and states(iter(told))["c"][-1] == "done"
    assert next(one.failed.because for one in told if one.failed and one.step.label == "b") == key("a")
    assert len([name for name, _ in made.sent if name == "a"]) == retries + 1
    noted = store.failure(key("a"))
    assert noted is not None and noted.reason == found["a"]


def test_a_crash_is_not_tried_again(play: Any, store: FolderStore) -> None:
    made, news = play(step("a"), step("b"), scripts={"a": [["running", CRASHED]]})
    found = reasons(news)
    assert set(found) == {"a"} and "its process died" in found["a"]
    assert [name for name, _ in made.sent] == ["a", "b"]
    assert store.failure(key("a")) is not None


def test_what_no_node_foresaw_is_a_sentence(play: Any) -> None:
    error = lost.RayTaskError(
        "carry", "Traceback\n  ...\nModuleNotFoundError: x", ModuleNotFoundError("No module named 'x'")
    )
    _, news = play(step("a"), scripts={"a": [[error]]})
    assert reasons(news)["a"].startswith(
        "Expected the step to end on its node; got ModuleNotFoundError (No module named"
    )


def test_the_reason_of_a_node_is_the_reason_of_the_step(play: Any) -> None:
    _, news = play(step("a"), step("b"), scripts={"a": [["running", "Expected images; got none. Look."]]})
    assert reasons(news) == {"a": "Expected images; got none. Look."}


def test_a_result_that_nobody_sees_is_a_failure(play: Any) -> None:
    _, news = play(step("a"), scripts={"a": [["running", "lies"]]})
    assert "this machine cannot see it there" in reasons(news)["a"]


def test_a_timed_step_has_the_widest_node_to_itself(play: Any) -> None:
    nodes = [node("a", 4), node("c", 8), node("b", 8), node("dead", 64, alive=False), node("head", 0)]
    made, news = play(step("x"), step("t", alone=True), step("wide", cpus=99), nodes=nodes)
    assert {told[-1] for told in states(news).values()} == {"done"}
    how = dict(made.sent)
    assert how["t"]["num_cpus"] == 8 and how["t"]["scheduling_strategy"].node_id == key("c")[:56]
    assert how["x"]["num_cpus"] == 1 and "scheduling_strategy" not in how["x"]
    assert how["wide"]["num_cpus"] == 8
    assert all(each["max_retries"] == 0 for each in how.values())


def test_gpus_are_for_trainings_and_hidden_from_others(play: Any) -> None:
    made, news = play(step("t", kind="train"), step("p"), nodes=[node("a", 2, 1), node("b", 9)], gpus=0.5)
    assert {told[-1] for told in states(news).values()} == {"done"}
    how = dict(made.sent)
    assert how["t"]["num_gpus"] == 0.5 and "runtime_env" not in how["t"]
    assert how["p"]["num_gpus"] == 0 and how["p"]["runtime_env"] == {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}


def test_what_no_node_has_is_refused(play: Any) -> None:
    _, news = play(step("t", kind="train"), gpus=2, nodes=[node("a", 2, 1)])
    with pytest.raises(
        UsageError, match=r"a processor and 2 GPUs; none of the cluster's 1 has \(the most GPUs are 1\)"
    ):
        list(news)
    _, news = play(step("p"), nodes=[node("head", 0)])
    with pytest.raises(UsageError, match="Expected a node with a processor"):
        list(news)


def test_no_more_is_sent_than_the_cluster_can_chew(play: Any) -> None:
    made, news = play(*[step(f"s{i}") for i in range(20)], nodes=[node("a", 2), node("b", 1)])
    assert {told[-1] for told in states(news).values()} == {"done"}
    assert made.most == 3 * AHEAD


def test_who_leaves_takes_what_runs_along(play: Any) -> None:
    made, news = play(step("a"), step("b"), step("c", "a"))
    for one in news:
        if one.state == "running":
            break
    news.close()
    assert sorted(made.cancelled) == ["a", "b"]


def test_paths_go_out_in_full(play: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    orders = []
    monkeypatch.setattr(
        _Task, "remote", lambda self, order, *rest, go=_Task.remote: orders.append(order) or go(self, order)
    )
    _, news = play(step("a", places={"data": "images"}))
    list(news)
    assert _node.json.loads(orders[0])["places"] == {"data": str(tmp_path / "images")}


# A node looks at itself before it begins.


def test_a_node_that_is_fit_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    fit = step("a", kind="train", places={"data": str(tmp_path)})
    assert _node.hindrance(fit, str(tmp_path / "mark"), _node.versions("train")) == ""
    assert _node.hindrance(fit, "", {}) == ""


def test_a_node_without_the_images_says_so(tmp_path: Path) -> None:
    found = _node.hindrance(step("a", places={"data": f"{tmp_path}/x"}), "", {})
    assert found.startswith(f"Expected the data of this step at {tmp_path}/x on node {socket.gethostname()}; there is")


def test_a_node_with_another_store_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_node, "PATIENCE", 0.0)
    found = _node.hindrance(step("a"), str(tmp_path / "store" / ".cluster-x"), {})
    assert found.startswith(f"Expected the study's store at {tmp_path}/store on node") and "fsspec URL" in found


def test_a_node_with_other_versions_says_which(tmp_path: Path) -> None:
    code = {**_node.versions("train"), "numpy": "0.1", "nothing-like-it": "2"}
    found = _node.hindrance(step("a", kind="train"), "", code)
    assert found.startswith("Expected numpy 0.1, nothing-like-it 2 on node")
    assert "nothing-like-it absent" in found


def test_a_node_tells_what_it_does(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = step("a", kind="train")
    ends: list[Any] = [
        Done(asked.key, "train", "a", {}, {}, 1.0),
        Failed(asked.key, "train", "a", "Expected x; got y."),
        Refused("Expected the store; got none."),
    ]

    def execute(step: Step, store: Store, track: Any) -> Any:
        end = ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(_node, "execute", execute)
    told = [list(_node.carry(engine._order(asked), store.address, "", {}, 1)) for _ in range(3)]
    assert [one[0]["state"] for one in told] == ["running"] * 3
    assert [one[1]["state"] for one in told] == ["done", "failed", "failed"]
    assert [one[1].get("reason") for one in told] == [None, "Expected x; got y.", "Expected the store; got none."]


def test_threads_are_those_of_the_step_whatever_ran_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=told.append))
    for name in POOLS:
        monkeypatch.setenv(name, "7")
    limit(2)
    assert told == [2] and {os.environ[name] for name in POOLS} == {"2"}
    monkeypatch.delitem(sys.modules, "torch")
    limit(3)
    assert told == [2] and {os.environ[name] for name in POOLS} == {"3"}


# The way to a cluster.


def test_addresses_at_which_no_cluster_is() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        pytest.raises(UsageError, match=r"nothing answers there .*Start one with ray start --head"),
        _cluster.connected(f"127.0.0.1:{port}"),
    ):
        raise AssertionError
    with (
        pytest.raises(UsageError, match="a cluster that this machine belongs to; got ray://"),
        _cluster.connected("ray://x:1"),
    ):
        raise AssertionError


def test_a_store_that_others_cannot_reach_is_refused() -> None:
    with pytest.raises(UsageError, match="got memory://"), _cluster.marked(f"memory://{uuid.uuid4().hex}"):
        raise AssertionError


def test_a_folder_is_marked_while_the_study_runs(tmp_path: Path) -> None:
    for address in (str(tmp_path / "a"), (tmp_path / "b").as_uri()):
        with _cluster.marked(address) as mark:
            assert Path(mark).is_file() and Path(mark).parent.name in "ab"
        assert not Path(mark).exists()
    with _cluster.marked("s3://bucket/study") as mark:
        assert mark == ""


def test_its_spelling_and_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ENGINES.make("ray:address=10.0.0.1:6379,gpus=0.5,retries=1")
    assert made == Ray("10.0.0.1:6379", 0.5, 1) and made.missing() is None
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    assert made.missing() == "ray and fsspec are missing (pip install 'quantward[ray]')"


# A real cluster of two nodes, and a study of toy images whose steps all run.

TINY = """
format: 1
name: tiny
title: Two folds of a small network on made-up images
data: {toy: {toy: 90}}
folds: 2
backbones: [resnet10t]
weights: none
size: 32
stages: ["fit:epochs=1"]
recipes: [int8-static]
targets: [onnx-cpu]
runtimes: [onnxruntime]
replicates: 100
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Design:
    pytest.importorskip("timm")
    from quantward.study.design import design
    from quantward.study.schema import read_study

    home = tmp_path_factory.mktemp("tiny")
    (home / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return design(read_study(home / "tiny.yaml"), home, toys=home / "toys")


@pytest.fixture(scope="module")
def at_home(tiny: Design, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the study leaves where its steps run in processes of this machine."""
    store = FolderStore(str(tmp_path_factory.mktemp("home") / "store"))
    with pytest.MonkeyPatch.context() as patch:
        for name in POOLS:
            patch.setenv(name, "1")  # as many as a step reserves
        told = list(ENGINES.make("local:jobs=1").run(tiny, store, list(tiny.steps)))
    assert not reasons(iter(told))
    return left(tiny, store)


def left(design: Design, store: Store) -> dict[str, Any]:
    """Everything that tables are made of, but for seconds: the facts of each step, and what each file said."""
    found: dict[str, Any] = {}
    for each in design.steps.values():
        done = store.find(each.key)
        assert done is not None, each.label
        facts = {name: value for name, value in done.facts.items() if name != "seconds"}
        names = ("predictions.csv", "model.safetensors", ".onnx")
        said = {name: digest for name, digest in done.files.items() if name.endswith(names)}
        found[f"{each.kind} {each.label}"] = facts, said
    return found


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes with a processor each on this machine: `cluster.second` may be killed."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        small = {"num_cpus": 1, "object_store_memory": 80 << 20}
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
        try:
            made.second = made.add_node(**small)
            yield made
        finally:
            made.shutdown()


@pytest.mark.slow
def test_a_node_killed_in_the_middle_leaves_the_same_tables(
    tiny: Design, at_home: Mapping[str, Any], cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = SharedStore((tmp_path / "drive").as_uri(), tmp_path / "cache")
    running: set[str] = set()
    killed, told = False, []
    for news in Ray(address=cluster.address).run(tiny, store, list(tiny.steps)):
        told.append(news)
        if news.state == "running":
            running.add(news.step.key)
        else:
            running.discard(news.step.key)
        if len(running) == 2 and not killed:  # a node each: whichever is killed, a step is in the middle
            cluster.remove_node(cluster.second, allow_graceful=False)
            killed = True
    assert killed and not reasons(iter(told))
    assert [news.step.kind for news in told if news.state == "waiting"], "no step was tried again"
    assert left(tiny, store) == at_home
    assert {news.state for news in Ray(address=cluster.address).run(tiny, store, list(tiny.steps))} == {"kept"}
    assert capfd.readouterr().out == ""
