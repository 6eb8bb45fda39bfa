"""A Plan on disk is the Plan in memory, and a folder that was tampered with is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from quantward.core.contracts import Batch
from quantward.core.errors import Refused
from quantward.core.values import Plan
from quantward.graph.files import load_plan, save_plan
from quantward.graph.simulate import simulate


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "int8-dynamic", "int8-static"])
def test_round_trip_gives_the_same_logits(
    recipe: str, planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    plan = planned(recipe)
    again = load_plan(save_plan(plan, tmp_path))
    with torch.no_grad():
        assert torch.equal(simulate(plan)(torch.from_numpy(images)), simulate(again)(torch.from_numpy(images)))
    assert again.recipe == recipe
    assert set(again.tensors) == set(plan.tensors)
    for name, spec in plan.tensors.items():
        assert np.asarray(again.tensors[name].scale).shape == np.asarray(spec.scale).shape


def test_changed_weights_are_refused(small_plan: Plan, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_plan(small_plan, tmp_path)
    arrays = load_file(tmp_path / "weights.safetensors")
    arrays["weight:head.bias"] = arrays["weight:head.bias"] + 1
    save_file(arrays, tmp_path / "weights.safetensors")
    with pytest.raises(Refused, match="their hash differs"):
        load_plan(tmp_path)


def test_another_layout_is_refused(small_plan: Plan, tmp_path: Path) -> None:
    save_plan(small_plan, tmp_path)
    document = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**document, "format": 99}))
    with pytest.raises(Refused, match="Expected a Plan of layout 1"):
        load_plan(tmp_path)


def test_absent_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is none"):
        load_plan(tmp_path)
