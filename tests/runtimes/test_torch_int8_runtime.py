"""torch's integer kernels compute what was planned, on every engine at hand, and say truly what they ran."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.core.contracts import Batch, Context
from quantward.core.errors import Refused
from quantward.core.values import Model, Plan, Preprocess, QuantSpec, Variant

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from quantward.core.registry import Registry  # noqa: E402
from quantward.graph.capture import capture  # noqa: E402
from quantward.graph.simulate import simulate  # noqa: E402
from quantward.quantize._specs import activation_spec, bias_specs  # noqa: E402
from quantward.runtimes._torch_int8_groups import ADD  # noqa: E402
from quantward.runtimes._torch_int8_kernels import (  # noqa: E402
    Grid,
    Layer,
    exact,
    graded,
    grid_of,
    plain,
    to_quantized,
)
from quantward.runtimes.torch_int8 import TorchInt8 as Runtime  # noqa: E402
from quantward.targets.torch_int8 import TorchInt8 as Target  # noqa: E402

ENGINES = ["fbgemm", "qnnpack", "x86", "onednn"]
announced = pytest.mark.filterwarnings("ignore:torch.quantize")
"""For tests that call torch themselves: it announces once a process, at whichever call is the first, that these go."""


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine that this build of torch has."""
    name: str = request.param
    if absent := Runtime(engine=name).missing():  # type: ignore[arg-type]
        pytest.skip(absent)
    return name


def quantized(plan: Plan, images: Batch, recipe: str) -> Plan:
    """The Plan of a recipe, with ranges from the images."""
    made: Plan = Registry("recipe", "quantward.quantize.recipes").make(recipe).plan(
        plan, Context(images=lambda n: iter([images]))
    )  # fmt: skip
    return made


def simulated(plan: Plan, images: Batch) -> Batch:
    """The logits that the Plan promises."""
    with torch.inference_mode():
        logits: Batch = simulate(plan)(torch.from_numpy(images)).numpy()
    return logits


def away(got: Batch, expected: Batch) -> float:
    """The largest difference as a share of the range of the logits."""
    return float(np.abs(got - expected).max() / np.ptp(expected))


class Many(nn.Module):
    """What convolutional networks are made of: SiLU with a gate, sums with ReLU, pools, a normalisation on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding="same", bias=False)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.gate = nn.Conv2d(16, 16, 1)
        self.narrow = nn.Conv2d(16, 16, 3, stride=2, padding=2, dilation=2)
        self.skip = nn.Conv2d(16, 16, 1, stride=2)
        self.norm = nn.BatchNorm2d(32)
        self.last = nn.Conv2d(32, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):  # type: ignore[no-untyped-def]
        x = nn.functional.relu6(self.stem(x))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        x = nn.functional.silu(self.grouped(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        x = torch.relu(self.narrow(x) + self.skip(x))
        x = torch.cat([x, nn.functional.avg_pool2d(x, 3, 1, 1)], 1)
        x = nn.functional.hardtanh(self.last(torch.relu(self.norm(x))), -0.25, 0.5)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def many() -> Plan:
    """The float Plan of `Many`."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Many()
        net.norm.running_mean.uniform_(-0.5, 0.5)
        net.norm.running_var.uniform_(0.3, 2.0)
    return capture(Model("many", net.eval(), Preprocess(size=32, resize=32), ("a", "b", "c", "d")))


@pytest.mark.parametrize("net", ["small", "many", "transformer"])
@pytest.mark.parametrize("recipe", ["int8-static:calibrator=max", "int8-dynamic"])
def test_every_engine_computes_the_plan(
    engine: str, net: str, recipe: str, images: Batch, small_plan: Plan, many: Plan, small_transformer: Plan,
    tmp_path: Path
) -> None:  # fmt: skip
    plan = quantized({"small": small_plan, "many": many, "transformer": small_transformer}[net], images, recipe)
    variant = Target().write(plan, tmp_path)
    runtime = Runtime(engine=engine)  # type: ignore[arg-type]
    got, expected = runtime.open(variant, 1)(images), simulated(plan, images)
    assert got.dtype == np.float32 and got.shape == expected.shape
    assert np.mean(got.argmax(1) == expected.argmax(1)) >= 0.98
    assert away(got, expected) <= 0.03
    ran = runtime.executed(variant)
    assert ran is not None
    layers = sum(node.op in ("aten.conv2d.default", "aten.linear.default") for node in plan.program)
    floats = {"small": {}, "many": {"float32": 1}, "transformer": {"float32": 4}}  # a "same" padding; attention
    assert ran.layers == {"int8": layers} | floats[net]
    fused = Runtime(engine=engine, fused=True).open(variant, 1)(images)  # type: ignore[arg-type]
    assert away(fused, expected) <= 0.06


