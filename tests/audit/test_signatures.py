"""Each signature has a Plan, file or answer that shows it, and a clean one that does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantward.audit.capped import Capped
from quantward.audit.channels import Channels, grids, measure
from quantward.audit.signatures import TITLES, Signature, signatures, told, worst_activations
from quantward.core.contracts import Batch, Executed
from quantward.core.values import Efficiency, Latency, Plan, Predictions, QuantSpec, Variant
from quantward.quantize._specs import activation_spec

CLEAN = "int8-static:calibrator=max,reduce_range=true"


def named(found: tuple[Signature, ...]) -> dict[str, Signature]:
    return {one.code: one for one in found}


@pytest.fixture(scope="module")
def clean(audited: Callable[[str], Plan]) -> Plan:
    return audited(CLEAN)


@pytest.fixture(scope="module")
def channels(clean: Plan, images: Batch) -> dict[str, Channels]:
    """Measured ones; channels so faint that they are lost (the network is untrained) are taken as silent."""
    found = measure(clean, [images[:32]])
    for name, spec in grids(clean).items():
        item = found[name]
        faint = np.maximum(-item.low, item.high) < 0.5 * float(spec.scale)
        found[name] = replace(item, low=np.where(faint, 0.0, item.low), high=np.where(faint, 0.0, item.high))
    return found


def answers(calls: list[int], truth: list[int]) -> Predictions:
    rows = np.full((len(calls), 4), 0.1)
    rows[np.arange(len(calls)), calls] = 0.7
    return Predictions(tuple(f"{i}" for i in range(len(calls))), np.array(truth), rows, ("a", "b", "c", "d"))


def cost(size: int, p50: float, spread: float = 0.02) -> Efficiency:
    return Efficiency("x", "onnxruntime", size, 1.0, (Latency(1, p50, p50, p50, 50, spread),))


def test_a_clean_file_shows_nothing(
    clean: Plan, small_plan: Plan, channels: dict[str, Channels], int8_file: Variant
) -> None:
    even = [i % 4 for i in range(40)]
    found = signatures(
        clean, small_plan, channels=channels, predictions=answers(even, even), baseline=answers(even, even),
        efficiency=cost(15_000, 1.0), baseline_efficiency=cost(60_000, 1.0), variant=int8_file,
        executed=Executed({"int8": 8}, {"QLinearConv": 7, "QGemm": 1}), capped=Capped(1.0, 0.0, 40),
    )  # fmt: skip
    assert found == ()


def test_nothing_given_nothing_looked_for(small_plan: Plan) -> None:
    assert signatures(small_plan, small_plan) == ()


def test_single_class_collapse(clean: Plan, small_plan: Plan) -> None:
    truth = [i % 4 for i in range(100)]
    found = named(signatures(clean, small_plan, predictions=answers([2] * 97 + [0, 1, 3], truth),
                             baseline=answers(truth, truth)))["single-class-collapse"]  # fmt: skip
    assert found.severity == "error" and found.figures == {"class": "c", "share": 0.97, "baseline": 0.25, "truth": 0.25}
    assert "97.0 % of the images are called 'c' (baseline 25.0 %)" in found.sentence
    drifted = answers([2] * 60 + truth[:40], truth)
    warned = named(signatures(clean, small_plan, predictions=drifted, baseline=answers(truth, truth)))
    assert warned["single-class-collapse"].severity == "warning"
    rare = [2] * 98 + [0, 1]
    assert not signatures(clean, small_plan, predictions=answers([2] * 100, rare), baseline=answers(rare, rare))


def test_dead_weight_channels(audited: Callable[[str], Plan], small_plan: Plan) -> None:
    name = "blocks.0.expand.weight"
    quiet = small_plan.weights[name].copy()
    quiet[5] *= 1e-5
    parent = replace(small_plan, weights={**small_plan.weights, name: quiet})
    spec = QuantSpec("weight", 8, scale=np.float32(np.abs(quiet).max() / 127), zero_point=np.zeros((), np.int32))
    found = named(signatures(replace(parent, tensors={name: spec}), parent))["dead-channels"]
    assert found.layers == (name,) and found.figures["channels"] == 1 and found.severity == "warning"
    quiet[5] = 0
    assert not signatures(replace(parent, tensors={name: spec}), parent), "a channel that is zero in float is not lost"


def test_dead_activation_channels(clean: Plan, small_plan: Plan, channels: dict[str, Channels]) -> None:
    name = "blocks.0.act1"
    step = float(clean.tensors[name].scale)
    faint = channels[name].high.copy()
    faint[:10] = 0.3 * step
    given = {**channels, name: replace(channels[name], low=np.zeros_like(faint), high=faint)}
    found = named(signatures(clean, small_plan, channels=given))["dead-channels"]
    assert found.severity == "error" and found.figures["channels"] == 10 and found.layers == (name,)
    faint[:10] = 0.0
    assert "dead-channels" not in named(signatures(clean, small_plan, channels=given))


def test_clipped_channels(clean: Plan, small_plan: Plan, images: Batch) -> None:
    name = "blocks.1.act1"
    spec = clean.tensors[name]
    narrow = replace(clean, tensors={**clean.tensors, name: replace(spec, scale=spec.scale / 8)})
    found = named(signatures(narrow, small_plan, channels=measure(narrow, [images[:32]])))["clipped-channels"]
    assert found.layers[0] == name and found.severity == "error"
    assert found.figures["worst_tensor"] > 0.1 and found.figures["channels"] > 1


def test_what_a_relu_flattens_may_be_cut_off(clean: Plan, small_plan: Plan, images: Batch) -> None:
    name = "blocks.1.expand"
    cut = {**clean.tensors, name: activation_spec(0.0, 0.01, 8, "made up")}
    read = measure(replace(clean, tensors=cut), [images[:32]])
    relu = tuple(
        replace(node, op="aten.relu.default", args=node.args[:1]) if node.name == "blocks.1.act1" else node
        for node in clean.program
    )
    for program, named_it in ((clean.program, True), (relu, False)):
        plan = replace(clean, program=program, tensors=cut)
        found = named(signatures(plan, small_plan, channels=read)).get("clipped-channels")
        assert (found is not None and name in found.layers) is named_it


def test_outlier_dominated(audited: Callable[[str], Plan], small_plan: Plan, images: Batch) -> None:
    from quantward.core.contracts import Context
    from quantward.core.registry import Registry

    hot = images[:32].copy()
    hot[0, :, 0, 0] = 200.0
    recipe = Registry("recipe", "quantward.quantize.recipes").make(CLEAN)
    plan = recipe.plan(small_plan, Context(images=lambda n: iter([hot])))
    found = named(signatures(plan, small_plan))["outlier-dominated"]
    assert "input" in found.layers and found.figures["worst_bulk_levels"] < 64
    drawn = worst_activations(plan, {})
    assert next(iter(drawn)) == found.layers[0] and len(drawn) == 4
    shares = drawn["input"]["shares"]
    assert len(shares) == 48 and sum(shares) == pytest.approx(1.0, abs=0.01) and shares[-1] > 0
    assert "outlier-dominated" not in named(signatures(audited(CLEAN), small_plan))


def test_unequal_channels_of_a_weight(clean: Plan, small_plan: Plan) -> None:
    name = "blocks.0.expand.weight"
    weight = small_plan.weights[name].copy()
    weight[3] *= 0.02
    spec = QuantSpec("weight", 8, scale=np.float32(np.abs(weight).max() / 127), zero_point=np.zeros((), np.int32))
    plan = replace(small_plan, weights={**small_plan.weights, name: weight}, tensors={name: spec})
    found = named(signatures(plan, plan))["unequal-channels"]
    assert found.layers == (name,) and found.figures["weights"] == 1 and found.figures["worst_levels"] < 16
    assert "per_channel=true" in found.sentence and "equalise" not in found.sentence
    rows = np.asarray(np.abs(weight).reshape(len(weight), -1).max(1) / 127, np.float32)
    own = replace(spec, axis=0, scale=rows, zero_point=np.zeros(len(rows), np.int32))
    assert not signatures(replace(plan, tensors={name: own}), plan)


def test_unequal_channels_of_an_activation(clean: Plan, small_plan: Plan, channels: dict[str, Channels]) -> None:
    name = "blocks.0.act2"
    small = np.full_like(channels[name].high, 10 * float(clean.tensors[name].scale))
    small[0] = 255 * float(clean.tensors[name].scale)
    given = {**channels, name: replace(channels[name], low=np.zeros_like(small), high=small)}
    found = named(signatures(clean, small_plan, channels=given))["unequal-channels"]
    assert found.layers == (name,) and found.figures["worst_levels"] == 11 and "equalise" in found.sentence


def test_half_precision_overflows(audited: Callable[[str], Plan], small_plan: Plan, images: Batch) -> None:
    plan = audited("fp16")
    assert not signatures(plan, small_plan, channels=measure(plan, [images[:4]]))
    steps = measure(plan, [1e5 * images[:4]])
    loud = named(signatures(plan, small_plan, channels=steps))["fp16-overflow"]
    assert loud.severity == "warning" and loud.figures["steps"] > 0 and "input" in loud.layers
    weight = small_plan.weights["head.weight"] * 1e7
    broken = replace(plan, weights={**plan.weights, "head.weight": weight})
    found = named(signatures(broken, small_plan))["fp16-overflow"]
    assert found.severity == "error" and found.layers == ("head.weight",)


def test_answers_that_are_no_numbers(clean: Plan, small_plan: Plan) -> None:
    said = answers([0, 1, 2, 3], [0, 1, 2, 3])
    rows = np.array(said.probabilities)
    rows[1] = np.nan
    found = named(signatures(clean, small_plan, predictions=replace(said, probabilities=rows)))["fp16-overflow"]
    assert found.severity == "error" and found.figures == {"images": 1, "of": 4}


def test_float_layers(clean: Plan, small_plan: Plan) -> None:
    half = Executed({"int8": 5, "float32": 3}, {"QLinearConv": 5, "FusedConv": 3})
    found = named(signatures(clean, small_plan, executed=half))["float-layers"]
    assert found.severity == "warning" and found.figures["float_operators"] == {"FusedConv": 3}
    assert "3 of the 8 layers" in found.sentence and "FusedConv x3" in found.sentence
    none = Executed({"float32": 8}, {"Conv": 8})
    assert named(signatures(clean, small_plan, executed=none))["float-layers"].severity == "error"
    kept = replace(clean, tensors={k: v for k, v in clean.tensors.items() if v.kind == "weight"})
    assert "float-layers" not in named(signatures(kept, small_plan, executed=none)), "weights alone compute in float"


def test_not_smaller(clean: Plan, small_plan: Plan, int8_file: Variant) -> None:
    large = replace(int8_file, bytes=70_000)
    found = named(signatures(clean, small_plan, variant=large, baseline_efficiency=cost(60_000, 1.0)))["not-smaller"]
    assert found.severity == "error" and "70,000 bytes are no fewer than FP32's 60,000" in found.sentence
    wide = replace(int8_file, bytes=200_000)
    warned = named(signatures(clean, small_plan, variant=wide, baseline_efficiency=cost(400_000, 1.0)))["not-smaller"]
    assert warned.severity == "warning" and warned.figures["promised_bytes"] < 10_000
    assert not signatures(small_plan, small_plan, variant=large, baseline_efficiency=cost(60_000, 1.0))


def test_slower(clean: Plan, small_plan: Plan) -> None:
    def look(p50: float, spread: float = 0.02) -> dict[str, Signature]:
        given: dict[str, Any] = {"efficiency": cost(1, p50, spread), "baseline_efficiency": cost(9, 2.0)}
        return named(signatures(clean, small_plan, **given))

    assert look(3.0)["slower"].severity == "warning" and "1.5 times" in look(3.0)["slower"].sentence
    assert look(3.0, 0.4)["slower"].severity == "note"
    assert "slower" not in look(2.1)


def test_an_older_instruction_set(audited: Callable[[str], Plan], small_plan: Plan) -> None:
    plan = audited("int8-static:calibrator=max")

    def look(held: Capped | None) -> Signature:
        return named(signatures(plan, small_plan, capped=held, agreement=0.99))["instruction-set"]

    broken = look(Capped(0.95, 1.9, 256))
    assert broken.severity == "error" and "reduce_range=true cannot saturate: use it." in broken.sentence
    assert look(Capped(0.995, 0.1, 256)).severity == "note"
    unknown = look(Capped(None, None, 0, "openvino is not installed"))
    assert unknown.severity == "warning" and "not measured: openvino is not installed" in unknown.sentence
    assert look(None).severity == "warning"


def test_the_gravest_comes_first_and_all_is_plain_data(clean: Plan, small_plan: Plan, int8_file: Variant) -> None:
    truth = [i % 4 for i in range(100)]
    found = signatures(
        clean, small_plan, predictions=answers([2] * 99 + [0], truth), efficiency=cost(1, 3.0),
        baseline_efficiency=cost(9, 2.0), executed=Executed({"int8": 7, "float32": 1}, {"Gemm": 1}),
    )  # fmt: skip
    assert [one.code for one in found] == ["single-class-collapse", "float-layers", "slower"]
    assert [one.severity for one in found] == ["error", "warning", "warning"]
    plain = [told(one) for one in found]
    assert json.loads(json.dumps(plain)) == plain
    assert all(row["title"] == TITLES[row["code"]] and row["sentence"].endswith(".") for row in plain)


def test_every_signature_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    for code in TITLES:
        assert f"`{code}`" in page, code
