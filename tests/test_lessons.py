"""What a training stage teaches, under quantization: who may be given it, who may teach it, and what is kept apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from quantward import __version__, runs
from quantward import find as finding
from quantward.candidates import Search, Step, Work, make
from quantward.cli import app
from quantward.core.errors import Refused, UsageError
from quantward.core.progress import silent
from quantward.core.store import digest_text
from quantward.core.values import Dataset, Fold, ImageArray, Plan
from quantward.evaluate import read_gates
from quantward.train import STAGES, train_model
from quantward.workbench import Lessons, calibration, lessons, plan_with

GUIDED = "saliency:masked=0.3"
SHORT = "qat:epochs=1,batch=32,augment=none"


@pytest.fixture(scope="module")
def pixels() -> ImageArray:
    return np.random.default_rng(0).integers(0, 256, (48, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def noise(pixels: ImageArray, small_plan: Plan) -> Dataset:
    names = tuple(map(str, range(48)))
    return Dataset("noise", small_plan.classes, names, np.arange(48) % 4, "print", lambda i: pixels[i])


@pytest.fixture(scope="module")
def fold() -> Fold:
    return Fold(0, 2, 0, "print", *np.split(np.arange(48), (32, 40, 44, 46)))


@pytest.fixture(scope="module")
def teacher(noise: Dataset, fold: Fold, pixels: ImageArray, small_plan: Plan, tmp_path_factory: Any) -> Path:
    """A RUN on the training images of the fold."""
    folder: Path = tmp_path_factory.mktemp("teacher")
    train_model(noise, fold, pixels, arch="test_resnet", weights="none", stage=STAGES.make("fit:epochs=1,precision=32"),
                preprocess=small_plan.preprocess, folder=folder)  # fmt: skip
    return folder


Teach = Callable[..., Lessons]


@pytest.fixture
def teach(noise: Dataset, pixels: ImageArray, fold: Fold, small_plan: Plan) -> Teach:
    def lend(lesson: str, fold: Fold = fold) -> Lessons:
        return lessons(noise, pixels, fold, small_plan, lesson=lesson)

    return lend


@pytest.fixture
def planned(
    noise: Dataset, fold: Fold, pixels: ImageArray, small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Plan]:
    """`runs.plan_run` on a RUN in `tmp_path` that is open already."""
    opened = runs.Run(small_plan, noise, fold, (), {})
    monkeypatch.setattr(runs, "open_run", lambda *given, **named: opened)
    monkeypatch.setattr(runs, "cached", lambda *given: pixels)
    return lambda recipe, **given: runs.plan_run(tmp_path, recipe, tmp_path, **given)


def test_a_lesson_is_named_with_what_it_depends_on(teach: Teach, teacher: Path) -> None:
    assert teach("").taught == {} and teach("").lesson() is None
    assert teach("saliency:masked=0.5").taught == {"lesson": "saliency"}, "options at their default are left out"
    told = teach(f"distill:teacher={teacher}").taught
    assert told["lesson"] == f"distill:teacher={teacher}"
    assert told["teacher"]["arch"] == "test_resnet" and len(told["teacher"]["sha256"]) == 64


def test_a_teacher_of_another_fold_is_refused_before_anything_trains(teach: Teach, fold: Fold, teacher: Path) -> None:
    moved = replace(fold, train=fold.train[4:], test=np.concatenate((fold.test, fold.train[:4])))
    with pytest.raises(Refused, match="among them test images of this run"):
        teach(f"distill:teacher={teacher}", moved)


def test_a_teacher_of_the_same_fold_teaches_beside_the_fp32_network(
    teach: Teach, teacher: Path, small_plan: Plan, pixels: ImageArray, fold: Fold
) -> None:
    lent = calibration(pixels, fold, small_plan.preprocess, fit=teach(f"distill:teacher={teacher},alpha=0.5"))
    plan = plan_with(SHORT, small_plan, lent)
    told = plan.notes["training"]
    assert told["teacher"]["arch"] == "test_resnet" and plan.recipe.endswith(told["lesson"])
    assert {"train_loss", "train_distill", "train_distill_fp32"} <= told["stages"][0]["epochs"][0].keys()


def test_rare_classes_come_as_often_as_the_lesson_asks(teach: Teach, monkeypatch: pytest.MonkeyPatch) -> None:
    import quantward.train

    seen: list[Any] = []
    monkeypatch.setattr(
        quantward.train, "fit", lambda net, batches, *given, **named: seen.append(batches), raising=False
    )
    asked: dict[str, Any] = {"groups": (), "epochs": 1, "batch": 8, "lr": 0.1, "patience": 1, "augment": "none"}
    for lesson in ("", "fit", "fit:sampling=balanced"):
        teach(lesson)(None, print, folder=None, arguments={}, **asked)
    assert [batches.balance for batches in seen] == [False, False, True]


@pytest.mark.parametrize("option", ["epochs=5", "lr=1e-3", "head=sigmoid", "augment=light", "preset=anemia-ptq"])
def test_what_the_recipe_decides_is_no_part_of_a_lesson(option: str, teach: Teach) -> None:
    with pytest.raises(UsageError, match=f"got {option.partition('=')[0]}, which") as caught:
        teach(f"saliency:{option}")
    assert str(caught.value).count(". ") == 1


def test_a_run_trains_once_for_each_lesson_and_finds_what_it_trained_before(
    planned: Callable[..., Plan], small_plan: Plan, tmp_path: Path
) -> None:
    first = planned(SHORT)
    (own,) = (tmp_path / "trained").iterdir()
    before = digest_text(first.recipe, small_plan.parent, "print", "0", __version__)[:16]
    assert own.name == before, "the folder of a training without a lesson must not move"
    guided = planned(SHORT, lesson=GUIDED)
    assert guided.recipe == f"{first.recipe} + {GUIDED}" and guided.notes["training"]["lesson"] == GUIDED
    assert any(np.any(guided.weights[name] != array) for name, array in first.weights.items())
    assert len(list((tmp_path / "trained").iterdir())) == 2

    def none(items: Any, label: str, total: int | None = None) -> Any:
        assert not label.startswith("epoch"), "trained again"
        return items

    again = planned(SHORT, lesson=GUIDED, track=none)
    assert all(np.array_equal(again.weights[name], array) for name, array in guided.weights.items())
    assert planned(SHORT, track=none).recipe == first.recipe


@pytest.mark.parametrize("recipe", ["int8-static", "fp16", "low-bit:weights=4"])
def test_only_recipes_that_train_take_a_lesson(recipe: str, planned: Callable[..., Plan], tmp_path: Path) -> None:
    for ask in (
        lambda: planned(recipe, lesson=GUIDED),
        lambda: runs.plan_file(tmp_path / "any.onnx", recipe, tmp_path, lesson=GUIDED),
        lambda: Search(read_gates("clinical"), ladder=(Step(recipe, (recipe,)),), lesson=GUIDED),
    ):
        with pytest.raises(UsageError, match=f"a recipe that trains .* got {recipe}") as caught:
            ask()
        assert str(caught.value).count(". ") == 1 and "qat" in str(caught.value)


def test_a_search_keeps_lessons_apart_and_shares_the_rest(
    noise: Dataset, fold: Fold, pixels: ImageArray, small_plan: Plan, teach: Teach, tmp_path: Path
) -> None:
    ladder = (Step("INT8", ("int8-static", SHORT)),)
    plans: dict[str, set[Path]] = {"int8-static": set(), SHORT: set()}
    files: dict[str, set[str]] = {"int8-static": set(), SHORT: set()}
    for lesson in ("", GUIDED):
        search = Search(read_gates("clinical"), ladder=ladder, lesson=lesson)
        lent = calibration(pixels, fold, small_plan.preprocess, fit=teach(lesson), folder=tmp_path / "trained")
        work = Work(search, noise, fold, pixels, tmp_path, silent, lent)
        for recipe in plans:
            for _ in range(2):
                made = make(work, recipe, small_plan)
                plans[recipe].add(made.plan)
                files[recipe].add(made.variant.path.name)
    assert len(plans["int8-static"]) == len(files["int8-static"]) == 1
    assert len(plans[SHORT]) == len(files[SHORT]) == 2


def test_the_search_lends_its_lesson(
    noise: Dataset, fold: Fold, pixels: ImageArray, small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def note(*given: Any, lesson: str, **named: Any) -> Any:
        asked.append(lesson)
        raise Refused("enough")

    monkeypatch.setattr(finding, "cached", lambda *given: pixels)
    monkeypatch.setattr(finding, "lessons", note)
    search = Search(read_gates("clinical"), ladder=(Step("QAT", (SHORT,)),), lesson=GUIDED)
    with pytest.raises(Refused, match="enough"):
        finding.find(small_plan, noise, fold, search, tmp_path)
    assert asked == [GUIDED]


def test_both_verbs_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def written(*given: Any, lesson: str, **named: Any) -> Any:
        seen.append(lesson)
        raise Refused("enough")

    monkeypatch.setattr(runs, "quantize_run", written)
    monkeypatch.setattr(finding, "search_run", lambda run, data, search, *given, **named: written(lesson=search.lesson))
    quantize = ["quantize", str(tmp_path), "--recipe", SHORT, "--data", str(tmp_path)]
    search = ["find", str(tmp_path), str(tmp_path), "--recipe", SHORT]
    for line in (quantize, search):
        for more in ([], ["--lesson", GUIDED]):
            assert isinstance(CliRunner().invoke(app, [*line, *more]).exception, Refused)
    assert seen == ["", GUIDED, "", GUIDED]
    fault = CliRunner().invoke(app, ["find", str(tmp_path), str(tmp_path), "--lesson", GUIDED]).exception
    assert isinstance(fault, UsageError) and "got fp16, int8-dynamic" in str(fault)