def test_fused_kernels_stay_close_and_round_less(many: Plan, images: Batch, tmp_path: Path) -> None:
    if absent := Runtime(engine="onednn").missing():
        pytest.skip(absent)
    plan = quantized(many, images, "int8-static:calibrator=max")
    sums = [node.name for node in plan.program if node.op in ("aten.cat.default", "aten.avg_pool2d.default", ADD)]
    stored = {name: plan.tensors.get(name, activation_spec(-4.0, 4.0, 8, "set by hand")) for name in sums}
    plan = replace(plan, tensors={**plan.tensors, **stored})
    variant = Target().write(plan, tmp_path)
    apart, fused = Runtime(engine="onednn"), Runtime(engine="onednn", fused=True)
    before, after = apart.executed(variant), fused.executed(variant)
    assert before is not None and after is not None
    assert "onednn.conv2d_swish" in after.operators and "onednn.conv2d_swish" not in before.operators
    assert "quantized.add_relu" in after.operators and "quantized.add_relu" not in before.operators
    assert "quantized.batch_norm_relu" in after.operators
    assert after.operators["quantize"] < before.operators["quantize"]
    floats = simulated(replace(plan, tensors={}), images)
    one, other = apart.open(variant, 1)(images), fused.open(variant, 1)(images)
    assert away(other, one) <= 0.05
    assert np.abs(other - floats).mean() <= 1.2 * np.abs(one - floats).mean()


def test_answers_do_not_depend_on_the_batch(engine: str, planned: Callable[[str], Plan], images: Batch,
                                            tmp_path: Path) -> None:  # fmt: skip
    for recipe in ("int8-static", "int8-dynamic"):
        variant = Target().write(planned(recipe), tmp_path)
        session = Runtime(engine=engine).open(variant, 1)  # type: ignore[arg-type]
        whole = session(images[:12])
        assert np.array_equal(whole, np.concatenate([session(images[i : i + 1]) for i in range(12)]))
        assert np.array_equal(whole, session(images[:12])), "a second call says the same"


def test_signed_activations_are_the_same_grid(planned: Callable[[str], Plan], images: Batch, tmp_path: Path) -> None:
    plan = planned("int8-static")
    moved = {
        name: spec if spec.kind != "activation"
        else replace(spec, signed=True, zero_point=np.asarray(spec.zero_point - 128, np.int32))
        for name, spec in plan.tensors.items()
    }  # fmt: skip
    session = [
        Runtime().open(Target().write(made, tmp_path / str(k)), 1)
        for k, made in enumerate((plan, replace(plan, tensors=moved)))
    ]
    assert np.array_equal(session[0](images), session[1](images))


def test_layers_kept_in_float_are_counted_so(planned: Callable[[str], Plan], images: Batch, tmp_path: Path) -> None:
    plan = planned("int8-static:keep=stem+head")
    variant = Target().write(plan, tmp_path)
    ran = Runtime().executed(variant)
    assert ran is not None and ran.layers == {"int8": 6, "float32": 2}
    assert away(Runtime().open(variant, 1)(images), simulated(plan, images)) <= 0.02


