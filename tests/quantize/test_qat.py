"""Quantization-aware training as a whole: it loses nothing at 8 bits, wins below, goes on after a kill, ships."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from quantward.core.values import Dataset, FloatArray, Fold, Model, Plan
from quantward.graph.capture import capture
from quantward.graph.simulate import simulate
from quantward.graph.stored import stored_weight
from quantward.quantize._learned import Learned
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
def losses(stripes: Dataset, pixels: Any, fold: Fold) -> Callable[[Plan], FloatArray]:
    """Cross-entropy of a simulated Plan on each test image."""

    def measured(plan: Plan) -> FloatArray:
        truth = torch.from_numpy(stripes.labels[fold.test])
        with torch.inference_mode():
            logits = simulate(plan).eval()(torch.from_numpy(normalise(pixels[fold.test], plan.preprocess)))
            return torch.nn.functional.cross_entropy(logits, truth, reduction="none").numpy()

    return measured


@pytest.fixture(scope="module")
def loss(losses: Callable[[Plan], FloatArray]) -> Callable[[Plan], float]:
    """Their mean."""
    return lambda plan: float(losses(plan).mean())


def least(differences: FloatArray, errors: float) -> float:
    """The mean of paired differences less some standard errors of it."""
    return float(differences.mean() - errors * differences.std(ddof=1) / len(differences) ** 0.5)


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
        ("weights=2,activations=4,ends=3,depthwise=2", "epochs=4"),
        ("weights=2,activations=2,ends=2,depthwise=2", "epochs=4"),
        ("weights=2,activations=2,ends=2,depthwise=2", "epochs=3,method=pact"),
        ("weights=2,activations=2,ends=2,depthwise=2", "epochs=6,via=4"),
    ],
)
def test_few_bits_are_learned(
    bits: str, options: str, parent: Plan, lend: Lend, losses: Callable[[Plan], FloatArray]
) -> None:
    """Where the best rounding without training does harm beyond chance, training takes away at least half of the harm,
    and that beyond chance too. (At 3 bits and more, rounding layer by layer loses nothing on this network.)"""
    whole, rounded = losses(parent), losses(plan_with(f"low-bit:{bits}", parent, lend()))
    plan = plan_with(f"qat:{bits},{options},{SHORT}", parent, lend())
    trained = losses(plan)
    assert least(rounded - whole, 3) > 0, "rounding does no harm here: the case shows nothing"
    assert least(rounded - trained, 2) > 0
    assert (trained - whole).mean() < (rounded - whole).mean() / 2
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


def same_bits(first: Plan, second: Plan) -> None:
    assert first.weights.keys() == second.weights.keys()
    for name, array in first.weights.items():
        np.testing.assert_array_equal(array, second.weights[name])
    for name, spec in first.tensors.items():
        np.testing.assert_array_equal(spec.scale, second.tensors[name].scale)


@pytest.mark.parametrize(
    ("options", "lesson"), [("", ""), (",method=pact", "saliency:threshold=adaptive,sparsity=0.001")]
)
def test_a_killed_training_goes_on_and_ends_with_the_same_bits(
    options: str, lesson: str, parent: Plan, lend: Lend, tmp_path: Path
) -> None:
    """With an adaptive threshold the hidden pixels depend on all batches before, in the second epoch too."""
    recipe = f"qat:weights=4,activations=4,epochs=2,batch=48,augment=none{options}"
    epochs = []

    def kill(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        epochs.append(label)
        for number, item in enumerate(items):
            if len(epochs) == 2 and number == 2:
                raise Killed
            yield item

    whole = plan_with(recipe, parent, lend(tmp_path / "whole", lesson=lesson))
    with pytest.raises(Killed):
        plan_with(recipe, parent, lend(tmp_path / "killed", lesson=lesson, track=kill))
    resumed: list[str] = []

    def watch(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        resumed.append(label)
        yield from items

    again = plan_with(recipe, parent, lend(tmp_path / "killed", lesson=lesson, track=watch))
    assert len(resumed) == 1, "the first epoch was trained again"
    same_bits(again, whole)
    assert _course(again) == _course(whole), "whichever epoch was kept, both went the same way"


def _course(plan: Plan) -> list[dict[str, float]]:
    """The figures of every epoch of the last stage, without the time it took."""
    rows = plan.notes["training"]["stages"][-1]["epochs"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


LESSONS = {"": {"loss"}, "saliency:masked=0.3": {"loss", "consistency"}, "fit:focal=2.0": {"loss"}}


@pytest.mark.parametrize("lesson", LESSONS)
def test_pact_takes_any_lesson_beside_any_share_of_the_teacher(lesson: str, parent: Plan, lend: Lend) -> None:
    """What is logged is what is minimised: the lesson's terms weigh 1 - distill."""
    first: dict[float, Mapping[str, float]] = {}
    for share in (0.0, 0.5):
        recipe = f"qat:method=pact,epochs=1,batch=192,augment=none,distill={share}"
        plan = plan_with(recipe, parent, lend(lesson=lesson))
        told = plan.notes["training"]
        first[share] = {k[6:]: v for k, v in told["stages"][0]["epochs"][0].items() if k.startswith("train_")}
        assert first[share].keys() == {*LESSONS[lesson], "clip", *(["distill"] if share else [])}
        assert told.get("lesson", "") == lesson and plan.recipe.endswith(lesson)
    # One batch an epoch: both were measured before the first step.
    for name in LESSONS[lesson]:
        assert first[0.5][name] == pytest.approx(first[0.0][name] / 2, rel=1e-5)


def test_lessons_lead_to_different_networks(parent: Plan, lend: Lend) -> None:
    recipe = "qat:method=pact,weights=4,activations=4,epochs=1,batch=48,augment=none,distill=0"
    plans = [plan_with(recipe, parent, lend(lesson=lesson)) for lesson in ("", "fit", *list(LESSONS)[1:])]
    same_bits(plans[0], plans[1])  # plain cross-entropy by either way
    weights = [np.concatenate([array.ravel() for array in plan.weights.values()]) for plan in plans[1:]]
    assert all(np.abs(weights[0] - other).max() > 0 for other in weights[1:])


@pytest.mark.parametrize(("lesson", "forwards"), [("", 1), ("saliency:masked=0.3", 2)])
def test_statistics_stand_still_from_the_same_step_on(
    lesson: str, forwards: int, parent: Plan, lend: Lend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden images do not count as steps: `freeze` is a share of the training, whatever a lesson asks the network."""
    made: list[Learned] = []
    plain = Learned.__init__

    def note(self: Learned, *given: Any, **named: Any) -> None:
        plain(self, *given, **named)
        made.append(self)

    monkeypatch.setattr(Learned, "__init__", note)
    plan_with("qat:weights=4,epochs=1,batch=48,augment=none,freeze=0.5", parent, lend(lesson=lesson))
    assert made[0].freeze_at == 2 * forwards and int(made[0].get_buffer("seen")) == 4 * forwards


def test_the_teacher_is_asked_about_the_whole_image(parent: Plan, lend: Lend) -> None:
    """The FP32 network and its rounded self are compared on the same inputs: at 8 bits they say nearly the same."""
    plan = plan_with("qat:epochs=1,batch=192,augment=none", parent, lend(lesson="saliency:masked=0.9"))
    assert plan.notes["training"]["stages"][0]["epochs"][0]["train_distill"] < 0.01


def test_a_lesson_needs_a_share_of_the_loss(parent: Plan, lend: Lend) -> None:
    with pytest.raises(UsageError, match="distill below 1"):
        plan_with("qat:distill=1", parent, lend(lesson="saliency"))


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
