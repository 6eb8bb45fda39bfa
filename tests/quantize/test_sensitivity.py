"""Both rankings of layers against plain witnesses: the whole network simulated anew, scipy, a killed run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quantward.core.contracts import Batch, Context
from quantward.core.errors import Refused, UsageError
from quantward.core.values import Model, Plan, Preprocess, QuantSpec
from quantward.graph.capture import capture
from quantward.graph.network import Network
from quantward.graph.simulate import simulate
from quantward.graph.walk import input_key, layers, weight_of
from quantward.quantize import _fisher, _sensitivity
from quantward.quantize._knapsack import Front
from quantward.quantize._sensitivity import Sensitivity, sensitivity, solve, spearman, table_of
from quantward.quantize._specs import weight_spec
from quantward.quantize._static import Bits, Static
from quantward.quantize._stretch import Stretch, live
from quantward.quantize._trials import prepare, widths

OFFER = widths(("w8a8", "w4a8"))
NEAREST = Static()
BARE = Static(equalise=0.0, correct=False)


@pytest.fixture(scope="module")
def own_context(images: Batch) -> Context:
    def lend(n: int | None) -> Iterator[Batch]:
        chosen = images if n is None else images[:n]
        yield from (chosen[i : i + 16] for i in range(0, len(chosen), 16))

    return Context(images=lend)


@pytest.fixture(scope="module")
def batches(images: Batch) -> list[Batch]:
    return [images[:16], images[16:24]]


@pytest.fixture(scope="module")
def found(small_plan: Plan, own_context: Context, batches: list[Batch]) -> Sensitivity:
    labels = np.zeros(24, np.int64)
    return sensitivity(small_plan, own_context, OFFER, NEAREST, batches, labels=labels)


@pytest.mark.parametrize("position", [1, 2, 5, 9, -1])
def test_a_program_in_two_parts_computes_what_it_did(small_plan: Plan, images: Batch, position: int) -> None:
    stop = len(small_plan.program)
    cut = position % stop
    whole = Network(small_plan)(torch.from_numpy(images[:4]))
    first = Stretch(small_plan, 0, cut)({"input": torch.from_numpy(images[:4])})
    assert list(first) == live(small_plan.program, cut)
    assert torch.equal(Stretch(small_plan, cut, stop)(first)["output"], whole)


def test_measured_divergence_is_that_of_the_whole_network_simulated(
    small_plan: Plan, own_context: Context, batches: list[Batch]
) -> None:
    offer = widths(("w8a8", "w4a8", "w3a4"))
    rows = sensitivity(small_plan, own_context, offer, BARE, batches)
    ground = prepare(small_plan, own_context, offer, BARE)
    images = torch.from_numpy(np.concatenate(batches))
    with torch.no_grad():
        base = Network(small_plan)(images).double().numpy()
        for layer in layers(small_plan.program):
            weight = weight_of(layer)
            for bits in offer:
                specs: dict[str, QuantSpec] = {weight: weight_spec(small_plan.weights[weight], bits.weights)}
                if layer.name in ground.sources[bits.activations]:
                    specs[input_key(layer.name)] = ground.sources[bits.activations][layer.name]
                got = simulate(replace(small_plan, tensors=specs))(images).double().numpy()
                (row,) = [r for r in rows.at(bits) if r.layer == layer.name]
                p, q = stats_softmax(base), stats_softmax(got)
                assert row.divergence == pytest.approx(float((p * np.log(p / q)).sum(1).mean()), rel=1e-3, abs=1e-9)
                assert row.changed == pytest.approx(float((base.argmax(1) != got.argmax(1)).mean()))


def stats_softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_estimate_is_the_divergence_where_errors_are_small(found: Sensitivity) -> None:
    for row in found.at(Bits(8, 8)):
        assert row.divergence is not None and row.divergence > 0
        assert row.fisher == pytest.approx(row.divergence, rel=0.35, abs=1e-8), row.layer


def test_patches_moved_into_the_batch_still_belong_to_their_image(own_context: Context, batches: list[Batch]) -> None:
    class Patches(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 8, 8)
            self.mix = torch.nn.Linear(8, 8)
            self.head = torch.nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.stem(x).flatten(2).transpose(1, 2).reshape(4 * x.shape[0], 4, 8)  # four windows for each image
            y = torch.relu(self.mix(y)).reshape(x.shape[0], 16, 8).mean(1)
            out: torch.Tensor = self.head(y)
            return out

    torch.manual_seed(0)
    plan = capture(Model("patches", Patches().eval(), Preprocess(size=32, resize=32), tuple("abcd")))
    for row in sensitivity(plan, own_context, OFFER, NEAREST, batches).costs:
        assert row.fisher == pytest.approx(row.divergence, rel=0.35, abs=1e-8), row.layer


def test_rankings_agree_and_say_over_how_many_layers(found: Sensitivity, small_plan: Plan) -> None:
    for row in found.correlations:
        assert row.n == len(layers(small_plan.program))
        assert row.value is not None and row.value > 0.8
        if row.value == 1.0:
            assert row.low is None, "no interval can be told from perfect order"
        else:
            assert row.low is not None and row.high is not None and row.low < row.value < row.high


def test_accuracy_changes_with_the_labels_that_were_given(found: Sensitivity) -> None:
    assert all(row.accuracy is not None and abs(row.accuracy) <= (row.changed or 0) + 1e-9 for row in found.costs)


@pytest.mark.parametrize("block", [0, 1])
def test_a_layer_made_fragile_comes_out_on_top(
    small_plan: Plan, own_context: Context, batches: list[Batch], block: int
) -> None:
    """One huge weight a filter takes the grid of all others; the channel it reads is dead, so nothing else changes."""
    weights, name = dict(small_plan.weights), f"blocks.{block}.project"
    before, layer = (next(n for n in layers(small_plan.program) if n.name == f"blocks.{block}.{part}")
                     for part in ("depthwise", "project"))  # fmt: skip
    bias = weights[before.args[2]["weight"]].copy()
    depthwise, project = weights[weight_of(before)].copy(), weights[weight_of(layer)].copy()
    bias[0], depthwise[0] = -1.0, 0.0
    project[:, 0] = 40 * np.abs(project).max()
    weights |= {before.args[2]["weight"]: bias, weight_of(before): depthwise, weight_of(layer): project}
    fragile = replace(small_plan, weights=weights, parent=f"fragile {name}")
    rows = sensitivity(fragile, replace(own_context, remembered={}), widths(("w4a8",)), BARE, batches).costs
    assert max(rows, key=lambda row: row.fisher).layer == name
    assert max(rows, key=lambda row: row.divergence or 0).layer == name


def test_correcting_biases_lessens_the_loss(small_plan: Plan, own_context: Context, batches: list[Batch]) -> None:
    offer = widths(("w3a8",))
    with_, without = (
        sensitivity(small_plan, own_context, offer, replace(NEAREST, correct=correct), batches).costs
        for correct in (True, False)
    )
    for kind in ("fisher", "divergence"):
        assert sum(getattr(row, kind) for row in with_) < sum(getattr(row, kind) for row in without)


def test_many_classes_are_drawn_and_give_about_the_same(
    found: Sensitivity, small_plan: Plan, own_context: Context, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fisher, "CLASSES", 3)
    drawn = sensitivity(small_plan, own_context, OFFER, NEAREST, batches, measure=False)
    again = sensitivity(small_plan, own_context, OFFER, NEAREST, batches, measure=False)
    assert drawn == again
    assert drawn.costs != found.costs
    value = spearman([row.fisher for row in drawn.costs], [row.fisher for row in found.costs])
    assert value is not None and value > 0.9


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30))
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    value = spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert value is None
    else:
        assert value == pytest.approx(float(stats.spearmanr(a, b).statistic), abs=1e-12)


def test_a_killed_run_goes_on_where_it_was(
    small_plan: Plan, own_context: Context, batches: list[Batch], tmp_path: Path, found: Sensitivity
) -> None:
    class Killed(Exception):
        pass

    def track(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if label == "one layer at a time" and number == 3:
                raise Killed
            yield item

    def ask(**more: Any) -> Sensitivity:
        labels = np.zeros(24, np.int64)
        return sensitivity(small_plan, own_context, OFFER, NEAREST, batches, labels=labels, folder=tmp_path, **more)

    with pytest.raises(Killed):
        ask(track=track)
    (home,) = tmp_path.iterdir()
    left = {path.name: path.stat().st_mtime_ns for path in home.iterdir()}
    assert set(left) == {"fisher.json", "layer-000.json", "layer-001.json", "layer-002.json"}
    (home / "layer-001.json").write_text("{half")
    assert ask() == found
    assert (home / "layer-002.json").stat().st_mtime_ns == left["layer-002.json"]
    assert sensitivity(small_plan, own_context, OFFER, NEAREST, batches[:1], folder=tmp_path) != found
    assert len(list(tmp_path.iterdir())) == 2, "other images, other folder"


def test_second_run_computes_nothing(
    small_plan: Plan, own_context: Context, batches: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sensitivity(small_plan, own_context, OFFER, NEAREST, batches, folder=tmp_path)

    def never(*_: Any) -> None:
        raise AssertionError("a layer was tried again")

    monkeypatch.setattr(_sensitivity, "try_layer", never)
    assert sensitivity(small_plan, own_context, OFFER, NEAREST, batches, folder=tmp_path) == first


def test_front_falls_from_all_four_bits_to_all_eight(found: Sensitivity) -> None:
    for by in ("fisher", "one-at-a-time"):
        front, names = solve(found, by)  # type: ignore[arg-type]
        assert set(table_of(front, len(front) - 1, names, found.offer).values()) <= {Bits(8, 8), Bits(4, 8)}
        assert set(table_of(front, 0, names, found.offer).values()) == {Bits(4, 8)}
        assert (np.diff(front.bytes) > 0).all() and (np.diff(front.loss) < 0).all()
        rows = {(row.layer, row.bits): row for row in found.costs}
        table = table_of(front, len(front) // 2, names, found.offer)
        spent = sum(rows[name, bits].bytes for name, bits in table.items()) + found.other_bytes
        assert spent == front.bytes[len(front) // 2]


def test_times_bound_the_choice(found: Sensitivity) -> None:
    names = [row.layer for row in found.at(OFFER[0])]
    times = {name: {"w8a8": 2.0, "w4a8": 1.0 + (k % 2)} for k, name in enumerate(names)}
    front, _ = solve(found, "fisher", times)
    limit = 2.0 * len(names) - 2
    point = front.best(float("inf"), limit)
    assert isinstance(front, Front) and point is not None
    assert front.milliseconds[point] <= limit
    assert front.loss[point] > front.loss.min()
    with pytest.raises(Refused, match=r"^Expected milliseconds of .* at w4a8"):
        solve(found, "fisher", {name: {"w8a8": 1.0} for name in names})


def test_a_front_by_what_was_not_measured_is_refused(
    small_plan: Plan, own_context: Context, batches: list[Batch]
) -> None:
    estimated = sensitivity(small_plan, own_context, OFFER, NEAREST, batches[:1], measure=False)
    assert all(row.divergence is None for row in estimated.costs) and estimated.correlations == ()
    with pytest.raises(Refused, match=r"^Expected stem to have been measured"):
        solve(estimated, "one-at-a-time")


@pytest.mark.parametrize("texts", [(), ("w8",), ("w1a8",), ("w8a8", "w8a8"), ("W4A8",)])
def test_widths_that_are_none(texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"^Expected "):
        widths(texts)
