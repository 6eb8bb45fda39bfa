"""What may be carried out next, and what cannot any more: the same for every engine.

A step is ready once all it needs is done. One that failed fails all that builds on it, each with the reason of the
first, and stops nothing else. Of many files that are timed together, those that could be made are enough; but only
where the others will never be: what broke by accident comes next time, and would then be missing under the same key.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from quantward.core.errors import UsageError
from quantward.study.execute import ACCIDENT, MANY
from quantward.study.values import Design, Done, Failed, News, Step, Store


class Order:
    """The steps `wanted` of a design and, where they are not in the store, those that they need."""

    def __init__(self, design: Design, store: Store, wanted: Sequence[str]) -> None:
        self.design, self.store = design, store
        self.place = {key: number for number, key in enumerate(design.steps)}
        self.wanted = sorted(set(wanted), key=self._placed)
        self.left: set[str] = set()
        self.waits: dict[str, set[str]] = {}
        self.builds: dict[str, list[str]] = {}
        self.lost: dict[str, set[str]] = {}
        self.ready: list[int] = []
        self.late: list[int] = []
        self.steps = tuple(design.steps.values())

    def begin(self) -> Iterator[News]:
        """Look into the store: tells of each step that is kept, and puts the others in order."""
        kept: dict[str, Done] = {}
        asked, stack = set(self.wanted), list(reversed(self.wanted))
        while stack:
            key = stack.pop()
            done = self.store.find(key)
            if done is not None:
                kept[key] = done
                yield News(self.design.steps[key], "kept", done=done)
                continue
            self.left.add(key)
            for other in self.design.steps[key].needs.values():
                if other not in asked:
                    asked.add(other)
                    stack.append(other)
        for key in sorted(self.left, key=self._placed):
            self.waits[key] = {other for other in self.design.steps[key].needs.values() if other not in kept}
            for other in self.waits[key]:
                self.builds.setdefault(other, []).append(key)
            if not self.waits[key]:
                self._make_ready(key)

    @property
    def open(self) -> bool:
        """Whether any step has neither a result nor a reason yet."""
        return bool(self.left)

    def next(self, *, alone: bool = True) -> Step | None:
        """A step that is ready, the first of the design first; each is given once. Those that want the machine to
        themselves come when no other is ready, and only where `alone` allows it."""
        if self.ready:
            return self.steps[heapq.heappop(self.ready)]
        if self.late and alone:
            return self.steps[heapq.heappop(self.late)]
        return None

    def note(self, news: News) -> Iterator[News]:
        """Take in what became of a step that was given; tells it, and what it means for others."""
        yield news
        key = news.step.key
        if key not in self.left:
            return
        if news.state in ("done", "kept"):
            self.left.discard(key)
            for other in self.builds.pop(key, ()):
                self.waits[other].discard(key)
                if not self.waits[other] and other in self.left:
                    self._make_ready(other)
        elif news.state == "failed":
            self.left.discard(key)
            reason = news.failed.reason if news.failed is not None else ""
            yield from self._fail_all_after(key, reason)

    def _fail_all_after(self, first: str, reason: str) -> Iterator[News]:
        stack = [first]
        while stack:
            broken = stack.pop()
            for key in self.builds.pop(broken, ()):
                if key not in self.left or self._does_without(key, broken, reason):
                    continue
                self.left.discard(key)
                step = self.design.steps[key]
                failed = Failed(key, step.kind, step.label, reason, because=first)
                self.store.fail(failed)
                yield News(step, "failed", failed=failed)
                stack.append(key)

    def _does_without(self, key: str, broken: str, reason: str) -> bool:
        """Whether a step goes on without one of the many that it needs; it is made ready where that was the last."""
        needs = self.design.steps[key].needs
        parts = [part for part, other in needs.items() if other == broken]
        if reason.startswith(ACCIDENT) or not all(part.startswith(MANY) for part in parts):
            return False
        self.lost.setdefault(key, set()).add(broken)
        if self.lost[key] >= set(needs.values()):
            return False
        self.waits[key].discard(broken)
        if not self.waits[key]:
            self._make_ready(key)
        return True

    def _make_ready(self, key: str) -> None:
        heapq.heappush(self.late if self.design.steps[key].alone else self.ready, self.place[key])

    def _placed(self, key: str) -> int:
        if key not in self.place:
            raise UsageError(f"Expected a step of the study {self.design.name}; got {key[:12]}. Read the study again.")
        return self.place[key]
