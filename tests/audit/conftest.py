"""Plans and files that many audits look at, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from quantward.core.contracts import Batch, Context
from quantward.core.registry import Registry
from quantward.core.values import Plan, Variant

INT8 = "int8-static:calibrator=max"


@pytest.fixture(scope="session")
def audited(small_plan: Plan, images: Batch) -> Callable[[str], Plan]:
    """Recipe spelling -> Plan of the small network over 32 images, made once a spelling."""

    def lend(n: int | None) -> Iterator[Batch]:
        yield images[: min(n or 32, 32)]

    @cache
    def plan(text: str) -> Plan:
        recipes = Registry("recipe", "quantward.quantize.recipes")
        made: Plan = recipes.make(text).plan(small_plan, Context(images=lend))
        return made

    return plan


@pytest.fixture(scope="session")
def int8_file(audited: Callable[[str], Plan], tmp_path_factory: pytest.TempPathFactory) -> Variant:
    """The INT8 file of the small network; who changes it must copy it first."""
    from quantward.targets.onnx_cpu import OnnxCpu

    return OnnxCpu().write(audited(INT8), Path(tmp_path_factory.mktemp("files")))
