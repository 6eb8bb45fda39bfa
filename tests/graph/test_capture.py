"""A captured network computes what the original computes, and says so when it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from quantward.core.contracts import Batch
from quantward.core.errors import Unsupported
from quantward.core.values import Model, Node, Plan, Preprocess
from quantward.graph.capture import capture, fold_batch_norm
from quantward.graph.network import Network, function
from quantward.graph.walk import inputs_of, layers, readers, weight_of

PREPROCESS = Preprocess(size=32, resize=32)


def test_folded_trace_gives_the_networks_own_logits(small_model: Model, small_plan: Plan, images: Batch) -> None:
    x = torch.from_numpy(images)
    with torch.no_grad():
        expected, got = small_model.net(x), Network(small_plan)(x)
    assert torch.allclose(expected, got, atol=1e-5)
    assert not any(node.op.startswith(("aten.batch_norm", "aten.dropout")) for node in small_plan.program)


def test_trace_holds_for_any_batch_size(small_plan: Plan, images: Batch) -> None:
    network = Network(small_plan)
    with torch.no_grad():
        one, many = network(torch.from_numpy(images[:1])), network(torch.from_numpy(images[:7]))
    assert one.shape == (1, 4)
    assert torch.allclose(one[0], many[0], atol=1e-5)


def test_layers_are_named_by_module_path(small_plan: Plan) -> None:
    names = [layer.name for layer in layers(small_plan.program)]
    assert names[:2] == ["stem", "blocks.0.expand"]
    assert len(set(names)) == len(names) == 8
    assert all(weight_of(layer) == f"{layer.name}.weight" for layer in layers(small_plan.program))


def test_inplace_operators_keep_their_meaning_for_later_readers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU(inplace=True)
            self.head = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.mean((2, 3)) * 1.0
            z = self.act(y)
            return self.head(y + z)  # y was overwritten by the activation: both are the clamped value

    torch.manual_seed(0)
    model = Model("twice", Twice().eval(), PREPROCESS, ("a", "b"))
    plan = capture(model)
    assert all(not node.op.split(".")[1].endswith("_") for node in plan.program if node.op.startswith("aten"))


def test_network_that_draws_numbers_is_refused() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.mean((2, 3)) + torch.randn(3))

    with pytest.raises(Unsupported, match="draws no random numbers"):
        capture(Model("noisy", Noisy().eval(), PREPROCESS, ("a", "b")))


def test_network_that_cannot_be_traced_is_refused_in_a_sentence() -> None:
    class Choosy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))

    with pytest.raises(Unsupported, match=r"Expected a network that torch\.export can trace; 'choosy' failed"):
        capture(Model("choosy", Choosy().eval(), PREPROCESS, ("a", "b", "c")))


def test_batch_norm_behind_two_readers_is_not_folded() -> None:
    program = (
        Node("input", "input"),
        Node("conv", "aten.conv2d.default", ({"node": "input"}, {"weight": "conv.weight"})),
        Node(
            "norm",
            "aten.batch_norm.default",
            ({"node": "conv"}, None, None, {"weight": "m"}, {"weight": "v"}, False, 0.1, 1e-5, False),
        ),
        Node("sum", "aten.add.Tensor", ({"node": "conv"}, {"node": "norm"})),
        Node("output", "output", ({"node": "sum"},)),
    )
    weights = {"conv.weight": np.ones((2, 3, 1, 1), np.float32), "m": np.ones(2), "v": np.ones(2)}
    folded, _ = fold_batch_norm(program, weights)
    assert folded == program


def test_readers_follow_the_program(small_plan: Plan) -> None:
    read_by = readers(small_plan.program)
    for node in small_plan.program:
        for name in inputs_of(node):
            assert node in read_by[name]


@pytest.mark.parametrize("op", ["os.system.default", "aten.no_such_thing.default", "operator.methodcaller"])
def test_a_plan_reaches_no_other_function(op: str) -> None:
    with pytest.raises(Unsupported, match="Expected an aten or arithmetic operator"):
        function(op)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch", ["mobilenetv2_035", "resnet18", "densenet121", "efficientnet_b0", "convnext_atto", "vit_tiny_patch16_224"]
)
def test_architectures_of_every_family_are_captured(arch: str) -> None:
    timm = pytest.importorskip("timm")
    size = 224 if "vit" in arch else 64
    torch.manual_seed(0)
    model = Model(
        arch, timm.create_model(arch, num_classes=4).eval(), Preprocess(size=size, resize=size), tuple("abcd")
    )
    assert len(layers(capture(model).program)) > 10
