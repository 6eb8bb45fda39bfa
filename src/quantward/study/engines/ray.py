"""Steps on an existing Ray cluster: a task each, results through the store alone, so a node's death costs one step.

The driver runs on a node of the cluster and submits a step once all it needs is in the store. A task tells where it
runs, carries the step out and tells how it ended; what the step left never travels through Ray, whose memory dies with
its node. A task whose node died, or that was stopped because memory ran out, is tried again elsewhere; one whose
process crashed is not, as it would crash again.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from quantward.core.errors import UsageError
from quantward.core.store import plain
from quantward.study.engines._cluster import broke, connected, marked
from quantward.study.engines._node import carry, patient, versions
from quantward.study.engines._order import Order
from quantward.study.store import Full
from quantward.study.values import Design, Done, Failed, News, Step, Store

AHEAD = 4
"""Tasks handed to Ray for each processor: more would make it slow, fewer would give a growing cluster no reason to."""


@dataclass(frozen=True)
class Ray:
    """`address` is the cluster's (HOST:PORT; `auto` is the one that this machine belongs to), `gpus` what each training
    reserves, `retries` how often a step is tried again whose node died."""

    address: str = "auto"
    gpus: float = 0.0
    retries: int = 3

    def missing(self) -> str | None:
        """Which extra to install; None where all is there."""
        absent = [name for name in ("ray", "fsspec") if importlib.util.find_spec(name) is None]
        if not absent:
            return None
        return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing (pip install 'quantward[ray]')"

    def run(self, design: Design, store: Store, wanted: Sequence[str]) -> Iterator[News]:
        """Carry out the steps `wanted`, telling each change. Leaving the loop, or Ctrl-C, cancels what runs.

        Raises UsageError where no cluster answers at the address, or no node has the processors and GPUs asked for;
        Full where a disk is.
        """
        with connected(self.address) as ray, marked(store.address) as mark:
            yield from _Work(self, ray, store, mark).carry_out(design, wanted)


class _Node(NamedTuple):
    """A node as Ray counts it; the widest comes last in order."""

    cpus: float
    gpus: float
    name: str
    id: str


class _Sent(NamedTuple):
    """A step that Ray has, how often it was tried before, and the node it is pinned to, where it is."""

    step: Step
    tries: int = 0
    node: str = ""


class _Work:
    """One run: what was sent to the cluster and has not ended."""

    def __init__(self, engine: Ray, ray: Any, store: Store, mark: str) -> None:
        self.engine, self.ray, self.store, self.mark = engine, ray, store, mark
        self.address = store.address if "://" in store.address else str(Path(store.address).resolve())
        self.task = ray.remote(carry)
        self.sent: dict[Any, _Sent] = {}
        self.gone: set[str] = set()

    def carry_out(self, design: Design, wanted: Sequence[str]) -> Iterator[News]:
        order = Order(design, self.store, wanted)
        yield from order.begin()
        try:
            while order.open:
                room = AHEAD * max(1, int(sum(node.cpus for node in self.nodes())))
                while len(self.sent) < room and (step := order.next()) is not None:
                    self.send(step)
                told, _ = self.ray.wait(list(self.sent), num_returns=1, timeout=1.0)
                for stream in told:
                    yield from order.note(self.hear(stream))
        finally:
            for stream in self.sent:
                with suppress(Exception):
                    self.ray.cancel(stream, force=True)

    def nodes(self) -> list[_Node]:
        """The nodes that live, the one that all timed steps go to last: their figures must be comparable."""
        return sorted(
            _Node(has.get("CPU", 0.0), has.get("GPU", 0.0), node["NodeName"], node["NodeID"])
            for node in self.ray.nodes()
            if node["Alive"] and node["NodeID"] not in self.gone and (has := node["Resources"])
        )

    def send(self, step: Step, tries: int = 0) -> None:
        """Hand a step to Ray with what it reserves. Raises UsageError where no node has that."""
        nodes = self.nodes()
        gpus = max(step.gpus, self.engine.gpus if step.kind == "train" else 0.0)
        fit = [node for node in nodes if node.cpus >= 1 and node.gpus >= gpus]
        if not fit:
            most = max((node.gpus for node in nodes), default=0.0)
            raise UsageError(
                f"Expected a node with a processor and {gpus:g} GPUs; none of the cluster's {len(nodes)} has (the most "
                f"GPUs are {most:g}). Start such a node, or ask for less with --engine ray:gpus=."
            )
        widest = fit[-1]
        cpus = min(step.cpus, widest.cpus)
        how: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus}
        if step.alone:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            how["num_cpus"] = widest.cpus
            how["scheduling_strategy"] = NodeAffinitySchedulingStrategy(widest.id, soft=False)
        if not gpus and any(node.gpus for node in nodes):
            # A task that reserves no GPU would see, and use, those that others have reserved.
            how["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
        task = self.task.options(**how, name=f"quantward-{step.kind}", num_returns="streaming", max_retries=0)
        stream = task.remote(_order(step), self.address, self.mark, versions(step.kind), max(1, int(cpus)))
        self.sent[stream] = _Sent(step, tries, widest.id if step.alone else "")

    def hear(self, stream: Any) -> News:
        """What a task says next. One that ended without a word lost its node, its memory or its process."""
        from ray import exceptions as lost

        sent = self.sent[stream]
        try:
            told = self.ray.get(next(stream))
        except (lost.NodeDiedError, lost.TaskUnschedulableError, lost.LocalRayletDiedError):
            return self.again(stream, "its node died")
        except lost.OutOfMemoryError:
            return self.again(stream, "its node ran out of memory")
        except (lost.RayError, StopIteration) as error:
            done = self.store.find(sent.step.key)  # it may have died after its work
            return self.end(stream, broke(error)) if done is None else self.well(stream, done)
        if told["state"] == "running":
            return News(sent.step, "running")
        if told["state"] == "full":
            raise Full(told["reason"])
        if told["state"] == "failed":
            return self.end(stream, told["reason"], told.get("because", ""))
        done = patient(self.store, sent.step.key)
        if done is not None:
            return self.well(stream, done)
        return self.end(
            stream,
            f"Expected the result of this step in {self.store.address}; this machine cannot see it there. "
            "Give a store that all nodes share.",
        )

    def well(self, stream: Any, done: Done) -> News:
        """A step that has its result."""
        return News(self.sent.pop(stream).step, "done", done=done)

    def again(self, stream: Any, what: str) -> News:
        """Send a step once more, or fail it where that was done often enough."""
        sent = self.sent[stream]
        self.gone.add(sent.node)  # the cluster may take it for alive a while longer
        if sent.tries >= self.engine.retries:
            often = f"{sent.tries + 1} times" if sent.tries else "once"
            return self.end(
                stream,
                f"Expected a node that carries the step out; {what}, {often}. "
                "Look at the cluster's nodes (ray status), then run the study again.",
            )
        del self.sent[stream]
        self.send(sent.step, sent.tries + 1)
        return News(sent.step, "waiting")

    def end(self, stream: Any, reason: str, because: str = "") -> News:
        """A step without a result, and why."""
        step = self.sent.pop(stream).step
        failed = Failed(step.key, step.kind, step.label, reason, because)
        self.store.fail(failed)
        return News(step, "failed", failed=failed)


def _order(step: Step) -> str:
    """A step as JSON; its paths in full, as a task has a working folder of its own."""
    places = {part: str(Path(place).resolve()) for part, place in step.places.items()}
    return json.dumps(plain(replace(step, places=places)))
