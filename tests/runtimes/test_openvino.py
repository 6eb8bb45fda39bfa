"""OpenVINO runs the arithmetic that was asked for, and says what it ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.core.contracts import Batch, Context
from quantward.core.errors import Refused, UsageError
from quantward.core.registry import Registry
from quantward.core.values import Plan, Variant
from quantward.graph.walk import layers, weight_of
from quantward.runtimes.openvino import Openvino
from quantward.targets.onnx_cpu import OnnxCpu

ov = pytest.importorskip("openvino")
torch = pytest.importorskip("torch")
RUNTIMES = Registry("runtime", "quantward.runtimes")


def has_bf16() -> bool:
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def fp32(small_plan: Plan, tmp_path: Path) -> Variant:
    return OnnxCpu().write(small_plan, tmp_path)


@pytest.mark.parametrize("text", ["openvino:streams=-1", "openvino:streams=2"])
def test_streams_that_make_no_sense_are_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"^Expected .*stream.*; got "):
        RUNTIMES.make(text)


@pytest.mark.skipif(has_bf16(), reason="this processor has bf16")
def test_bf16_is_refused_where_the_processor_has_none(fp32: Variant) -> None:
    runtime = Openvino(precision="bf16")
    assert runtime.missing() is not None and "emulate=true" in str(runtime.missing())
    with pytest.raises(Refused, match="this processor has no bf16 arithmetic"):
        runtime.open(fp32, 1)


def test_bf16_rounds_as_bf16_rounds(fp32: Variant, small_plan: Plan, images: Batch) -> None:
    """Against torch with every weight and every step's output rounded to bf16; float32 is a hundred times nearer."""
    from quantward.graph.network import Network

    def half(_: str, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16).to(torch.float32)

    runtime = Openvino(precision="bf16", emulate=not has_bf16())
    try:
        got = runtime.open(fp32, 1)(images)
    except Refused as error:
        pytest.skip(str(error))
    assert runtime.executed(fp32).layers.get("bf16", 0) >= 6
    with torch.no_grad():
        exact = Network(small_plan)(torch.from_numpy(images)).numpy()
        rounded = Network(small_plan, half, half)(torch.from_numpy(images)).numpy()
    expected, error = np.abs(rounded - exact).mean(), np.abs(got - exact).mean()
    assert expected / 4 <= error <= expected * 4
    assert np.abs(Openvino().open(fp32, 1)(images) - exact).mean() <= expected / 100


def test_float32_stays_float32_and_names_its_operators(fp32: Variant) -> None:
    ran = Openvino().executed(fp32)
    assert set(ran.layers) == {"float32"}
    assert ran.operators["Convolution (f32)"] >= 6
    assert not any(name.startswith(("Const", "Input", "Output")) for name in ran.operators)
    assert not any("bf16" in name for name in ran.operators)


@pytest.mark.parametrize("text", ["openvino:hint=throughput", "openvino:hint=throughput,streams=2",
                                  "openvino:pinning=true"])  # fmt: skip
def test_hints_change_no_answer(text: str, fp32: Variant, images: Batch) -> None:
    expected = Openvino().open(fp32, 1)(images)
    session = RUNTIMES.make(text).open(fp32, 2)
    for n in (64, 3, 1, 0):
        np.testing.assert_allclose(session(images[:n]), expected[:n], atol=1e-5 * float(np.ptp(expected)))


def test_two_streams_are_two_requests(fp32: Variant) -> None:
    compiled = Openvino(hint="throughput", streams=2)._compile(fp32, 2)
    assert compiled.get_property("NUM_STREAMS") == 2
    assert compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == 2


def test_weight_only_files_keep_their_activations(small_transformer: Plan, images: Batch, tmp_path: Path) -> None:
    from quantward.graph.simulate import simulate

    recipe = Registry("recipe", "quantward.quantize.recipes").make("int4-weights:method=rtn,rounding=nearest,group=8")
    whole = recipe.plan(small_transformer, Context(images=lambda _: iter([images])))
    weights = {weight_of(layer) for layer in layers(whole.program)}
    plan = replace(whole, tensors={name: spec for name, spec in whole.tensors.items() if name in weights})
    variant = OnnxCpu().write(plan, tmp_path)
    with torch.no_grad():
        expected = simulate(plan)(torch.from_numpy(images)).numpy()
    got = Openvino().open(variant, 1)(images)
    assert np.array_equal(got.argmax(1), expected.argmax(1))
    assert np.abs(got - expected).max() <= 1e-5 * float(np.ptp(expected))
    assert set(Openvino().executed(variant).layers) == {"float32"}, "narrow weights are no integer arithmetic"


def test_no_activation_is_rounded_unasked(fp32: Variant) -> None:
    """OpenVINO's default is 32: linear layers with narrow weights then round what they read to 8 bits."""
    assert Openvino()._compile(fp32, 1).get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 0


def test_refusal_tells_what_openvino_said(fp32: Variant, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(fp32.path)
    model.graph.node[0].op_type = "NoSuchStep"
    onnx.save(model, tmp_path / "strange.onnx")
    with pytest.raises(Refused, match=r"it said: .*NoSuchStep") as caught:
        Openvino().open(replace(fp32, path=tmp_path / "strange.onnx"), 1)
    assert "\n" not in str(caught.value) and ".." not in str(caught.value)


def test_integer_files_run_in_integers(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    ran = Openvino().executed(OnnxCpu().write(planned("int8-static"), tmp_path))
    assert ran.layers.get("int8", 0) >= 7
    assert sum(n for name, n in ran.operators.items() if name.endswith("(u8)")) >= 7


def test_scales_behind_an_open_batch_are_no_obstacle(images: Batch, tmp_path: Path) -> None:
    """OpenVINO moves the scales of channels through a Reshape and dies of a batch whose size is open, as in LeViT,
    where images lie behind each other in a linear layer with a normalisation: it is then asked for one image a call."""
    from quantward.core.values import Model, Preprocess
    from quantward.graph.capture import capture
    from quantward.graph.simulate import simulate

    class Tokens(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Conv2d(3, 12, 8, 8)
            self.mix, self.norm = torch.nn.Linear(12, 12, bias=False), torch.nn.BatchNorm1d(12)
            self.head = torch.nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x).flatten(2).transpose(1, 2)
            y = self.mix(torch.nn.functional.hardswish(x))
            x = x + self.norm(y.flatten(0, 1)).reshape_as(y)
            return self.head(x.mean(1))  # type: ignore[no-any-return]

    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Tokens().eval()
        with torch.no_grad():
            net.norm.weight.uniform_(0.5, 1.5)
            net.head.weight.normal_(std=2.0)
    parent = capture(Model("tokens", net, Preprocess(size=32, resize=32), ("a", "b", "c", "d")))
    recipe = Registry("recipe", "quantward.quantize.recipes").make("int8-static")
    plan = recipe.plan(parent, Context(images=lambda _: iter([images])))
    variant = OnnxCpu().write(plan, tmp_path)
    with pytest.raises(RuntimeError):
        ov.Core().compile_model(str(variant.path), "CPU")
    with torch.inference_mode():
        expected = simulate(plan)(torch.from_numpy(images)).numpy()
    for text in ("openvino", "openvino:hint=throughput,streams=2"):
        got = RUNTIMES.make(text).open(variant, 2)(images)
        assert np.abs(got - expected).max() <= 0.02 * np.ptp(expected)
