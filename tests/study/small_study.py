"""A study small enough for tests: a tiny network on made-up images, and every kind of step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from quantward.core.progress import silent
from quantward.study.design import design
from quantward.study.engines._order import Order
from quantward.study.execute import execute
from quantward.study.schema import read_study
from quantward.study.values import Design, Done, News, Step, Store

STUDY: dict[str, Any] = {
    "format": 1,
    "name": "small",
    "title": "A small study of everything",
    "data": {"scans": {"toy": 64, "external": "toy"}},
    "folds": 2,
    "backbones": [{"arch": "test_resnet", "weights": "none", "size": 32}],
    "stages": ["fit:epochs=1,batch=16"],
    "recipes": ["fp32", "int8-static"],
    "targets": ["onnx-cpu"],
    "runtimes": ["onnxruntime"],
    "replicates": 100,
    "bench": {"batches": [1], "seconds": 0.05},
    "drift": {"method": "input-gradients", "images": 8},
    "sensitivity": True,
}


def written(folder: Path, **changed: Any) -> Path:
    """The study as a file; a value of None leaves its key out."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    asked = {key: value for key, value in {**STUDY, **changed}.items() if value is not None}
    path.write_text(yaml.safe_dump(asked, sort_keys=False), encoding="utf-8")
    return path


def designed(folder: Path, toys: Path, **changed: Any) -> Design:
    """Its design; the made-up images lie below `toys`."""
    return design(read_study(written(folder, **changed)), folder, toys=toys)


def carried_out(
    made: Design, store: Store, wanted: Sequence[str] = (), then: Callable[[News], None] = lambda _: None
) -> None:
    """Every step in this process, one after the other: what an engine does, without processes."""
    order = Order(made, store, wanted or list(made.steps))
    for news in order.begin():
        then(news)
    while (step := order.next()) is not None:
        left = execute(step, store, silent)
        state = News(step, "done", done=left) if isinstance(left, Done) else News(step, "failed", failed=left)
        for news in order.note(state):
            then(news)


def of_kind(made: Design, kind: str) -> list[Step]:
    return [step for step in made.steps.values() if step.kind == kind]
