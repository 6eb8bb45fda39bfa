"""A frozen trunk is asked once for every image, gives the same training, and steps aside where it would not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from train_world import tiny

from quantward.train import STAGES
from quantward.train.backbones import build
from quantward.train.batches import Images
from quantward.train.head import head_of
from quantward.train.stages import staged
from quantward.train.trunk import asked_once

HEAD = "staged:head_epochs=4,top_epochs=0,epochs=1,batch=12,lr=0.01,augment=none,precision=32,optimizer=sgd"


def counted(net: nn.Module) -> list[int]:
    """How many images each call of the first layer has seen."""
    calls: list[int] = []
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    return calls


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit"])
def test_the_head_trains_as_it_would_above_the_whole_network(
    arch: str, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets, calls, histories = [], [], []
    for known in (True, False):
        if not known:
            monkeypatch.setattr(staged, "asked_once", lambda *_: None)
        nets.append(build(arch, 3, weights="none", size=32).net)
        calls.append(counted(nets[-1]))
        histories.append(STAGES.make(HEAD).run(nets[-1], images, seed=2))
    heads = [[row for row in history.rows if row["phase"] == 1] for history in histories]
    for one, other in zip(*heads, strict=True):
        for name in ("train_loss", "tune_loss", "tune_accuracy", "rate"):
            assert one[name] == pytest.approx(other[name], rel=1e-4), name
    n = len(images.train) + len(images.tune)
    assert sum(calls[0]) == 2 * n and sum(calls[1]) == 5 * n, "once, and for the epoch of the whole network"
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_every_row_is_what_the_head_reads(images: Images) -> None:
    net = build("test_resnet", 3, weights="none", size=32).net
    some = dataclasses.replace(images, train=images.train[:20])
    table = asked_once(net, some, size=7)
    assert table is not None and len(table) == len(images.labels)
    batch = images.to_tune().batch(some.train[5:9])
    with torch.no_grad():
        assert torch.allclose(head_of(net)(table[some.train[5:9]]), net(batch.inputs), atol=1e-5)
    assert not table[images.train[20:]].any()


class Twice(nn.Module):
    """A network that does more after its head."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.head = nn.Conv2d(3, 4, 32), nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = 2 * self.head(self.below(inputs).flatten(1))
        return made


def test_where_it_cannot_stand_for_the_network_it_steps_aside(images: Images) -> None:
    draws: Any = tiny()
    assert isinstance(draws[3], nn.Dropout2d) and asked_once(draws, images) is None
    assert asked_once(Twice(), images) is None
    draws[3].p = 0.0
    assert asked_once(draws, images) is not None
    draws[1] = nn.BatchNorm2d(8, affine=False)
    assert asked_once(draws, images) is None
    assert asked_once(nn.Conv2d(3, 3, 32), images) is None
