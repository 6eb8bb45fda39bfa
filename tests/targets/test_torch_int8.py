"""The file for torch's integer kernels: holds what was planned, in as few bytes as promised, or says why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.audit.size import size
from quantward.core.errors import Refused, Unsupported
from quantward.core.values import Plan
from quantward.graph.stored import to_integers

torch = pytest.importorskip("torch")

from quantward.graph.archive import read_archive, write_archive  # noqa: E402
from quantward.targets.torch_int8 import TorchInt8  # noqa: E402


@pytest.mark.parametrize("recipe", ["int8-static", "int8-static:reduce_range=true,keep=stem", "int8-dynamic"])
def test_file_holds_the_plan(recipe: str, planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned(recipe)
    variant = TorchInt8().write(plan, tmp_path)
    assert variant.path.suffix == ".qtorch" and list(tmp_path.iterdir()) == [variant.path]
    assert variant.max_batch == (1 if recipe == "int8-dynamic" else None)
    found = read_archive(variant.path)
    assert found.program == tuple(replace(node, args=_lists(node.args), kwargs=dict(node.kwargs))
                                  for node in plan.program)  # fmt: skip
    assert (found.classes, found.recipe, found.parent) == (plan.classes, plan.recipe, plan.parent)
    assert found.preprocess == plan.preprocess and set(found.tensors) == set(plan.tensors)
    for name, spec in plan.tensors.items():
        held = found.tensors[name]
        assert np.array_equal(held.scale, np.asarray(spec.scale, np.float32)), name
        assert np.array_equal(held.zero_point, spec.zero_point), name
        assert (held.low, held.high, held.dynamic, held.kind) == (spec.low, spec.high, spec.dynamic, spec.kind)
    for name, array in plan.weights.items():
        spec = plan.tensors.get(name)
        kept = found.arrays[name]
        assert kept.dtype == (array.dtype if spec is None else np.int32 if spec.kind == "bias" else np.int8)
        assert np.array_equal(kept, array if spec is None else to_integers(array, spec)), name


def _lists(args: tuple[object, ...]) -> tuple[object, ...]:
    """Arguments as they come back from JSON."""
    return tuple(list(item) if isinstance(item, tuple) else item for item in args)


def test_real_mobilenet_is_a_quarter_of_its_floats(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from quantward.core.contracts import Context
    from quantward.core.values import Model, Preprocess
    from quantward.graph.capture import capture
    from quantward.quantize.recipes.int8_static import Int8Static

    net = timm.create_model("mobilenetv2_050", num_classes=4).eval()
    plan = capture(Model("net", net, Preprocess(size=32, resize=32), ("a", "b", "c", "d")))
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    recipe = Int8Static(calibrator="max", equalise=0.0, correct=False)
    made = recipe.plan(plan, Context(images=lambda n: iter([images])))
    variant = TorchInt8().write(made, tmp_path)
    floats = sum(array.nbytes for array in plan.weights.values())
    assert variant.bytes < 0.3 * floats
    assert size(made, variant).overhead < 0.06


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ("fp32", "integer layers"),
        ("fp16", "integers for torch-int8"),
        ("int4-weights", "one scale a row|of 7 or 8 bits|signed symmetric"),
        ("int16x8", "activations of 8 bits"),
        ("low-bit", "weights of 7 or 8 bits"),
        ("low-bit:weights=8,activations=4", "activations of 8 bits"),
    ],
)
def test_what_no_kernel_runs_is_refused_with_a_sentence(
    recipe: str, why: str, planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match=f"^Expected .*({why}).*; .*\\.$"):
        TorchInt8().write(planned(recipe), tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_without_rounded_inputs_are_refused(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned("int8-static")
    weights = {name: spec for name, spec in plan.tensors.items() if spec.kind == "weight"}
    with pytest.raises(Unsupported, match="'stem' reads floats"):
        TorchInt8().write(replace(plan, tensors=weights), tmp_path)


def test_broken_files_are_refused(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    broken = tmp_path / "broken.qtorch"
    broken.write_bytes(b"this is no network")
    with pytest.raises(Refused, match="cannot be read"):
        read_archive(broken)
    with pytest.raises(Refused, match="cannot be read"):
        read_archive(tmp_path / "absent.qtorch")
    save_file({"weight:a": np.zeros(3, np.int8)}, broken)
    with pytest.raises(Refused, match="layout 1"):
        read_archive(broken)
    save_file({"weight:a": np.zeros(3, np.int8)}, broken, metadata={"quantward": '{"format": 1}'})
    with pytest.raises(Refused, match="it lacks 'program'"):
        read_archive(broken)
    whole = tmp_path / "whole.qtorch"
    write_archive(planned("int8-static"), whole)
    cut = whole.read_bytes()
    broken.write_bytes(cut[: len(cut) // 2])
    with pytest.raises(Refused, match="cannot be read"):
        read_archive(broken)


def test_same_plan_gives_the_same_bytes(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned("int8-static")
    assert TorchInt8().write(plan, tmp_path / "a").sha256 == TorchInt8().write(plan, tmp_path / "b").sha256
