"""What many rooms' tests need: a small network with everything that quantization finds hard, and the real images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from quantward.core.contracts import Batch, Context
from quantward.core.values import Model, Plan, Preprocess

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded pixels of tests go to a folder of theirs, never to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTWARD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and weights, where it is at hand."""
    if not SHARED.is_dir():
        pytest.skip("the real images are not at hand (../shared/data)")
    return SHARED


@pytest.fixture(scope="session")
def small_model() -> Model:
    """An inverted-residual network in eval mode with lively batch statistics: 3 x 32 x 32 -> 4 logits."""
    torch = pytest.importorskip("torch")
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.expand = nn.Conv2d(width, 3 * width, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(3 * width)
            self.act1 = nn.ReLU6(inplace=True)
            self.depthwise = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False)
            self.norm2 = nn.BatchNorm2d(3 * width)
            self.act2 = nn.ReLU6(inplace=True)
            self.project = nn.Conv2d(3 * width, width, 1, bias=False)
            self.norm3 = nn.BatchNorm2d(width)

        def forward(self, x):  # type: ignore[no-untyped-def]
            y = self.act1(self.norm1(self.expand(x)))
            y = self.act2(self.norm2(self.depthwise(y)))
            return x + self.norm3(self.project(y))

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(8)
            self.act = nn.ReLU(inplace=True)
            self.blocks = nn.Sequential(Block(8), Block(8))
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.drop = nn.Dropout(0.2)
            self.head = nn.Linear(8, 4)

        def forward(self, x):  # type: ignore[no-untyped-def]
            x = self.blocks(self.act(self.norm(self.stem(x))))
            return self.head(self.drop(self.pool(x).flatten(1)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Small()
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.uniform_(-0.5, 0.5)
                    module.running_var.uniform_(0.3, 2.0)
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.uniform_(-0.3, 0.3)
    return Model("small", net.eval(), Preprocess(size=32, resize=32), ("a", "b", "c", "d"))


@pytest.fixture(scope="session")
def small_plan(small_model: Model) -> Plan:
    """The float Plan of the small network."""
    from quantward.graph.capture import capture

    return capture(small_model)


@pytest.fixture(scope="session")
def small_transformer() -> Plan:
    """The float Plan of a vision transformer with two blocks, 3 x 32 x 32 -> 4 logits, whose LayerNorms favour a few
    channels, as those of trained transformers do."""
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm.models.vision_transformer")
    from quantward.graph.capture import capture

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=4)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if "norm" in name and name.endswith("weight"):
                    parameter.copy_(10 ** torch.empty_like(parameter).uniform_(-0.7, 0.7))
            net.head.weight.normal_(std=0.5)
    return capture(Model("transformer", net.eval(), Preprocess(size=32, resize=32), ("a", "b", "c", "d")))


@pytest.fixture(scope="session")
def images() -> Batch:
    """Sixty-four normalised inputs with the structure of pictures: smooth, correlated over channels."""
    draw = np.random.default_rng(0)
    coarse = draw.normal(size=(64, 1, 8, 8)).astype(np.float32)
    smooth = coarse.repeat(4, axis=2).repeat(4, axis=3)
    return (smooth + 0.3 * draw.normal(size=(64, 3, 32, 32)).astype(np.float32)).astype(np.float32)


@pytest.fixture
def context(images: Batch, small_plan: Plan) -> Context:
    """A recipe's Context: calibrates on the sixty-four images, trains on a few of noise."""
    from quantward.core.values import Fold
    from quantward.workbench import Lessons

    def lend(n: int | None) -> Iterator[Batch]:
        chosen = images if n is None else images[:n]
        yield from (chosen[i : i + 16] for i in range(0, len(chosen), 16))

    pixels = np.random.default_rng(1).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    fold = Fold(0, 1, 0, "noise", np.arange(16), np.arange(16, 24), *[np.arange(0)] * 3)
    fit = Lessons(pixels, np.arange(24) % 4, fold, small_plan.classes, small_plan.preprocess)
    return Context(images=lend, fit=fit)


@pytest.fixture
def planned(small_plan: Plan, context: Context) -> Callable[[str], Plan]:
    """Recipe spelling -> Plan of the small network."""
    from quantward.core.registry import Registry

    recipes = Registry("recipe", "quantward.quantize.recipes")

    def plan(text: str) -> Plan:
        made: Plan = recipes.make(text).plan(small_plan, context)
        return made

    return plan
