"""Criteria and losses against definitions of their own, and every part's gradient against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from train_world import smooth, teacher_of

from quantward.core.contracts import Context
from quantward.core.errors import UsageError
from quantward.core.registry import Registry
from quantward.core.values import Plan
from quantward.quantize._learned import Learned
from quantward.train.batches import Batch
from quantward.train.distillation import distillation, likeness
from quantward.train.head import one_logit
from quantward.train.losses import Loss, classify, criterion, divergence
from quantward.train.saliency import SaliencyLoss

LABELS = torch.tensor([0, 2, 1, 2, 2, 0])


def logits() -> Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2


@pytest.mark.parametrize("smoothing", [0.0, 0.15])
@pytest.mark.parametrize("weights", [None, (0.3, 1.0, 2.5)])
@pytest.mark.parametrize("focal", [0.0, 0.5, 2.0])
def test_the_criterion_is_its_formula(smoothing: float, weights: tuple[float, ...] | None, focal: float) -> None:
    found = criterion(smoothing, weights, focal)(logits(), LABELS)
    z = logits().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    w = np.ones(3) if weights is None else np.array(weights)
    t = np.full((6, 3), smoothing / 3)
    t[np.arange(6), LABELS] += 1 - smoothing
    right = p[np.arange(6), LABELS]
    wanted = -((1 - right) ** focal * (t * w * np.log(p)).sum(1)).sum() / w[LABELS].sum()
    assert float(found) == pytest.approx(wanted, rel=1e-9)


def test_two_logits_under_cross_entropy_are_one_under_binary_cross_entropy() -> None:
    pair, labels = logits()[:, :2], torch.tensor([0, 1, 1, 0, 1, 0])
    witness = nn.functional.binary_cross_entropy_with_logits(pair[:, 1] - pair[:, 0], labels.double())
    assert float(criterion()(pair, labels)) == pytest.approx(float(witness), rel=1e-12)


def test_focal_loss_of_a_certain_answer_has_a_finite_gradient() -> None:
    sure = torch.tensor([[60.0, -60.0]], requires_grad=True)
    criterion(focal=0.5)(sure, torch.tensor([0])).backward()  # type: ignore[no-untyped-call]
    assert sure.grad is not None and bool(torch.isfinite(sure.grad).all())


def test_values_that_make_no_sense_are_refused() -> None:
    for given in ({"smoothing": 1.0}, {"smoothing": -0.1}, {"focal": -1.0}):
        with pytest.raises(UsageError, match="Expected smoothing of at least 0"):
            criterion(**given)


def test_divergence_is_its_formula_and_keeps_the_gradient_s_size() -> None:
    wanted, said = logits(), logits().flip(0)
    p, q = (np.exp(z.numpy() / 3) / np.exp(z.numpy() / 3).sum(1, keepdims=True) for z in (wanted, said))
    assert float(divergence(wanted, said, 3.0)) == pytest.approx(9 * (p * np.log(p / q)).sum(1).mean(), rel=1e-9)
    sizes = []
    for temperature in (20.0, 200.0):
        z = said.clone().requires_grad_()
        (slope,) = torch.autograd.grad(divergence(wanted, z, temperature), z)
        sizes.append(float(slope.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_likeness_does_not_see_turned_or_scaled_features_and_widths_may_differ() -> None:
    draw = torch.Generator().manual_seed(3)
    features = torch.randn(8, 5, generator=draw, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=draw, dtype=torch.float64))
    assert float(likeness(features, 3 * features @ turn)) == pytest.approx(0, abs=1e-12)
    other = torch.randn(8, 11, generator=draw, dtype=torch.float64)
    rows = [a @ a.T / np.linalg.norm(a @ a.T, axis=1, keepdims=True) for a in (features.numpy(), other.numpy())]
    assert float(likeness(features, other)) == pytest.approx(((rows[0] - rows[1]) ** 2).sum() / 64, rel=1e-9)


def parts() -> dict[str, Callable[[], Loss]]:
    """Every term that a stage can add, alone or beside the plain one."""
    judge = criterion()
    return {
        "loss": lambda: classify(criterion(0.1, (0.5, 1.0, 2.0), 2.0)),
        "distill": lambda: distillation(judge, teacher_of(smooth(seed=5)), alpha=0.6, temperature=3.0),
        "features": lambda: distillation(judge, teacher_of(smooth(seed=5)), features=20.0),
        "consistency": lambda: SaliencyLoss(judge, masked=0.4, fill="mean"),
        "consistency, adaptive": lambda: SaliencyLoss(judge, masked=0.4, fill="mean", threshold="adaptive"),
        "sparsity": lambda: SaliencyLoss(judge, masked=0.0, sparsity=0.3),
        "sparsity, hidden": lambda: SaliencyLoss(judge, masked=0.4, fill="mean", sparsity=0.3),
        "loss, plain": lambda: classify(judge),
        "loss, focal": lambda: classify(criterion(focal=2.0)),
        "loss, weighted": lambda: classify(criterion(weights=(0.5, 1.0, 2.0))),
        "loss, smoothed": lambda: classify(criterion(0.1)),
    }


@pytest.mark.parametrize("name", parts())
def test_the_gradient_of_every_part_is_the_one_of_finite_differences(name: str) -> None:
    made, net = parts()[name], smooth().double().train()
    name = name.partition(",")[0]
    draw = torch.Generator().manual_seed(1)
    inputs = torch.randn(5, 3, 8, 8, generator=draw, dtype=torch.float64)
    batch = Batch(inputs, torch.tensor([0, 1, 2, 2, 0]), torch.arange(5))
    weights = [p for p in net.parameters() if p.requires_grad]

    def value() -> Any:
        # New each time: what follows the batches, as the adaptive threshold does, must not follow these.
        loss: Any = made()
        if isinstance(loss, nn.Module):
            loss.double()
        with torch.enable_grad():
            return loss(net, batch)[name]

    slopes = torch.autograd.grad(value(), weights, allow_unused=True, materialize_grads=True)
    for weight, slope in zip(weights, slopes, strict=True):
        toward = torch.randn(weight.shape, generator=draw, dtype=torch.float64)
        toward /= toward.norm()
        step, ends = 1e-6, []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(sign * step * toward)
                ends.append(float(value()))
                weight.sub_(sign * step * toward)
        measured = (ends[0] - ends[1]) / (2 * step)
        assert float((slope * toward).sum()) == pytest.approx(measured, rel=1e-4, abs=1e-8)
    assert max(float(slope.abs().max()) for slope in slopes) > 1e-4


@pytest.mark.parametrize(
    ("smoothing", "weights", "focal"),
    [(0.0, None, 0.0), (0.2, None, 0.0), (0.0, (0.3, 1.0, 2.5), 0.0), (0.0, None, 0.5), (0.1, (0.3, 1.0, 2.5), 2.0)],
)
def test_criteria_have_the_derivatives_that_autograd_says_once_and_twice(
    smoothing: float, weights: tuple[float, ...] | None, focal: float
) -> None:
    """Twice, because the gradient of a saliency penalty goes through them a second time."""
    judge, z = criterion(smoothing, weights, focal), logits().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: judge(given, LABELS), z)
    assert torch.autograd.gradgradcheck(lambda given: judge(given, LABELS), z)


def test_what_teaches_has_the_derivatives_that_autograd_says() -> None:
    z, other = logits().requires_grad_(), logits().flip(0)
    assert torch.autograd.gradcheck(lambda said: divergence(other, said, 3.0), z)
    assert torch.autograd.gradcheck(lambda said: likeness(other, said), z)


def test_one_logit_has_the_gradient_of_binary_cross_entropy() -> None:
    """Through the head that is trained as one row and written as two."""
    torch.manual_seed(0)
    net, inputs = nn.Sequential(nn.Tanh(), nn.Linear(5, 2)).double(), torch.randn(6, 5, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    with one_logit(net):
        row = net[1].parametrizations.weight.original  # type: ignore[union-attr]
        assert row.shape == (1, 5)
        slopes = torch.autograd.grad(criterion()(net(inputs), labels), list(net.parameters()))
        z = net(inputs).diff(dim=1).squeeze(1).detach().requires_grad_()
    witness = nn.functional.binary_cross_entropy_with_logits(z, labels.double())
    (of_logit,) = torch.autograd.grad(witness, z)
    shapes = {tuple(slope.shape): slope for slope in slopes}
    assert torch.allclose(shapes[1, 5], of_logit[None] @ inputs.tanh()) and torch.allclose(shapes[1,], of_logit.sum())


def test_the_pull_on_clips_has_the_gradient_of_finite_differences(small_plan: Plan) -> None:
    """PACT's c / 2 sum alpha^2 by every range: alpha = (highest code) e^step, of which the step is learned."""
    low_bit = Registry("recipe", "quantward.quantize.recipes").make(
        "low-bit:weights=4,activations=4,equalise=0,correct=false"
    )
    draw = np.random.default_rng(0).standard_normal((8, 3, 32, 32)).astype(np.float32)
    net = Learned(low_bit.plan(small_plan, Context(lambda n: iter([draw]))), "pact").double()

    def pull(steps: Tensor) -> Tensor:
        with torch.no_grad():
            net.steps.copy_(steps)
        tops = torch.func.functional_call(_Tops(net), {"net.steps": steps})
        return 0.5 * 1e-2 * tops.square().sum()

    steps = net.steps.detach().clone().requires_grad_()
    assert float(torch.autograd.grad(pull(steps), steps)[0].abs().min()) > 0
    assert torch.autograd.gradcheck(pull, steps)


class _Tops(nn.Module):
    """A network's clips as what a module gives, so that their steps can be put in."""

    def __init__(self, net: Learned) -> None:
        super().__init__()
        self.net = net

    def forward(self) -> Tensor:
        return self.net.tops()
