"""Where the time goes: spans that sum to the whole, layers that are all named, and bits that watching leaves alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from train_world import tiny
from typer.testing import CliRunner

from quantward.cli import app
from quantward.train import STAGES, profiled
from quantward.train.batches import Images
from quantward.train.layers import LayerTimes, _add, kind_of, look_into
from quantward.train.profile import Profile
from quantward.train.spans import LOOKED, span, watching
from quantward.train.spans import step as watched_step

FIT = "fit:epochs=3,batch=8,lr=0.01,precision=32"


def trained(images: Images, spelled: str, folder: Path | None = None) -> nn.Module:
    net = tiny()
    STAGES.make(spelled).run(net, images, seed=1, folder=folder)
    return net


def test_every_part_of_a_training_has_its_time_and_they_sum_to_the_whole(images: Images, tmp_path: Path) -> None:
    with profiled(tmp_path) as seen:
        trained(images, FIT, tmp_path)
    found = seen.profile
    assert {row.part for row in found.parts} == {"data", "augment", "forward", "loss", "backward", "optimizer",
                                                 "validation", "checkpoint", "other"}  # fmt: skip
    assert all(row.seconds > 0 for row in found.parts)
    assert sum(row.share for row in found.parts) == pytest.approx(1)
    assert sum(row.seconds for row in found.parts) == pytest.approx(found.seconds)
    # 48 images in batches of 8, three epochs; the first step and those that are looked into are not timed.
    assert found.steps == 18 - LOOKED.stop and found.images == 8 * found.steps and found.looked_into == len(LOOKED)
    assert found.images_per_second is not None and found.images_per_second > found.images / found.seconds
    told = json.loads((tmp_path / "profile.json").read_text())
    assert told["steps"] == found.steps and told["machine"]["cores"] >= 1
    assert [row["part"] for row in told["parts"]] == [row.part for row in found.parts]
    text = "\n".join(found.lines())
    assert "images a second in training (14 steps" in text and "Dropout2d" in text


def test_watching_changes_no_bit(images: Images) -> None:
    plain = trained(images, FIT).state_dict()
    with profiled():
        watched = trained(images, FIT).state_dict()
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_every_layer_is_named_and_counted_forward_and_backward(images: Images) -> None:
    with profiled() as seen:
        trained(images, FIT)
    rows = {row.layer: row for row in seen.profile.layers}
    assert {"Conv2d", "BatchNorm2d", "ReLU6", "Dropout2d", "Linear", "loss"} <= set(rows)
    for name in ("Conv2d", "BatchNorm2d", "ReLU6", "Linear"):
        assert rows[name].calls == 1 and rows[name].forward_ms > 0 and rows[name].backward_ms > 0, name
    assert sum(row.share for row in rows.values()) == pytest.approx(1)
    assert [row.share for row in seen.profile.layers] == sorted((row.share for row in rows.values()), reverse=True)


def test_a_step_with_second_derivatives_gives_them_to_the_layers(images: Images) -> None:
    with profiled() as seen:
        trained(images, "saliency:sparsity=0.01,masked=0,epochs=2,batch=8,precision=32")
    rows = {row.layer: row for row in seen.profile.layers}
    assert rows["Conv2d"].backward_ms > 0 and rows["Linear"].backward_ms > 0
    assert {"saliency", "loss"} <= {row.part for row in seen.profile.parts}
    assert sum(row.share for name, row in rows.items() if name == "no layer's own") < 0.5


class Waits(torch.autograd.Function):
    """A layer that takes ten milliseconds forward and thirty back: a clock to set the profiler by."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> torch.Tensor:
        time.sleep(0.03)
        return slopes[0]


