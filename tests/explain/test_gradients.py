"""Gradient maps against finite differences, completeness, and a feature map computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from quantward.core.contracts import Batch, Context
from quantward.core.errors import Unsupported
from quantward.core.values import Model, Plan, Preprocess
from quantward.explain.gradcam import Place, feature_map, gradcam
from quantward.explain.gradients import attributions, input_gradients, integrated_gradients
from quantward.graph.capture import capture
from quantward.graph.network import Network
from quantward.workbench import plan_with


def smooth(images: torch.Tensor) -> torch.Tensor:
    """Two logits that are no straight lines in the image."""
    flat = images.flatten(1)
    return torch.stack([flat.square().sum(1), (flat * torch.arange(flat.shape[1]) / 10).sin().sum(1)], dim=1)


def test_input_gradients_are_finite_differences() -> None:
    draw = np.random.default_rng(0)
    images, classes = draw.standard_normal((2, 3, 4, 4)), np.array([0, 1])
    found = input_gradients(smooth, images, classes)
    step = 1e-5
    for i, label in enumerate(classes):
        for y, x in ((0, 0), (2, 3)):
            total = 0.0
            for colour in range(3):
                moved = images[i : i + 1].copy()
                moved[0, colour, y, x] += step
                ahead = smooth(torch.from_numpy(moved))[0, label].item()
                moved[0, colour, y, x] -= 2 * step
                total += abs(ahead - smooth(torch.from_numpy(moved))[0, label].item()) / (2 * step)
            assert found[i, y, x] == pytest.approx(total, rel=1e-6)


def test_integrated_gradients_sum_to_what_the_image_changes(small_plan: Plan, images: Batch) -> None:
    network = Network(small_plan).eval()
    few, classes = images[:4], np.array([0, 1, 2, 3])
    parts = attributions(network, few, classes, steps=200).sum((1, 2, 3))
    with torch.no_grad():
        ends = [network(torch.from_numpy(x)).numpy()[range(4), classes] for x in (few, np.zeros_like(few))]
    assert parts == pytest.approx(ends[0] - ends[1], rel=0.02, abs=0.02)
    assert (integrated_gradients(network, few, classes) >= 0).all()


def test_a_simulation_has_gradients_too(small_plan: Plan, context: Context, images: Batch) -> None:
    from quantward.graph.simulate import simulate

    plan = plan_with("int8-static", small_plan, context)
    before = input_gradients(Network(small_plan), images[:4], np.zeros(4, np.int64))
    after = input_gradients(simulate(plan), images[:4], np.zeros(4, np.int64))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.8
    assert not np.array_equal(before, after)


class Pooled(nn.Module):
    """Each colour's mean, weighed: with an identity for a convolution the feature map is the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.same(x).mean((2, 3)))
        return out


def traced(net: nn.Module, size: int, classes: int = 2) -> Plan:
    names = tuple("abcdef"[:classes])
    return capture(Model("net", net.eval(), Preprocess(size=size, resize=size), names))


def test_gradcam_by_hand() -> None:
    net = Pooled()
    with torch.no_grad():
        net.same.weight.copy_(torch.eye(3)[:, :, None, None])
        net.same.bias.zero_()
        net.head.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, -2.0, 1.0]]))
    plan = traced(net, 8)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    found = gradcam(plan, images, np.array([0, 1]))
    assert found[0] == pytest.approx(np.maximum(images[0, 0] / 64, 0), abs=1e-6)
    assert found[1] == pytest.approx(np.maximum((images[1, 2] - 2 * images[1, 1]) / 64, 0), abs=1e-6)


@pytest.mark.parametrize(
    ("arch", "options", "layout", "op"),
    [
        ("resnet18", {}, "nchw", "aten.relu.default"),
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2}, "class token first", "layer_norm"),
        ("swin_tiny_patch4_window7_224", {"img_size": 56, "depths": (1, 1), "num_heads": (3, 6)}, "nhwc", "layer_norm"),
        ("convnext_atto", {}, "nchw", ""),
    ],
)
def test_the_feature_map_of_every_family(arch: str, options: dict[str, object], layout: str, op: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model(arch, num_classes=4, **options)
    size = int(options.get("img_size", 64))  # type: ignore[call-overload]
    plan = traced(net, size, 4)
    place = feature_map(plan)
    assert place.layout == layout
    assert op in next(node.op for node in plan.program if node.name == place.node)
    images = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    found = gradcam(plan, images, np.array([0, 1]))
    assert found.shape == (2, size, size) and (found >= 0).all() and (found.max((1, 2)) > 0).any()


def test_a_quantized_plan_is_looked_at_in_the_same_place(small_plan: Plan, context: Context, images: Batch) -> None:
    place = feature_map(small_plan)
    with torch.no_grad():
        classes = Network(small_plan)(torch.from_numpy(images[:8])).argmax(1).numpy()
    before = gradcam(small_plan, images[:8], classes, place)
    after = gradcam(plan_with("int8-static", small_plan, context), images[:8], classes, place)
    assert before.any()
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.9
    assert not np.array_equal(before, after)


def test_a_network_without_places_is_refused() -> None:
    plan = traced(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 2)), 4)
    with pytest.raises(Unsupported, match="feature map"):
        feature_map(plan)
    assert isinstance(Place("x", "nchw"), tuple)
