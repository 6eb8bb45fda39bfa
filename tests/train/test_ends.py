"""Where networks end: heads and blocks of any architecture, and one logit that becomes two."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from train_world import tiny

from quantward.core.errors import UsageError
from quantward.train import STAGES
from quantward.train.backbones import create
from quantward.train.batches import Images
from quantward.train.head import blocks, head_names, head_of, one_logit


@pytest.mark.parametrize("arch", ["mobilenetv2_035", "densenet121", "test_vit", "test_convnext", "efficientvim_m1"])
def test_every_parameter_is_in_the_head_or_in_one_block(arch: str) -> None:
    net = create(arch, 3, {})
    below = blocks(net)
    heads = tuple(f"{name}." for name in head_names(net))
    names = [name for block in below for name in block]
    whole = [name for name, _ in net.named_parameters()]
    assert sorted(names + [name for name in whole if name.startswith(heads)]) == sorted(whole)
    assert len(below) >= 3 and len(set(names)) == len(names)
    reads_the_image = next(name for name, p in net.named_parameters() if p.ndim == 4 and p.shape[1] == 3)
    assert reads_the_image in below[0]


def test_a_network_that_timm_does_not_know_ends_with_its_last_linear_layer() -> None:
    net = tiny()
    assert head_names(net) == ("5",) and head_of(torch.nn.ModuleList([net])) is net[5]  # type: ignore[index]
    assert blocks(net) == [["0.weight"], ["1.weight", "1.bias"]]


def test_one_logit_is_trained_and_two_are_written() -> None:
    net = tiny(classes=2).eval()
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        before = net(x)
    labels = torch.tensor([0, 1, 1, 0])
    with one_logit(net):
        heads = [p for name, p in net.named_parameters() if name.startswith("5.")]
        assert sorted(tuple(p.shape) for p in heads) == [(1,), (1, 392)]
        during = net(x)
        z = during[:, 1] - during[:, 0]
        assert torch.allclose(during, torch.stack((-z / 2, z / 2), 1), atol=1e-6)
        assert torch.allclose(z, (before[:, 1] - before[:, 0]), atol=1e-5)
        loss = torch.nn.functional.cross_entropy(during, labels)
        witness = torch.nn.functional.binary_cross_entropy_with_logits(z, labels.float())
        assert torch.allclose(loss, witness)
    with torch.no_grad():
        assert torch.allclose(net(x), during) and net[5].weight.shape == (2, 392)  # type: ignore[index]
    assert set(net.state_dict()) == set(tiny(classes=2).state_dict())


def test_one_logit_needs_two_classes() -> None:
    with pytest.raises(UsageError, match="two classes for head=sigmoid"), one_logit(tiny(classes=3)):
        pass
    with pytest.raises(UsageError, match="got heads heads"), one_logit(create("efficientvim_m1", 2, {})):
        pass


@pytest.mark.parametrize("stage", ["fit", "staged:head_epochs=1,top_epochs=1", "saliency"])
def test_a_sigmoid_head_trains_under_every_stage(images: Images, stage: str) -> None:
    two = dataclasses.replace(images, labels=(images.labels > 0).astype(int), classes=("a", "b"))
    net = tiny(classes=2)
    spelled = f"{stage}{',' if ':' in stage else ':'}head=sigmoid,epochs=5,batch=12,lr=0.01,precision=32"
    history = STAGES.make(spelled).run(net, two, seed=0)
    assert history.rows[-1]["tune_accuracy"] > 0.85
    weight = net[5].weight.detach()  # type: ignore[index]
    assert torch.equal(weight[0], -weight[1])
