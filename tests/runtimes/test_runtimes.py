"""Every installed runtime runs the same files and says the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.core.contracts import Batch
from quantward.core.errors import Refused, Unsupported, UsageError
from quantward.core.registry import Registry
from quantward.core.values import Plan, Variant
from quantward.workbench import open_session, runtime_for

TARGETS = Registry("target", "quantward.targets")
RUNTIMES = Registry("runtime", "quantward.runtimes")


@pytest.fixture
def files(planned: Callable[[str], Plan], tmp_path: Path) -> dict[str, dict[str, Variant]]:
    """Format -> recipe -> file, of the first target that writes the recipe in that format."""
    made: dict[str, dict[str, Variant]] = {}
    for name in ("onnx-cpu", *TARGETS.names()):
        target = TARGETS.make(name)
        for recipe in ("fp32", "int8-static"):
            if recipe not in made.setdefault(target.format, {}):
                with suppress(Unsupported):
                    made[target.format][recipe] = target.write(planned(recipe), tmp_path / name / recipe)
    return made


@pytest.mark.parametrize("name", RUNTIMES.names())
@pytest.mark.parametrize("recipe", ["fp32", "int8-static"])
def test_runtimes_agree(name: str, recipe: str, files: dict[str, dict[str, Variant]], images: Batch) -> None:
    runtime = RUNTIMES.make(name)
    if runtime.missing():
        pytest.skip(runtime.missing())
    if recipe not in files[runtime.formats[0]]:
        pytest.skip(f"no target writes {recipe} as {runtime.formats[0]}")
    expected = open_session(files["plan"][recipe], "torch-float", 1)(images)
    got = open_session(files[runtime.formats[0]][recipe], name, 1)(images)
    assert got.dtype == np.float32 and got.shape == expected.shape
    tolerance = 1e-4 if recipe == "fp32" else 0.1 * float(np.ptp(expected))
    assert np.abs(got - expected).max() <= tolerance


@pytest.mark.parametrize("name", RUNTIMES.names())
def test_format_that_a_runtime_cannot_read_is_a_usage_error(name: str, files: dict[str, dict[str, Variant]]) -> None:
    if RUNTIMES.make(name).missing():
        pytest.skip(RUNTIMES.make(name).missing())
    strange = replace(files["onnx"]["fp32"], format="stone")
    with pytest.raises(UsageError, match="Expected a runtime for stone files"):
        open_session(strange, name, 1)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_broken_file_is_refused(name: str, files: dict[str, dict[str, Variant]], tmp_path: Path) -> None:
    if RUNTIMES.make(name).missing():
        pytest.skip(RUNTIMES.make(name).missing())
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no network")
    with pytest.raises(Refused, match="Expected a"):
        open_session(replace(files["onnx"]["fp32"], path=broken), name, 1)


def test_openvino_runs_the_integer_file_in_integers(files: dict[str, dict[str, Variant]]) -> None:
    runtime = RUNTIMES.make("openvino")
    if runtime.missing():
        pytest.skip(runtime.missing())
    assert runtime.executed(files["onnx"]["fp32"]).layers == {"float32": 8}
    assert runtime.executed(files["onnx"]["int8-static"]).layers.get("int8", 0) >= 7


def test_default_runtime_reads_the_format(files: dict[str, dict[str, Variant]]) -> None:
    assert runtime_for(files["onnx"]["fp32"]) == "onnxruntime"
    assert runtime_for(files["plan"]["fp32"]) == "torch-float"