def worst_case(channels: int, groups: int, weight: int = 127) -> tuple[Layer, torch.Tensor, torch.Tensor]:
    """A layer whose every product is as large as can be, an input for it, and the exact sums."""
    weights = torch.full((channels, channels // groups, 3, 3), weight, dtype=torch.int8)
    layer = Layer("worst", weights, torch.ones(channels), None, True, padding=(1, 1), groups=groups)
    bytes_in = torch.full((1, channels, 16, 16), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    sums = torch.conv2d(bytes_in.double(), weights.double(), None, 1, 1, 1, groups)
    return layer, graded(bytes_in, Grid(1.0, 0)), sums


@announced
@pytest.mark.parametrize("groups", [1, 128])
def test_saturating_kernels_are_known_before_they_run(engine: str, groups: int) -> None:
    layer, x, sums = worst_case(128, groups)
    out = Grid(float(sums.max()) / 250, 0)
    got = to_quantized(layer, engine, False, out)(x).int_repr()  # type: ignore[arg-type]
    right = bool((got == torch.round(sums / out.scale)).all())
    assert exact(layer, engine) == right  # type: ignore[arg-type]
    narrow, _, _ = worst_case(128, groups, weight=63)
    assert exact(narrow, engine), "seven bits never saturate"  # type: ignore[arg-type]


def test_depthwise_layers_do_not_saturate_on_fbgemm(tmp_path: Path) -> None:
    """fbgemm's own depthwise kernel saturates on such weights; what runs instead does not."""
    if absent := Runtime(engine="fbgemm").missing():
        pytest.skip(absent)

    class Depthwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spread = nn.Conv2d(3, 128, 1)
            self.depth = nn.Conv2d(128, 128, 3, padding=1, groups=128)
            self.head = nn.Linear(128, 4)
            nn.init.constant_(self.spread.weight, 1.0)
            nn.init.constant_(self.depth.weight, 1.0)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.head(self.depth(torch.relu(self.spread(x))).mean((2, 3)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        plan = capture(Model("deep", Depthwise().eval(), Preprocess(size=32, resize=32), ("a", "b", "c", "d")))
    images = np.random.default_rng(0).uniform(0.7, 1.0, (8, 3, 32, 32)).astype(np.float32)
    plan = quantized(plan, images, "int8-static:calibrator=max,equalise=0,correct=false")
    variant = Target().write(plan, tmp_path)
    assert away(Runtime(engine="fbgemm").open(variant, 1)(images), simulated(plan, images)) <= 0.02


def test_clamps_hold_where_the_grid_does_not(small_plan: Plan, images: Batch, engine: str, tmp_path: Path) -> None:
    """A grid that reaches below 0 and above 6 behind a ReLU6: the integers have to be clamped."""
    plan = quantized(small_plan, images, "int8-static:calibrator=max,correct=false")
    node = next(node for node in plan.program if node.op == "aten.hardtanh.default")
    clamps = {node.name for node in plan.program if node.op == "aten.hardtanh.default"}
    wide = {
        name: replace(spec, scale=np.float32(0.05), zero_point=np.int32(40)) if name in clamps else spec
        for name, spec in plan.tensors.items()
    }
    plan = replace(plan, tensors=_with_biases(plan, wide))
    assert math.isclose(node.args[2], 6.0)
    variant = Target().write(plan, tmp_path)
    bright = images * 20
    got = Runtime(engine=engine).open(variant, 1)(bright)  # type: ignore[arg-type]
    assert away(got, simulated(plan, bright)) <= 0.02


def _with_biases(plan: Plan, tensors: dict[str, QuantSpec]) -> dict[str, QuantSpec]:
    return {**tensors, **bias_specs(plan, tensors)}


@announced
def test_bytes_and_quantized_tensors_share_memory() -> None:
    x = torch.quantize_per_tensor(torch.rand(2, 3, 4, 4), 0.01, 7, torch.quint8)
    x = x.contiguous(memory_format=torch.channels_last)
    there = plain(x)
    back = graded(there, Grid(0.01, 7))
    assert there.data_ptr() == x.data_ptr() == back.data_ptr()
    assert torch.equal(there, x.int_repr()) and torch.equal(back.dequantize(), x.dequantize())
    assert back.is_contiguous(memory_format=torch.channels_last)


def test_grid_of_symmetric_signed_activation() -> None:
    assert grid_of(QuantSpec("activation", scale=np.float32(0.25))) == Grid(0.25, 128)


def test_missing_names_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Runtime().missing() is None
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["none"], raising=False)
    assert Runtime(engine="fbgemm").missing() == "this torch has no engine 'fbgemm'; it has: none"


@pytest.fixture
def no_engine_left() -> Iterator[str]:
    """The engine that torch is set to; a test must leave it."""
    before = torch.backends.quantized.engine
    yield before
    assert torch.backends.quantized.engine == before


def test_nothing_leaks(planned: Callable[[str], Plan], images: Batch, tmp_path: Path, no_engine_left: str,
                       recwarn: pytest.WarningsRecorder) -> None:  # fmt: skip
    """Neither torch's deprecation warnings nor its setting of the engine."""
    variant = Target().write(planned("int8-static"), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        Runtime(engine="qnnpack").open(variant, 1)(images[:2])
    assert not recwarn.list


def test_file_of_another_kind_is_refused(tmp_path: Path, planned: Callable[[str], Plan]) -> None:
    variant: Variant = Target().write(planned("int8-static"), tmp_path)
    variant.path.write_bytes(b"{}")
    with pytest.raises(Refused, match="Expected a torch-int8 file"):
        Runtime().open(variant, 1)