class Slow(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return Waits.apply(inputs)  # type: ignore[no-any-return,no-untyped-call]


def test_the_slow_layer_is_the_one_that_is_slow() -> None:
    """A layer within a layer counts once; time that passes in its derivative is its own."""

    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.inner = nn.Parameter(torch.ones(1)), Slow()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.inner(inputs * self.scale)
            return made

    net, times, inputs = nn.Sequential(nn.Linear(4, 4), Holds()), LayerTimes(), torch.ones(2, 4)
    with watching(), look_into(net, times):
        with span("loss"), span("forward"):
            made = net(inputs) + 1
        made.sum().backward()
    assert times.steps == 1 and times.calls == {"Linear": 1, "Holds": 1, "Slow": 1, "add": 1}
    assert times.forward["Slow"] >= 0.01 and times.backward["Slow"] >= 0.03


def event(name: str, ms: float, above: Any = None, number: int = -1, start: float = 0) -> Any:
    """What torch's profiler tells of one event, as far as it is read."""
    return SimpleNamespace(name=name, cpu_parent=above, sequence_nr=number, cpu_time_total=1e3 * ms,
                           time_range=SimpleNamespace(start=start))  # fmt: skip


def test_times_are_shared_out_as_the_events_say() -> None:
    loss = event("span::loss", 100, start=1)
    ahead = event("span::forward", 60, loss, start=2)
    outer = event("layer::Norm", 40, ahead, start=3)
    counted = event("aten::add_", 1, outer, number=7, start=4)
    norm = event("aten::batch_norm", 20, outer, number=7, start=5)
    inner = event("layer::ReLU", 15, outer, start=6)
    relu = event("aten::relu", 14, inner, number=8, start=7)
    added = event("aten::add", 20, ahead, number=9, start=8)
    slope = event("autograd::engine::evaluate_function: Relu", 5, loss, number=8, start=9)
    second = event("aten::mul", 2, slope, number=10, start=10)
    last = [event(f"autograd::engine::evaluate_function: {n}", n, number=n, start=20 + n) for n in (7, 8, 9, 10, 99)]
    times = LayerTimes()
    _add([*last, second, slope, added, relu, inner, norm, counted, outer, ahead, loss], times, cuda=False)
    assert {name: round(1e3 * s, 6) for name, s in times.forward.items()} == {"Norm": 25, "ReLU": 15, "add": 20}
    assert {name: round(1e3 * s, 6) for name, s in times.backward.items()} == {
        "Norm": 7, "ReLU": 5 + 8 + 10, "add": 9, "no layer's own": 99}  # fmt: skip
    assert times.calls == {"Norm": 1, "ReLU": 1, "add": 1}


def test_a_span_keeps_what_is_its_own_and_a_whole_one_keeps_all() -> None:
    with watching() as watch:
        watch.seen = LOOKED.stop
        with span("outer"):
            with span("inner"):
                time.sleep(0.02)
            time.sleep(0.01)
        with span("judged", whole=True), span("forward"):
            time.sleep(0.01)
    assert watch.seconds["inner"] >= 0.02 and watch.seconds["outer"] >= 0.01 and watch.seconds["judged"] >= 0.01
    assert "forward" not in watch.seconds and watch.inside == [] and watch.whole == 0
    with span("nobody watches"), watched_step(tiny(), 1):
        pass
    assert "nobody watches" not in watch.seconds


def test_too_few_steps_are_said_to_be_too_few(images: Images, tmp_path: Path) -> None:
    with profiled(tmp_path) as nothing:
        pass
    assert nothing.profile == Profile(device=nothing.profile.device, threads=nothing.profile.threads)
    assert nothing.profile.lines()[0].startswith("Nothing to profile") and not (tmp_path / "profile.json").exists()
    with profiled() as few:
        trained(images, "fit:epochs=1,batch=24,precision=32")
    assert few.profile.steps == 0 and few.profile.images_per_second is None and few.profile.layers
    assert few.profile.lines()[0].startswith("Fewer than 5 steps")


def test_kinds_are_told_apart() -> None:
    assert kind_of(nn.Conv2d(3, 8, 3)) == "Conv2d" and kind_of(nn.Conv2d(8, 16, 3, groups=8)) == "Conv2d depthwise"
    assert kind_of(nn.Conv2d(8, 8, 3, groups=2)) == "Conv2d" and kind_of(nn.GELU()) == "GELU"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    from quantward.data.toy import make_toy

    return make_toy(tmp_path / "toy", n=120, classes=2, size=(40, 48))


def test_the_verb_prints_and_keeps_the_profile(toy: Path, tmp_path: Path) -> None:
    given = ["train", str(toy), "--out", str(tmp_path / "run"), "--arch", "test_resnet", "--weights", "none",
             "--size", "32", "--stage", "fit:epochs=2,batch=6", "--profile"]  # fmt: skip
    told = CliRunner().invoke(app, given)
    assert told.exit_code == 0, told.output
    assert all(text in told.stdout for text in ("images a second in training", "Conv2d", "trained test_resnet"))
    assert json.loads((tmp_path / "run" / "profile.json").read_text())["layers"]
    again = CliRunner().invoke(app, [*given, "--json"])
    assert again.exit_code == 0 and json.loads(again.stdout)["profile"]["steps"] == 0
    assert json.loads((tmp_path / "run" / "profile.json").read_text())["layers"]
