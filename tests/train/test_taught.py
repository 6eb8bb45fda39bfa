"""Distillation: who may teach whom, what the teacher sees and says, cached and live, and that it helps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_world import teacher_of, tiny

from quantward.core.errors import Refused, UsageError
from quantward.core.preprocess import normalise
from quantward.core.values import Dataset, Fold, ImageArray, Model, Preprocess
from quantward.train import STAGES, load_model, train_model
from quantward.train.backbones import create
from quantward.train.batches import Images
from quantward.train.distillation import Teacher, distillation, open_teacher, seen_by, teacher_card
from quantward.train.files import save_model
from quantward.train.head import head_of, reads
from quantward.train.losses import criterion

World = tuple[Dataset, Fold, ImageArray]
COMMON = "epochs=2,batch=16,lr=0.003,precision=32"


def train(world: World, folder: Path, spelled: str, **more: Any) -> Model:
    options: dict[str, Any] = {"arch": "test_resnet", "weights": "none", "seed": 1} | more
    return train_model(*world, stage=STAGES.make(spelled), folder=folder, **options)


@pytest.fixture
def teacher(world: World, tmp_path: Path) -> Path:
    train(world, tmp_path / "teacher", f"fit:{COMMON}", arch="test_resnet")
    return tmp_path / "teacher"


def test_a_run_teaches_another_and_the_record_says_who(world: World, teacher: Path, tmp_path: Path) -> None:
    student = train(world, tmp_path / "student", f"distill:teacher={teacher},features=100,{COMMON}")
    told = student.provenance
    assert told["arguments"]["teacher"]["arch"] == "test_resnet" and len(told["arguments"]["teacher"]["sha256"]) == 64
    assert {"train_loss", "train_distill", "train_features"} <= set(told["history"][0])
    train(world, tmp_path / "other", f"fit:{COMMON}", arch="test_resnet", seed=2)
    for name in ("model.safetensors", "model.json"):
        (teacher / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(Refused, match="with teacher"):
        train(world, tmp_path / "student", f"distill:teacher={teacher},features=100,{COMMON}")


def test_a_teacher_of_another_fold_is_refused_and_one_of_its_own_is_found(
    world: World, teacher: Path, tmp_path: Path
) -> None:
    dataset, fold, pixels = world
    moved = dataclasses.replace(fold, number=1, of=2, train=fold.train[1:], test=fold.train[:1])
    spelled = f"distill:teacher={teacher},{COMMON}"
    with pytest.raises(Refused, match="among them test images of this run"):
        train((dataset, moved, pixels), tmp_path / "student", spelled)
    folds = tmp_path / "folds"
    train((dataset, moved, pixels), folds / "fold-1", f"fit:{COMMON}", arch="test_resnet")
    student = train((dataset, moved, pixels), tmp_path / "student", f"distill:teacher={folds},{COMMON}")
    assert student.provenance["arguments"]["teacher"]["arch"] == "test_resnet"


def test_who_cannot_teach_is_refused(world: World, teacher: Path, images: Images, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Expected a trained teacher in"):
        teacher_card(str(tmp_path), {})
    with pytest.raises(UsageError, match=r"Write distill:teacher=VALUE"):
        STAGES.make("distill")
    with pytest.raises(UsageError, match="alpha of at least 0, at most 1"):
        STAGES.make("distill:teacher=x,alpha=2")
    with pytest.raises(Refused, match="Expected a teacher of the classes a, b, c"):
        open_teacher(teacher, dataclasses.replace(images, classes=("a", "b", "c")))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        foreign = Model("test_resnet", create("test_resnet", 3, {}), images.preprocess, images.classes)
    save_model(foreign, tmp_path / "foreign")
    assert teacher_card(str(tmp_path / "foreign"), {"dataset": {"fingerprint": "f1"}})[1].arch == "test_resnet"


def test_classes_in_another_order_are_put_in_the_student_s(images: Images, teacher: Path) -> None:
    turned = dataclasses.replace(images, classes=("high", "low", "middle"))
    batch = images.to_tune().batch(images.train[:5])
    one, other = open_teacher(teacher, images)(batch).logits, open_teacher(teacher, turned)(batch).logits
    assert torch.equal(other, one[:, [2, 0, 1]])


def test_the_teacher_sees_the_image_as_it_is_used_to(images: Images) -> None:
    mine = images.preprocess
    its = Preprocess(size=32, resize=32, squash=True, mean=(0.5, 0.5, 0.5), std=(0.2, 0.3, 0.5))
    batch = images.to_tune().batch(images.train[:3])
    assert seen_by(mine, batch.inputs, mine) is batch.inputs
    wanted = normalise(images.pixels[images.train[:3]], its)
    assert np.allclose(seen_by(its, batch.inputs, mine).numpy(), wanted, atol=1e-5)
    larger = dataclasses.replace(its, size=48, resize=48)
    assert seen_by(larger, batch.inputs, mine).shape == (3, 3, 48, 48)


def test_cached_answers_are_the_live_ones_and_no_image_is_asked_about_twice(images: Images, teacher: Path) -> None:
    live, cached = open_teacher(teacher, images), open_teacher(teacher, images)
    asked = 0

    def note(*_: Any) -> None:
        nonlocal asked
        asked += 1

    cached.model.net.register_forward_pre_hook(note)
    cached.remember(images, size=10)
    assert asked == 5
    for batch in images.to_train(7, _none(), 3, balance=True).epoch(2):
        for one, other in zip(live(batch), cached(batch), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    assert asked == 5


def test_a_stage_without_random_views_caches_and_one_with_them_does_not(
    images: Images, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    remember = Teacher.remember

    def counted(self: Teacher, given: Images) -> None:
        calls.append(True)
        remember(self, given)

    monkeypatch.setattr(Teacher, "remember", counted)
    results = {}
    for augment in ("none", "light"):
        spelled = f"distill:teacher={teacher},augment={augment},epochs=2,batch=12,lr=0.01,precision=32"
        results[augment] = STAGES.make(spelled).run(tiny(), images, seed=0).rows
    assert calls == [True] and results["none"] != results["light"]


def test_the_share_of_the_teacher_and_what_both_heads_read(images: Images) -> None:
    batch, net = images.to_tune().batch(images.train[:6]), tiny().eval()
    terms = {alpha: distillation(criterion(), teacher_of(tiny(seed=2).float(), 32), alpha=alpha)
             for alpha in (0.0, 0.5, 1.0)}  # fmt: skip
    double = batch._replace(inputs=batch.inputs.double())
    net = net.double()
    with torch.no_grad():
        found = {alpha: loss(net, double) for alpha, loss in terms.items()}
    assert set(found[0.0]) == {"loss"} and set(found[1.0]) == {"distill"}
    assert float(found[0.5]["loss"]) == pytest.approx(0.5 * float(found[0.0]["loss"]))
    assert float(found[0.5]["distill"]) == pytest.approx(0.5 * float(found[1.0]["distill"]))
    with reads(head_of(net)) as seen:
        net(double.inputs)
    assert torch.equal(seen[0], net[:5](double.inputs))  # type: ignore[index]


def test_a_network_without_a_head_of_its_own_is_told_so() -> None:
    with pytest.raises(UsageError, match="Leave features at 0"):
        head_of(torch.nn.Conv2d(3, 4, 1))


def test_a_student_agrees_more_with_the_teacher_than_one_that_never_met_it(images: Images, teacher: Path) -> None:
    wanted = load_model(teacher).net
    with torch.no_grad():
        batch = images.to_tune().batch(images.tune)
        truth = wanted(batch.inputs).softmax(1)
    distances = []
    for spelled in ("fit:", f"distill:teacher={teacher},alpha=1,temperature=1,"):
        net = tiny()
        STAGES.make(f"{spelled}epochs=8,batch=12,lr=0.01,precision=32,augment=none").run(net, images, seed=0)
        with torch.no_grad():
            distances.append(float((net(batch.inputs).softmax(1) - truth).abs().sum(1).mean()))
    assert distances[1] < 0.7 * distances[0]


def _none() -> Any:
    from quantward.train.augment import Augment

    return Augment()
