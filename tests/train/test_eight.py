"""The eight backbones of the reliability study, a state-space network and a hybrid: each learns, is traced, quantized,
written, and runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from quantward.core.contracts import Batch as Inputs
from quantward.core.contracts import Context
from quantward.core.values import Model, Plan
from quantward.graph.capture import capture
from quantward.graph.network import Network
from quantward.graph.walk import layers
from quantward.train import Course, fit
from quantward.train.backbones import build
from quantward.train.batches import Images
from quantward.train.head import blocks
from quantward.train.losses import criterion
from quantward.train.saliency import SaliencyLoss
from quantward.workbench import RUNTIMES, plan_with, write_with

SIZES = {
    "resnet18": 32,
    "resnet50": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "mobilenetv2_100": 32,
    "convnext_tiny": 32,
    "swin_tiny_patch4_window7_224": 32,
    "vit_base_patch16_224": 32,
    "efficientvim_m1": 32,
    "mobilevit_xxs": 32,
}
"""`efficientvim_m1` is a vision Mamba (state-space duality), `mobilevit_xxs` convolutions and attention in turns."""


@pytest.mark.slow
@pytest.mark.parametrize("arch", SIZES)
def test_it_learns_by_every_part_of_the_loss_is_traced_and_runs_in_int8(
    arch: str, images: Images, tmp_path: Path
) -> None:
    net = build(arch, 3, weights="none", size=SIZES[arch]).net
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    few = Images(images.pixels, images.labels, images.train[:6], images.tune[:3], images.classes, images.preprocess)
    course = Course(epochs=1, batch=6, lr=1e-3, warmup=0, precision="32", optimizer="sgd")
    history = fit(net, few.to_train(6, _none(), 0), few.to_tune(), course,
                  loss=SaliencyLoss(criterion(), sparsity=1e-3))  # fmt: skip
    assert {"train_loss", "train_consistency", "train_sparsity", "tune_loss"} <= set(history.rows[0])
    moved = [name for name, p in net.named_parameters() if not torch.equal(before[name], p)]
    assert {name for block in (blocks(net)[0], blocks(net)[-1]) for name in block} & set(moved)
    # Residual branches that begin at zero pass no gradient on in the first step.
    assert len(moved) > 0.6 * len(before)
    plan = capture(Model(arch, net, few.preprocess, few.classes))
    assert len(list(layers(plan.program))) > 10
    inputs = few.to_tune().batch(few.tune).inputs
    with torch.no_grad():
        wanted = net(inputs)
        assert torch.allclose(Network(plan)(inputs), wanted, atol=1e-3)
    told = {recipe: _runs(recipe, plan, inputs.numpy(), tmp_path / recipe) for recipe in ("fp32", "int8-static")}
    assert np.allclose(told["fp32"], wanted, atol=1e-3)
    assert np.linalg.norm(told["int8-static"] - wanted.numpy()) < 0.5 * float(wanted.norm())
    sizes = {recipe: sum(p.stat().st_size for p in (tmp_path / recipe).glob("*.onnx")) for recipe in told}
    assert sizes["int8-static"] < 0.45 * sizes["fp32"]


def _runs(recipe: str, plan: Plan, inputs: Inputs, folder: Path) -> Inputs:
    """What the deployed file of a recipe says, calibrated on the very images."""
    made = plan_with(recipe, plan, Context(images=lambda n: iter([inputs])))
    session = RUNTIMES.make("onnxruntime").open(write_with("onnx-cpu", made, folder), 1)
    said: Inputs = session(inputs)
    return said


def _none():  # type: ignore[no-untyped-def]
    from quantward.train.augment import Augment

    return Augment()
