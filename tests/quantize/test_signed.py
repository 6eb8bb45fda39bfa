"""Signed grids around 0: their arithmetic, and which tensors are stored on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from quantward.core.contracts import Batch, Context
from quantward.core.values import Node, Plan
from quantward.graph.network import Network
from quantward.graph.simulate import simulate
from quantward.graph.walk import layers
from quantward.quantize._calibrators import CALIBRATORS
from quantward.quantize._centred import centred
from quantward.quantize._observers import BINS, Histogram
from quantward.quantize._placement import quantized_outputs
from quantward.quantize._signed import signed_spec, stored_for_readers
from quantward.quantize.recipes.qat import Qat

CONV, RELU, ADD = "aten.conv2d.default", "aten.relu.default", "aten.add.Tensor"


def histogram(values: np.ndarray) -> Histogram:
    found = Histogram(np.zeros(BINS), 0.0, np.inf, -np.inf)
    found.add(torch.from_numpy(values.astype(np.float32)))
    return found


def quantized(x: np.ndarray, scale: float) -> np.ndarray:
    """The witness: TensorRT's own formula, clip(round(x / s), -128, 127) s."""
    return np.clip(np.rint(x / scale), -128, 127) * scale


def test_grids_are_tensorrts_own() -> None:
    x = np.random.default_rng(0).normal(size=(4, 1000))
    spec = signed_spec(histogram(x), 8, "max")
    assert (spec.low, spec.high, spec.signed, int(spec.zero_point)) == (-128, 127, True, 0)
    assert float(spec.scale) == pytest.approx(np.abs(x).max() / 127, rel=1e-5)


@pytest.mark.parametrize("name", sorted(CALIBRATORS))
def test_every_calibrator_gives_a_grid_that_covers_the_larger_side(name: str) -> None:
    x = np.abs(np.random.default_rng(1).normal(size=(4, 4000)))
    spec = signed_spec(histogram(x), 8, name)  # type: ignore[arg-type]
    assert 0.3 * x.max() < 127 * float(spec.scale) <= 1.001 * x.max()


def test_mse_errs_less_than_the_extremes_where_there_is_an_outlier() -> None:
    x = np.random.default_rng(2).normal(size=(4, 5000))
    x[0, 0] = 60.0
    errors = {
        name: float(((quantized(x, float(signed_spec(histogram(x), 8, name).scale)) - x) ** 2).sum())
        for name in ("mse", "max")
    }
    assert errors["mse"] < errors["max"]


def residual_program(clamp: bool) -> tuple[Node, ...]:
    """input -> a -> (b -> + a) -> [relu] -> c: a residual block, with or without a ReLU behind its sum."""
    ref = "node"
    program = [
        Node("input", "input"),
        Node("a", CONV, ({ref: "input"}, {"weight": "a.w"})),
        Node("b", CONV, ({ref: "a"}, {"weight": "b.w"})),
        Node("sum", ADD, ({ref: "b"}, {ref: "a"})),
    ]
    last = "sum"
    if clamp:
        program.append(Node("relu", RELU, ({ref: "sum"},)))
        last = "relu"
    program += [Node("c", CONV, ({ref: last}, {"weight": "c.w"})), Node("output", "output", ({ref: "c"},))]
    return tuple(program)


@pytest.mark.parametrize("clamp", [True, False])
def test_of_a_residual_sum_only_the_residual_is_stored(clamp: bool) -> None:
    program = residual_program(clamp)
    every = quantized_outputs(program)
    kept = stored_for_readers(program, every, {"a", "b", "c"})
    assert "b" in every and "b" not in kept
    assert set(kept) == {"input", "a", "relu" if clamp else "sum"}


def test_what_only_float_layers_read_is_not_stored() -> None:
    program = residual_program(True)
    kept = stored_for_readers(program, quantized_outputs(program), {"b"})
    assert set(kept) == {"a"}


