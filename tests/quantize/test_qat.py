"""Quantization-aware training as a whole: it loses nothing at 8 bits, wins below, goes on after a kill, ships."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantward import runs
from quantward.core.contracts import Context
from quantward.core.errors import UsageError
from quantward.core.preprocess import normalise
from quantward.core.values import Dataset, Fold, Model, Plan
from quantward.graph.capture import capture
from quantward.graph.simulate import simulate
from quantward.graph.stored import stored_weight
from quantward.quantize.recipes.qat import Qat
from quantward.train import Course, Images, cross_entropy, fit
from quantward.train.augment import augment_named
from quantward.workbench import calibration, lessons, open_session, plan_with, write_with

CLASSES = ("0", "45", "90", "135")
ROLES = {"train": 192, "tune": 64, "calibrate": 32, "select": 0, "test": 192}


@pytest.fixture(scope="module")
def stripes() -> Dataset:
    """Noise with faint stripes in one of four directions: what a net of this size learns in seconds."""
    draw = np.random.default_rng(0)
    labels = np.arange(sum(ROLES.values())) % 4
    y, x = np.mgrid[:32, :32]
    pixels = draw.normal(110, 35, (len(labels), 32, 32, 3))
    for image, label in zip(pixels, labels, strict=True):
        angle = np.pi / 4 * label + draw.normal(0, 0.12)
        wave = np.sin(draw.uniform(0.6, 1.1) * (x * np.cos(angle) + y * np.sin(angle)) + draw.uniform(0, 6.28))
        image += (draw.uniform(14, 30) * wave)[..., None]
    images = np.clip(pixels, 0, 255).astype(np.uint8)
    names = tuple(str(i) for i in range(len(labels)))
    return Dataset("stripes", CLASSES, names, labels, "stripes", lambda i: images[i])


@pytest.fixture(scope="module")
def pixels(stripes: Dataset) -> Any:
    return np.stack([stripes.read(i) for i in range(len(stripes))])


@pytest.fixture(scope="module")
def fold(stripes: Dataset) -> Fold:
    ends = np.cumsum(list(ROLES.values()))[:-1]
    return Fold(0, 1, 0, stripes.fingerprint, *np.split(np.arange(len(stripes)), ends))


@pytest.fixture(scope="module")
def parent(small_model: Model, stripes: Dataset, pixels: Any, fold: Fold) -> Plan:
    """The small network, trained to see the stripes."""
    model = replace(small_model, net=copy.deepcopy(small_model.net), classes=CLASSES)
    images = Images(pixels, stripes.labels, fold.train, fold.tune, CLASSES, model.preprocess)
    course = Course(epochs=6, batch=16, lr=1e-2, precision="32")
    fit(model.net, images.to_train(16, augment_named("none"), 0), images.to_tune(), course, loss=cross_entropy())
    return capture(model)


Lend = Callable[..., Context]


@pytest.fixture(scope="module")
def lend(stripes: Dataset, pixels: Any, fold: Fold, parent: Plan) -> Lend:
    def context(folder: Path | None = None, **given: Any) -> Context:
        teaching = lessons(stripes, pixels, fold, parent, **given)
        return calibration(pixels, fold, parent.preprocess, fit=teaching, folder=folder)

    return context


@pytest.fixture(scope="module")
def loss(stripes: Dataset, pixels: Any, fold: Fold) -> Callable[[Plan], float]:
    """Cross-entropy of a simulated Plan on the test images."""

    def measured(plan: Plan) -> float:
        with torch.inference_mode():
            logits = simulate(plan).eval()(torch.from_numpy(normalise(pixels[fold.test], plan.preprocess)))
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(stripes.labels[fold.test])))

    return measured


SHORT = "augment=none,batch=16"


def test_eight_bits_lose_nothing_and_the_file_says_the_same(
    parent: Plan, lend: Lend, loss: Callable[[Plan], float], pixels: Any, fold: Fold, tmp_path: Path
) -> None:
    plan = plan_with(f"qat:epochs=1,{SHORT}", parent, lend())
    assert loss(plan) < max(loss(plan_with("int8-static", parent, lend())), loss(parent)) + 0.005
    assert plan.parent == parent.parent and plan.recipe == "qat:epochs=1,batch=16,augment=none"
    session = open_session(write_with("onnx-cpu", plan, tmp_path), "onnxruntime", 1)
    inputs = normalise(pixels[fold.test], plan.preprocess)
    with torch.inference_mode():
        simulated = simulate(plan).eval()(torch.from_numpy(inputs)).numpy()
    deployed = session(inputs)
    assert (simulated.argmax(1) == deployed.argmax(1)).mean() > 0.99
    assert np.abs(simulated - deployed).max() < 0.25 and np.abs(simulated - deployed).mean() < 0.02


@pytest.mark.parametrize(
    ("bits", "options"),
    [
        ("weights=3,activations=3,ends=4,depthwise=3", "epochs=4"),
        ("weights=2,activations=2,ends=4,depthwise=3", "epochs=4"),
        ("weights=2,activations=2,ends=4,depthwise=3", "epochs=3,method=pact"),
        ("weights=2,activations=2,ends=4,depthwise=3", "epochs=4,via=4"),
    ],
)
def test_few_bits_are_learned(bits: str, options: str, parent: Plan, lend: Lend, loss: Callable[[Plan], float]) -> None:
    """At least half of what the best rounding without training adds to the loss is gone."""
    rounded = loss(plan_with(f"low-bit:{bits}", parent, lend())) - loss(parent)
    plan = plan_with(f"qat:{bits},{options},{SHORT}", parent, lend())
    assert rounded > 0.003
    assert loss(plan) - loss(parent) < rounded / 2
    for name, spec in plan.tensors.items():
        if spec.kind == "weight":
            np.testing.assert_array_equal(stored_weight(plan.weights[name], spec), plan.weights[name])
    told = plan.notes["training"]
    assert [stage["weights"] for stage in told["stages"]] == ([4, 2] if "via" in options else [int(bits[8])])
    scales = told["scales"]["activations"].values()
    assert any(abs(s["learned"] / s["calibrated"] - 1) > 0.01 for s in scales)
    if "pact" in options:
        assert all(row["train_clip"] > 0 for row in told["stages"][0]["epochs"])


class Killed(Exception):
    """What a test does to a training."""


def test_a_killed_training_goes_on_and_ends_with_the_same_bits(parent: Plan, lend: Lend, tmp_path: Path) -> None:
    recipe = f"qat:weights=4,activations=4,epochs=2,{SHORT}"
    epochs = []

    def kill(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        epochs.append(label)
        for number, item in enumerate(items):
            if len(epochs) == 2 and number == 3:
                raise Killed
            yield item

    whole = plan_with(recipe, parent, lend(tmp_path / "whole"))
    with pytest.raises(Killed):
        plan_with(recipe, parent, lend(tmp_path / "killed", track=kill))
    resumed: list[str] = []

    def watch(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        resumed.append(label)
        yield from items

    again = plan_with(recipe, parent, lend(tmp_path / "killed", track=watch))
    assert len(resumed) == 1, "the first epoch was trained again"
    assert again.weights.keys() == whole.weights.keys()
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(array, again.weights[name])
    for name, spec in whole.tensors.items():
        np.testing.assert_array_equal(spec.scale, again.tensors[name].scale)


def test_a_run_is_trained_once_and_written_often(
    parent: Plan, stripes: Dataset, pixels: Any, fold: Fold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = runs.Run(parent, stripes, fold, (), {})
    monkeypatch.setattr(runs, "open_run", lambda *given, **named: opened)
    monkeypatch.setattr(runs, "cached", lambda *given: pixels)
    labels: list[str] = []

    def watch(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        labels.append(label)
        yield from items

    def make(folder: str) -> str:
        recipe = "qat:epochs=1,batch=64,augment=none"
        return runs.quantize_run(tmp_path, recipe, "onnx-cpu", tmp_path, tmp_path / folder, track=watch).sha256

    first = make("first")
    assert sum(label.startswith("epoch") for label in labels) == 1
    labels.clear()
    assert make("second") == first and not labels
    assert not list(tmp_path.rglob("checkpoint")), "the state of a finished training was left behind"


def test_without_images_to_train_on_it_says_so(parent: Plan, context: Context) -> None:
    with pytest.raises(UsageError, match="images to train on"):
        plan_with("qat", parent, replace(context, fit=None))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"weights": 1}, "weights of 2 to 8"),
        ({"activations": 9}, "activations of 2 to 8"),
        ({"distill": 1.5}, "distill of 0 to 1"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"freeze": -0.1}, "freeze of 0 to 1"),
        ({"epochs": 0}, "epochs above 0"),
        ({"lr": -1.0}, "lr above 0"),
        ({"weights": 4, "via": 4, "activations": 4}, "via of more bits"),
        ({"norm": "live", "per_channel": False}, "per_channel=true"),
    ],
)
def test_what_does_not_fit_together_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        Qat(**options)
    assert str(caught.value).count(". ") == 1


def test_the_teacher_weighs_as_asked(parent: Plan, lend: Lend) -> None:
    """With distill=1 the labels are not looked at, with 0 the teacher is not."""
    for share, terms in ((0.0, {"train_loss"}), (1.0, {"train_distill"}), (0.5, {"train_loss", "train_distill"})):
        plan = plan_with(f"qat:epochs=1,batch=64,augment=none,distill={share}", parent, lend())
        row = plan.notes["training"]["stages"][0]["epochs"][0]
        assert {name for name in row if name.startswith("train_")} == terms
