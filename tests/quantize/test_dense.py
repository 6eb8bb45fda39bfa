"""Dense blocks on one grid: the same function in float, and integers from end to end in the files of three targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.core.contracts import Batch, Context
from quantward.core.errors import UsageError
from quantward.core.registry import Registry
from quantward.core.values import Model, Node, Plan, Preprocess

torch = pytest.importorskip("torch")

from quantward.graph.capture import capture  # noqa: E402
from quantward.graph.network import Network  # noqa: E402
from quantward.graph.simulate import simulate  # noqa: E402
from quantward.graph.walk import inputs_of  # noqa: E402
from quantward.quantize._dense import channel_ends, joined  # noqa: E402
from quantward.quantize._dense_blocks import blocks, means_first, shared_grids  # noqa: E402
from quantward.targets.onnx_cpu import OnnxCpu  # noqa: E402
from quantward.workbench import open_session  # noqa: E402

NORM, CAT = "aten.batch_norm.default", "aten.cat.default"


class Layer(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Normalisation, ReLU, 1 x 1, normalisation, ReLU, 3 x 3: what adds 6 channels to a dense block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = torch.nn.BatchNorm2d(width)
        self.conv1 = torch.nn.Conv2d(width, 12, 1, bias=False)
        self.norm2 = torch.nn.BatchNorm2d(12)
        self.conv2 = torch.nn.Conv2d(12, 6, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x)))))
        return self.conv2(x)  # type: ignore[no-any-return]


class Dense(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Two dense blocks of three layers with a transition between them, 3 x 32 x 32 -> 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.pool = torch.nn.MaxPool2d(3, 1, 1)
        self.first = torch.nn.ModuleList(Layer(8 + 6 * i) for i in range(3))
        self.norm = torch.nn.BatchNorm2d(26)
        self.transition = torch.nn.Conv2d(26, 10, 1, bias=False)
        self.second = torch.nn.ModuleList(Layer(10 + 6 * i) for i in range(3))
        self.last = torch.nn.BatchNorm2d(28)
        self.head = torch.nn.Linear(28, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = [self.pool(torch.relu(self.stem(x)))]
        for layer in self.first:
            seen.append(layer(torch.cat(seen, 1)))
        x = self.transition(torch.relu(self.norm(torch.cat(seen, 1))))
        seen = [torch.nn.functional.avg_pool2d(x, 2)]
        for layer in self.second:
            seen.append(layer(torch.cat(seen, 1)))
        x = torch.relu(self.last(torch.cat(seen, 1)))
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def dense() -> Plan:
    """Normalisations with factors of both signs and a 0, and one channel that is always off."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Dense()
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.uniform_(-0.3, 0.3)
                    module.running_var.uniform_(0.05, 1.0)
                    module.weight.uniform_(0.5, 1.5)
                    module.weight[::5] *= -1
                    module.weight[3] = 0.0
                    module.bias.uniform_(-0.3, 0.3)
                    module.bias[2] = -50.0
            net.head.weight.normal_(std=2.0)
    return capture(Model("dense", net.eval(), Preprocess(size=32, resize=32), ("a", "b", "c", "d")))


def made(plan: Plan, images: Batch, options: str) -> Plan:
    recipe = Registry("recipe", "quantward.quantize.recipes").make(f"int8-static:{options}")
    quantized: Plan = recipe.plan(plan, Context(images=lambda _: iter([images])))
    return quantized


def answers(network: torch.nn.Module, images: Batch) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = network.eval()(torch.from_numpy(images)).numpy()
    return found


def by_name(plan: Plan) -> Mapping[str, Node]:
    return {node.name: node for node in plan.program}


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_float_network_computes_what_it_did(strength: float, dense: Plan, images: Batch) -> None:
    assert len(blocks(means_first(dense.program, dense.weights))) == 2
    rewritten = joined(dense, [images], strength)
    assert not any(node.op == NORM for node in rewritten.program)
    before, after = answers(Network(dense), images), answers(Network(rewritten), images)
    assert np.abs(after - before).max() <= 1e-4 * np.ptp(before)


def test_means_are_taken_before_the_convolution_of_a_transition(dense: Plan, images: Batch) -> None:
    named = by_name(joined(dense, [images]))
    (pool,) = (node for node in named.values() if node.op == "aten.avg_pool2d.default")
    (transition,) = (node for node in named.values() if inputs_of(node) == [pool.name])
    assert transition.op == "aten.conv2d.default" and named[inputs_of(pool)[0]].op == "aten.maximum.default"


def test_every_channel_fills_one_grid_that_begins_at_0(dense: Plan, images: Batch) -> None:
    """What some reader tells apart lies in [0, R], and at full strength each such channel reaches R."""
    plan = joined(dense, [images], 1.0)
    origin = shared_grids(plan.program)
    assert len(set(origin.values())) == 2
    for widest in set(origin.values()):
        clamps = [node for node in plan.program if inputs_of(node) == [widest]]
        floors = np.min([plan.weights[node.args[1]["weight"]].ravel() for node in clamps], axis=0)
        _, high = channel_ends(plan, [images], [widest])[widest]
        assert floors[np.abs(floors) < 1e30].min() >= -1e-4  # nobody looks below 0
        reach = np.median(high)
        assert np.mean(np.abs(high - reach) <= 1e-3 * reach) > 0.6


