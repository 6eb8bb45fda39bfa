"""Saliency guidance: which pixels are hidden, what is put there, what stays untouched, and that its state is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from train_world import smooth, tiny

from quantward.core.errors import UsageError
from quantward.train import STAGES
from quantward.train.batches import Batch, Images
from quantward.train.loop import fit
from quantward.train.losses import criterion
from quantward.train.saliency import SaliencyLoss, hide, least, quantile, saliency_map, still_statistics


def batch_of(images: Images, count: int = 12) -> Batch:
    return images.to_tune().batch(images.train[:count])


def test_the_map_of_a_linear_network_is_its_weights() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 3))
    inputs = torch.randn(2, 3, 4, 4, requires_grad=True)
    found = saliency_map(net(inputs), torch.tensor([2, 0]), inputs)
    rows = net[1].weight.detach().reshape(3, 3, 4, 4)[[2, 0]]
    assert torch.allclose(found, rows.abs().mean(1))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_exactly_the_least_salient_share_of_every_image_is_hidden(share: float) -> None:
    saliency = torch.rand(4, 10, 10, generator=torch.Generator().manual_seed(0))
    saliency[3] = 0.0
    mask = least(saliency, share)
    assert mask.sum((1, 2)).tolist() == [round(share * 100)] * 4
    for image, hidden in zip(saliency[:3], mask[:3], strict=True):
        if hidden.any():
            assert image[hidden].max() < image[~hidden].min()


def test_the_quantile_is_the_one_of_numpy() -> None:
    values = np.random.default_rng(0).random(1000)
    for share in (0.001, 0.3, 0.5, 0.999):
        wanted = np.quantile(values, share, method="inverted_cdf")
        assert float(quantile(torch.from_numpy(values), share)) == wanted


@pytest.mark.parametrize("fill", ["noise", "mean"])
def test_what_is_hidden_is_gone_and_the_rest_stays(fill: Any) -> None:
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    mask[:, :4] = True
    found = hide(images, mask, fill)
    assert torch.equal(found[:, :, 4:], images[:, :, 4:])
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    assert ((found >= low) & (found <= high)).all() and not (found[:, :, :4] == images[:, :, :4]).any()
    if fill == "mean":
        assert torch.allclose(found[:, :, :4], images.mean((2, 3), keepdim=True).expand(-1, -1, 4, 8))


def test_an_adaptive_threshold_is_shared_follows_and_spares_images_that_are_decided_everywhere() -> None:
    loss = SaliencyLoss(criterion(), masked=0.5, threshold="adaptive", momentum=0.25)
    spread, spot = torch.full((1, 10, 10), 1.0), torch.full((1, 10, 10), 0.1)
    spread += torch.arange(100).reshape(1, 10, 10) * 1e-4
    spot[0, 0, 0] = 100.0
    mask = loss.mask(torch.cat((spread, spot)))
    first = float(loss.threshold)  # type: ignore[arg-type]
    assert mask[0].sum() == 0 and mask[1].sum() >= 98 and mask.sum() == pytest.approx(100, abs=2)
    loss.mask(spread)
    now = float(quantile(spread / spread.mean(), 0.5))
    assert float(loss.threshold) == pytest.approx(first + 0.25 * (now - first), rel=1e-6)  # type: ignore[arg-type]


def test_hidden_images_move_no_batch_statistics() -> None:
    net = tiny().train()
    norm = net[1]  # type: ignore[index]
    with still_statistics(net):
        net(torch.randn(4, 3, 32, 32) + 5)
    assert norm.running_mean.abs().max() == 0 and norm.momentum == 0.1
    net(torch.randn(4, 3, 32, 32) + 5)
    assert norm.running_mean.abs().max() > 0


def test_parts_of_weight_zero_are_not_computed_and_the_network_runs_no_more_than_needed(images: Images) -> None:
    net, calls = tiny().train(), 0

    def counted(inputs: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        logits: torch.Tensor = net(inputs)
        return logits

    counted.modules = net.modules  # type: ignore[attr-defined]
    for options, names, passes in (
        ({"masked": 0.0}, {"loss"}, 1),
        ({"consistency": 0.0}, {"loss"}, 1),
        ({"masked": 0.0, "sparsity": 0.1}, {"loss", "sparsity"}, 1),
        ({}, {"loss", "consistency"}, 2),
        ({"sparsity": 0.1}, {"loss", "consistency", "sparsity"}, 2),
    ):
        calls, loss = 0, SaliencyLoss(criterion(), **options)  # type: ignore[arg-type]
        assert set(loss(counted, batch_of(images))) == names
        assert calls == loss.passes == passes


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("threshold", ["fixed", "adaptive"])
def test_it_trains_and_every_part_is_logged(images: Images, threshold: str, precision: str) -> None:
    stage = STAGES.make(f"saliency:threshold={threshold},epochs=6,batch=12,lr=0.01,precision={precision},sparsity=0.01")
    first, *_, last = stage.run(tiny(), images, seed=0).rows
    assert {"train_loss", "train_consistency", "train_sparsity"} <= set(first)
    assert last["train_loss"] < first["train_loss"] and last["tune_accuracy"] > 0.85


def test_sparsity_makes_the_network_look_at_less(images: Images) -> None:
    sums = []
    for sparsity in (0, 0.05):
        net = tiny()
        spelled = f"saliency:masked=0,sparsity={sparsity},epochs=6,batch=12,lr=0.01,precision=32"
        STAGES.make(spelled).run(net, images, seed=0)
        batch = batch_of(images)
        inputs = batch.inputs.requires_grad_()
        sums.append(float(saliency_map(net(inputs), batch.labels, inputs).sum()))
    assert sums[1] < 0.7 * sums[0]


def test_guided_by_nothing_it_is_plain_training_to_the_bit(images: Images) -> None:
    nets = [tiny(), tiny()]
    common = "epochs=2,batch=12,lr=0.01,precision=32"
    STAGES.make(f"fit:{common}").run(nets[0], images, seed=4)
    STAGES.make(f"saliency:masked=0,sparsity=0,{common}").run(nets[1], images, seed=4)
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_second_derivatives_go_through_attention() -> None:
    timm = pytest.importorskip("timm.models.vision_transformer")
    torch.manual_seed(0)
    net = timm.VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=3)
    batch = Batch(torch.randn(3, 3, 16, 16), torch.tensor([0, 1, 2]), torch.arange(3))
    terms = SaliencyLoss(criterion(), sparsity=1.0)(net.train(), batch)
    terms["sparsity"].backward()  # type: ignore[no-untyped-call]
    assert float(net.blocks[0].attn.qkv.weight.grad.abs().max()) > 0


def test_the_threshold_is_saved_with_the_run(images: Images, tmp_path: Any) -> None:
    course = STAGES.make("saliency:epochs=2,batch=12,lr=0.01,precision=32")
    loss = SaliencyLoss(criterion(), threshold="adaptive")
    fit(tiny(), images.to_train(12, _none(), 0), images.to_tune(), course, loss=loss, folder=tmp_path)
    again = SaliencyLoss(criterion(), threshold="adaptive")
    fit(tiny(), images.to_train(12, _none(), 0), images.to_tune(), course, loss=again, folder=tmp_path)
    assert float(again.threshold) == float(loss.threshold) > 0  # type: ignore[arg-type]
    assert int(again.steps) == 8  # type: ignore[arg-type]


def _none() -> Any:
    from quantward.train.augment import Augment

    return Augment()


def test_shares_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="Expected masked of at least 0, at most"):
        STAGES.make("saliency:masked=1.5")
    with pytest.raises(UsageError, match="Did you mean 'adaptive'"):
        STAGES.make("saliency:threshold=adaptiv")


def test_a_smooth_network_in_double_precision_stays_in_it() -> None:
    batch = Batch(torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    terms = SaliencyLoss(criterion(), sparsity=0.1)(smooth().double(), batch)
    assert {term.dtype for term in terms.values()} == {torch.float64}
