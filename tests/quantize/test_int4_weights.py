"""Weights alone in four bits: what is stored, that it shrinks, and that each step of the recipe helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from quantward.audit.size import size
from quantward.core.contracts import Batch
from quantward.core.errors import UsageError
from quantward.core.registry import Registry
from quantward.core.values import Plan
from quantward.graph.simulate import simulate
from quantward.targets.onnx_cpu import OnnxCpu

RECIPES = Registry("recipe", "quantward.quantize.recipes")


def loss(plan: Plan, parent: Plan, images: Batch) -> float:
    """Mean squared difference of the logits."""
    with torch.no_grad():
        got, expected = (simulate(p)(torch.from_numpy(images)) for p in (plan, parent))
    return float(((got - expected) ** 2).mean())


def test_every_weight_has_a_form_and_no_activation_has(planned: Callable[[str], Plan]) -> None:
    plan = planned("int4-weights")
    assert set(plan.tensors) == set(plan.weights)
    assert not [name for name, spec in plan.tensors.items() if spec.kind == "activation"]
    bits = {name: spec.bits for name, spec in plan.tensors.items() if name.endswith("weight")}
    assert bits["stem.weight"] == bits["head.weight"] == bits["blocks.0.depthwise.weight"] == 8
    assert bits["blocks.0.expand.weight"] == bits["blocks.1.project.weight"] == 4
    assert plan.tensors["stem.bias"].format == "float16"


@pytest.mark.parametrize("method", ["awq", "hqq", "rtn"])
def test_rounding_for_the_output_errs_less_than_rounding_to_nearest(
    method: str, planned: Callable[[str], Plan], small_plan: Plan, images: Batch
) -> None:
    adaptive, plain = (
        loss(planned(f"int4-weights:method={method},bits=3,group=8,rounding={how},correct=false"), small_plan, images)
        for how in ("adaptive", "nearest")
    )
    assert adaptive < plain


def test_correcting_biases_brings_the_mean_back(
    planned: Callable[[str], Plan], small_plan: Plan, images: Batch
) -> None:
    text = "int4-weights:method=rtn,bits=2,group=8,rounding=nearest"
    with torch.no_grad():
        means = [simulate(p)(torch.from_numpy(images)).mean(0)
                 for p in (small_plan, planned(f"{text},correct=false"), planned(text))]  # fmt: skip
    assert (means[2] - means[0]).abs().max() < 0.2 * (means[1] - means[0]).abs().max()


def test_notes_tell_exponents_and_errors(planned: Callable[[str], Plan]) -> None:
    told = planned("int4-weights").notes["weights"]
    assert set(told["alphas"]) == {"blocks.0.expand", "blocks.0.project", "blocks.1.expand", "blocks.1.project"}
    assert all(0 <= alpha <= 1 for alpha in told["alphas"].values())
    assert all(0 < error < 0.02 for error in told["output_error"].values())


def test_the_file_holds_four_bits_a_weight(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned("int4-weights:group=8,ends=4,depthwise=4")
    found = size(plan, OnnxCpu().write(plan, tmp_path))
    whole = sum(plan.weights[name].size for name, spec in plan.tensors.items() if spec.format == "integer")
    halves = sum(plan.weights[name].size for name, spec in plan.tensors.items() if spec.format == "float16")
    assert found.stored == int(np.ceil(whole / 2)) + 2 * halves
    assert found.honest


def test_kept_layers_are_half_precision(planned: Callable[[str], Plan]) -> None:
    plan = planned("int4-weights:keep=blocks.0*")
    assert plan.tensors["blocks.0.expand.weight"].format == "float16"
    assert plan.tensors["blocks.1.expand.weight"].bits == 4


@pytest.mark.parametrize("option", ["bits=9", "ends=1", "depthwise=0", "group=-1"])
def test_impossible_options_are_refused(option: str) -> None:
    with pytest.raises(UsageError, match=r"^Expected .*; got .* Choose another number"):
        RECIPES.make(f"int4-weights:{option}")