def test_signed_plans_store_fewer_tensors_and_no_bias(planned: Callable[[str], Plan]) -> None:
    signed, plain = planned("int8-static:signed=true"), planned("int8-static")
    activations = {name for name, spec in signed.tensors.items() if spec.kind == "activation"}
    assert activations < {name for name, spec in plain.tensors.items() if spec.kind == "activation"}
    assert not any(spec.kind == "bias" for spec in signed.tensors.values())
    for name in activations:
        spec = signed.tensors[name]
        assert spec.signed and spec.bits == 8 and not np.any(spec.zero_point)
    assert "blocks.0.project" not in activations  # joins its residual inside the kernel


def test_both_schemes_share_one_pass_over_the_images(small_plan: Plan, images: Batch) -> None:
    from quantward.quantize.recipes.int8_static import Int8Static

    passes = []

    def lend(n: int | None):  # type: ignore[no-untyped-def]
        passes.append(n)
        return iter([images])

    context = Context(images=lend)
    Int8Static(correct=False).plan(small_plan, context)
    before = len(passes)
    Int8Static(correct=False, signed=True).plan(small_plan, context)
    assert len(passes) == before


def test_clamps_before_unpadded_layers_are_moved_and_the_function_stays(small_plan: Plan, images: Batch) -> None:
    every = {layer.name for layer in layers(small_plan.program)}
    moved, shifts = centred(small_plan, every, lambda name: 2.5)
    assert set(shifts) == {"blocks.0.act2", "blocks.1.act2"}  # act1 feeds padded convolutions, act a sum as well
    ends = {node.name: node.args[1:] for node in moved.program if node.op == "aten.hardtanh.default"}
    assert ends["blocks.0.act2"] == (-2.5, 3.5) and ends["blocks.0.act1"] == (0.0, 6.0)
    with torch.no_grad():
        before, after = (Network(plan)(torch.from_numpy(images)) for plan in (small_plan, moved))
    assert float((before - after).abs().max()) < 1e-5 * float(before.abs().max())
    assert set(centred(small_plan, every - {"blocks.0.project"}, lambda name: 2.5)[1]) == {"blocks.1.act2"}


def test_moved_clamps_use_the_whole_grid(planned: Callable[[str], Plan], small_plan: Plan, images: Batch) -> None:
    plan = planned("int8-static:signed=true,calibrator=max,equalise=0,correct=false")
    program = {node.name: node for node in plan.program}
    low, high = program["blocks.0.act2"].args[1:]
    assert high - low == pytest.approx(6.0)
    spec = plan.tensors["blocks.0.act2"]
    told = plan.notes["activations"]["blocks.0.act2"]
    assert told["low"] == pytest.approx(-told["high"], abs=1e-5)  # the calibrated range lies around 0
    assert 127 * float(spec.scale) == pytest.approx(told["high"], rel=1e-5)
    with torch.no_grad():
        outputs = [simulate(one)(torch.from_numpy(images)) for one in (plan, small_plan)]
    assert float((outputs[0] - outputs[1]).mean().abs()) < 0.01 * float(outputs[1].abs().max())


def test_training_keeps_the_grids_signed(small_plan: Plan, context: Context, images: Batch) -> None:
    plan = Qat(signed=True, epochs=1, batch=16, augment="none").plan(small_plan, context)
    specs = [spec for spec in plan.tensors.values() if spec.kind == "activation"]
    assert specs and all(spec.signed and not np.any(spec.zero_point) for spec in specs)
    assert all(spec.kind != "bias" for spec in plan.tensors.values())
    unrounded = replace(plan, tensors={n: s for n, s in plan.tensors.items() if s.kind != "activation"})
    with torch.no_grad():
        rounded, whole = (simulate(one)(torch.from_numpy(images)) for one in (plan, unrounded))
    assert 0 < float((rounded - whole).abs().max()) < 0.2 * float(whole.abs().max())