def test_all_tensors_of_a_block_have_one_scale_and_no_zero_point(dense: Plan, images: Batch) -> None:
    plan = made(dense, images, "placement=joint")
    origin = shared_grids(plan.program)
    cats = [node.name for node in plan.program if node.op == CAT]
    assert cats and set(cats) <= set(origin)
    for name, widest in origin.items():
        assert plan.tensors[name].scale == plan.tensors[widest].scale and not plan.tensors[name].zero_point, name
    parts = {part for cat in cats for part in inputs_of(by_name(plan)[cat])}
    assert parts <= set(origin)


@pytest.mark.parametrize("calibrator", ["max", "percentile", "mse"])
def test_rounding_is_a_small_share_of_the_answers(calibrator: str, dense: Plan, images: Batch) -> None:
    plan = made(dense, images, f"calibrator={calibrator},placement=joint")
    expected = answers(Network(dense), images)
    error = np.sqrt(np.mean((answers(simulate(plan), images) - expected) ** 2))
    assert error <= 0.03 * np.std(expected)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_files_agree_with_their_plan(runtime: str, dense: Plan, images: Batch, tmp_path: Path) -> None:
    if missing := Registry("runtime", "quantward.runtimes").make(runtime).missing():
        pytest.skip(missing)
    plan = made(dense, images, "placement=joint")
    target = Registry("target", "quantward.targets").make("litert" if runtime == "litert" else "onnx-cpu")
    got = open_session(target.write(plan, tmp_path), runtime, 1)(images)
    expected = answers(simulate(plan), images)
    assert np.mean(got.argmax(1) == expected.argmax(1)) >= 0.99
    assert np.abs(got - expected).max() <= 0.03 * np.ptp(expected)


def test_openvino_joins_and_clamps_in_integers(dense: Plan, images: Batch, tmp_path: Path) -> None:
    """No step in float between the first and the last integer, which `placement=readers` has several of. (What is
    laid out and reshaped in float are constants.)"""
    from quantward.runtimes.openvino import Openvino

    if missing := Openvino().missing():
        pytest.skip(missing)
    floats = {}
    for placement in ("readers", "joint"):
        variant = OnnxCpu().write(made(dense, images, f"placement={placement}"), tmp_path)
        executed = Openvino().executed(variant)
        assert executed.layers == {"int8": 15}
        floats[placement] = {
            name: count
            for name, count in executed.operators.items()
            if "f32" in name and not name.startswith(("Reorder", "Reshape"))
        }
    assert floats["joint"] == {"FakeQuantize (f32)": 1}  # the image itself
    assert "Concatenation (f32)" in floats["readers"]


def test_onnxruntime_multiplies_integers_only(dense: Plan, images: Batch, tmp_path: Path) -> None:
    from quantward.runtimes.onnxruntime import Onnxruntime

    executed = Onnxruntime().executed(OnnxCpu().write(made(dense, images, "placement=joint"), tmp_path))
    assert executed is not None and executed.layers == {"int8": 15}
    assert executed.operators["QLinearConcat"] == 8 and "Concat" not in executed.operators


def test_the_grid_of_a_block_can_be_learned(dense: Plan, images: Batch) -> None:
    """What recipes that learn steps group by: one grid a block, not one a tensor."""
    from quantward.quantize._learned import grids

    plan = made(dense, images, "placement=joint")
    origin = shared_grids(plan.program)
    groups = [set(names) & set(origin) for names in grids(plan).values()]
    assert sorted(len(group) for group in groups if group) == sorted(
        sum(1 for found in origin.values() if found == widest) for widest in set(origin.values())
    )


def changed(plan: Plan, name: str, op: str, **fields: object) -> Plan:
    return replace(
        plan,
        program=tuple(replace(n, op=op, **fields) if n.name == name else n for n in plan.program),  # type: ignore[arg-type]
    )


def test_what_is_no_dense_block_is_left_as_it_is(dense: Plan, small_plan: Plan, images: Batch) -> None:
    assert joined(small_plan, [images]) is small_plan
    sums = {"aten.relu.default": "aten.silu.default"}
    smooth = replace(dense, program=tuple(replace(n, op=sums.get(n.op, n.op)) for n in dense.program))
    assert joined(smooth, [images]) is smooth
    leaky = tuple(
        replace(n, args=(*n.args[:3], [1, 1], [1, 1])) if n.op == "aten.conv2d.default" and "conv1" in n.name else n
        for n in dense.program
    )
    assert joined(replace(dense, program=leaky), [images]).program is leaky


def test_without_dense_blocks_it_is_the_placement_for_readers(small_plan: Plan, images: Batch) -> None:
    one, other = (made(small_plan, images, f"placement={placement}") for placement in ("joint", "readers"))
    assert one.program == other.program and one.tensors.keys() == other.tensors.keys()
    assert all(np.array_equal(one.tensors[name].scale, other.tensors[name].scale) for name in one.tensors)


def test_signed_grids_are_refused(dense: Plan, images: Batch) -> None:
    with pytest.raises(UsageError, match="placement=joint"):
        made(dense, images, "placement=joint,signed=true")
