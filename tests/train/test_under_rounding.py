"""The same losses under quantization-aware training: rounded by LSQ or PACT, every part reaches weights and ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_world import Killed, cut_after, teacher_of, tiny

from quantward.core.contracts import Batch as Inputs
from quantward.core.contracts import Context
from quantward.core.preprocess import normalise
from quantward.core.registry import Registry
from quantward.core.values import Plan
from quantward.quantize._learned import Learned
from quantward.train import STAGES, Course, fit
from quantward.train.batches import Batch, Images
from quantward.train.distillation import distillation
from quantward.train.head import reads_of_head
from quantward.train.losses import Loss, criterion
from quantward.train.saliency import SaliencyLoss


@pytest.fixture
def four(images: Images) -> Images:
    """The bars for a network with four outputs; nothing is of the fourth class."""
    return dataclasses.replace(images, classes=("low", "middle", "high", "none"))


@pytest.fixture
def rounded(small_plan: Plan, images: Images) -> Callable[[str], Learned]:
    """Method -> the small network in training at four bits, calibrated on the bars."""

    def lend(n: int | None) -> Iterator[Inputs]:
        yield normalise(images.pixels[images.train[:24]], small_plan.preprocess)

    recipes = Registry("recipe", "quantward.quantize.recipes")
    start = recipes.make("low-bit:weights=4,activations=4,equalise=0,correct=false").plan(small_plan, Context(lend))
    return lambda method: Learned(start, method)


LESSONS: dict[str, Callable[[Images], Loss]] = {
    "fit": lambda images: STAGES.make("fit:class_weights=balanced,focal=1").lesson(_three(images)),
    "saliency": lambda images: STAGES.make("saliency:sparsity=0.001,threshold=adaptive").lesson(images),
    "distill": lambda images: distillation(criterion(), teacher_of(tiny(classes=4), 32, 4), alpha=0.5),
}


def _three(images: Images) -> Images:
    return dataclasses.replace(images, classes=images.classes[:3])


@pytest.mark.parametrize("method", ["lsq", "pact"])
@pytest.mark.parametrize("name", ["saliency", "distill"])
def test_every_part_reaches_weights_and_ranges(
    rounded: Callable[[str], Learned], four: Images, name: str, method: str
) -> None:
    net, loss = rounded(method).train(), LESSONS[name](four)
    batch = four.to_tune().batch(four.train[:8])
    if name == "distill":
        batch = Batch(batch.inputs, batch.labels, batch.indices)
        loss = _in_double(loss)
    terms = loss(net, batch)
    weight = next(p for key, p in net.network.named_parameters() if key.startswith("stem"))
    for part, term in terms.items():
        of_weight, of_steps = torch.autograd.grad(term, [weight, net.steps], retain_graph=True)
        assert bool(torch.isfinite(of_weight).all()) and float(of_weight.abs().max()) > 0, part
        # Between its kinks this network is linear, and its slope by the image does not depend on where they are.
        assert bool(torch.isfinite(of_steps).all()) and (part == "sparsity" or float(of_steps.abs().max()) > 0), part


def _in_double(loss: Loss) -> Loss:
    """The teacher of these tests computes in float64."""

    def wider(net: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        def narrow(inputs: torch.Tensor) -> Any:
            return net(inputs.float()).double()

        return loss(narrow, batch._replace(inputs=batch.inputs.double()))

    return wider


def test_pact_and_saliency_train_together_and_a_killed_run_ends_with_the_same_bits(
    rounded: Callable[[str], Learned], four: Images, tmp_path: Path
) -> None:
    course = Course(epochs=3, batch=12, lr=3e-3, precision="32")
    stage = STAGES.make("saliency:threshold=adaptive,sparsity=0.001,augment=light")

    def train(folder: Path | None) -> tuple[Learned, Any]:
        net = rounded("pact")
        taught = stage.lesson(four)

        def loss(forward: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
            return {**taught(forward, batch), "clip": 0.5e-4 * net.tops().square().sum()}

        held = _Kept(taught, loss)
        history = fit(net, stage.batches(four, 12, 0), four.to_tune(), course, loss=held, folder=folder,
                      groups=net.parameter_groups(10.0))  # fmt: skip
        return net, history

    whole, history = train(None)
    assert {"train_loss", "train_consistency", "train_sparsity", "train_clip"} <= set(history.rows[0])
    assert history.rows[-1]["tune_loss"] < history.rows[0]["tune_loss"]
    before = np.array([float(s.scale) for s in whole.grids.values()])
    assert np.abs(whole.steps.detach().exp().numpy() / before - 1).max() > 0.01
    for steps in (5, 4):
        with cut_after(steps), pytest.raises(Killed):
            train(tmp_path)
    resumed, _ = train(tmp_path)
    first, second = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


class _Kept(torch.nn.Module):
    """A loss around a lesson that remembers: the lesson's state is the loss's."""

    def __init__(self, lesson: Any, loss: Loss) -> None:
        super().__init__()
        self.lesson, self.whole = lesson, loss

    def forward(self, net: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        return self.whole(net, batch)


def test_hidden_images_move_no_live_norm(rounded: Callable[[str], Learned], four: Images) -> None:
    net = rounded("lsq")
    norm = torch.nn.BatchNorm2d(8)
    net.norms["stem"] = norm
    net.train()
    seen: list[torch.Tensor] = []
    net.register_forward_hook(lambda *_: seen.append(norm.running_mean.clone()))  # type: ignore[union-attr]
    SaliencyLoss(criterion())(net, four.to_tune().batch(four.train[:6]))
    assert len(seen) == 2 and torch.equal(seen[0], seen[1]) and float(seen[0].abs().max()) > 0


def test_the_first_answer_is_about_the_batch_s_own_images(four: Images) -> None:
    for lesson in (LESSONS["fit"](four), LESSONS["saliency"](four)):
        net = tiny(classes=3).train()
        asked: list[torch.Tensor] = []
        net.register_forward_pre_hook(lambda _, given, asked=asked: asked.append(given[0]))  # type: ignore[misc]
        batch = four.to_tune().batch(four.train[:6])
        lesson(net, batch)
        assert asked[0] is batch.inputs


@pytest.mark.parametrize("method", ["lsq", "pact"])
def test_features_are_what_the_rounded_head_reads_and_they_teach_it(
    rounded: Callable[[str], Learned], four: Images, method: str
) -> None:
    net = rounded(method).train()
    head = next(p for key, p in net.network.named_parameters() if key == "head/weight")
    bias = next(p for key, p in net.network.named_parameters() if key == "head/bias")
    batch = four.to_tune().batch(four.train[:8])
    before = net.network.on_input
    with reads_of_head(net) as seen:
        logits = net(batch.inputs)
    assert net.network.on_input == before and len(seen) == 1 and seen[0].shape == (8, head.shape[1])
    with torch.no_grad():
        witness = seen[0] @ net.network.on_weight("head.weight", head).T + bias  # type: ignore[misc]
        # The logits have been rounded to their own grid since.
        assert float((witness - logits).norm()) < 0.2 * float(logits.norm())
    teacher = teacher_of(tiny(classes=4).float(), 32, 4)
    teacher.model.net.float()
    terms = distillation(criterion(), teacher, features=50.0)(net, batch)
    assert set(terms) == {"loss", "distill", "features"}
    weight = next(p for key, p in net.network.named_parameters() if key.startswith("stem"))
    of_head, of_weight, of_steps = torch.autograd.grad(terms["features"], [head, weight, net.steps], allow_unused=True)
    assert of_head is None and float(of_weight.abs().max()) > 0 and float(of_steps.abs().max()) > 0
    moved = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 3e-3)
    told = []
    for _ in range(8):
        term = distillation(criterion(), teacher, alpha=1.0, features=50.0)(net, batch)["features"]
        moved.zero_grad()
        term.backward()
        moved.step()
        told.append(term.item())
    assert told[-1] < told[0]
