"""The loop: learns, stops, keeps the best, goes on to the bit, refuses what is off."""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from torch import nn
from train_world import tiny

from quantward.core.errors import Refused
from quantward.train import loop
from quantward.train.augment import AUGMENTS
from quantward.train.batches import Batch, Images
from quantward.train.course import Course
from quantward.train.judge import evaluate
from quantward.train.loop import History, Stopped, fit
from quantward.train.losses import Loss, cross_entropy
from quantward.train.optimizer import keep_inputs

COURSE = Course(epochs=4, batch=12, lr=0.01, precision="32")


def train(net: nn.Module, images: Images, course: Course = COURSE, **more: Any) -> History:
    batches = images.to_train(course.batch, AUGMENTS["light"], seed=3)
    options: dict[str, Any] = {"loss": cross_entropy(), "seed": 3} | more
    return fit(net, batches, images.to_tune(), course, **options)


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


class Killed(Exception):
    """Stands for a power cut in the middle of a step."""


def cut_after(steps: int) -> Loss:
    """Cross-entropy that dies at one step."""
    inner, done = cross_entropy(), 0

    def loss(net: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        nonlocal done
        done += 1
        if done > steps:
            raise Killed
        return inner(net, batch)

    return loss


def test_it_learns_and_says_what_happened(images: Images) -> None:
    net = tiny()
    before = evaluate(net.eval(), images.to_tune())
    history = train(net, images, dataclasses.replace(COURSE, epochs=6))
    after = evaluate(net, images.to_tune())
    assert after["loss"] < 0.5 * before["loss"] and after["accuracy"] > 0.9
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4, 5, 6]
    assert history.ended == "all 6 epochs" and not net.training
    best = min(history.rows, key=lambda row: row["tune_loss"])
    assert history.best_epoch == best["epoch"]
    assert after["loss"] == pytest.approx(best["tune_loss"], rel=1e-6)


def test_light_metrics_agree_with_scikit_learn(images: Images) -> None:
    net = tiny().eval()
    tune = images.to_tune()
    with torch.no_grad():
        logits = torch.cat([net(batch.inputs) for batch in tune.epoch()])
    truth = images.labels[images.tune]
    found = evaluate(net, tune)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, logits.argmax(1)))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, logits.argmax(1)))
    assert found["loss"] == pytest.approx(log_loss(truth, logits.double().softmax(1)), rel=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(images: Images) -> None:
    nets = [tiny() for _ in range(3)]
    for net, seed in zip(nets, (3, 3, 4), strict=True):
        train(net, images, seed=seed)
    assert same(nets[0], nets[1]) and not same(nets[0], nets[2])


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize(("steps", "save_every"), [(6, 1e9), (9, 0.0)])
def test_a_broken_run_ends_with_the_bits_of_an_unbroken_one(
    images: Images, tmp_path: Path, optimizer: str, steps: int, save_every: float
) -> None:
    course = dataclasses.replace(COURSE, optimizer=optimizer, schedule="plateau", patience=2)
    whole, broken = tiny(), tiny()
    unbroken = train(whole, images, course)
    with pytest.raises(Killed):
        train(broken, images, course, folder=tmp_path, loss=cut_after(steps), save_every=save_every)
    resumed = tiny(seed=99)
    after = train(resumed, images, course, folder=tmp_path)
    assert same(whole, resumed)
    for one, other in zip(unbroken.rows, after.rows, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_resuming_goes_on_where_it_was_and_not_from_the_start(images: Images, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tiny(), images, folder=tmp_path, loss=cut_after(10), save_every=0.0)
    labels: list[str] = []

    def track(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        labels.append(f"{label.partition(',')[0]}: {total}")
        yield from items

    train(tiny(), images, folder=tmp_path, track=track)
    assert labels == ["epoch 3/4: 2", "epoch 4/4: 4"]


def test_a_finished_run_is_not_trained_again(images: Images, tmp_path: Path) -> None:
    net = tiny()
    train(net, images, folder=tmp_path)
    again = tiny(seed=5)
    history = train(again, images, folder=tmp_path, loss=cut_after(0))
    assert same(net, again) and len(history.rows) == 4


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"course": dataclasses.replace(COURSE, lr=0.02)}, "course.lr 0.01; got 0.02"),
        ({"seed": 4}, "seed 3; got 4"),
        ({"arguments": {"arch": "b"}}, 'arch "a"; got "b"'),
        ({"arguments": {"arch": "a", "new": 1}}, "new null; got 1"),
    ],
)
def test_changed_arguments_are_refused(images: Images, tmp_path: Path, change: dict[str, Any], place: str) -> None:
    with pytest.raises(Killed):
        train(tiny(), images, folder=tmp_path, loss=cut_after(5), arguments={"arch": "a"})
    changed: dict[str, Any] = {"arguments": {"arch": "a"}} | change
    with pytest.raises(Refused, match=place):
        train(tiny(), images, folder=tmp_path, **changed)


def test_other_training_images_are_refused(images: Images, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tiny(), images, folder=tmp_path, loss=cut_after(5))
    with pytest.raises(Refused, match="images"):
        train(tiny(), dataclasses.replace(images, train=images.train[1:]), folder=tmp_path)


def test_early_stopping_counts_the_idle_epochs(images: Images) -> None:
    course = dataclasses.replace(COURSE, epochs=30, lr=1e-9, patience=3, freeze_norm=True)
    history = train(tiny(), images, course)
    assert history.ended == "no better loss for 3 epochs" and len(history.rows) == 4


def test_accuracy_can_be_what_is_watched(images: Images) -> None:
    net = tiny()
    history = train(net, images, dataclasses.replace(COURSE, monitor="accuracy"))
    best = max(row["tune_accuracy"] for row in history.rows)
    assert history.rows[history.best_epoch - 1]["tune_accuracy"] == best
    assert evaluate(net, images.to_tune())["accuracy"] == pytest.approx(best)


def test_a_plateau_lowers_the_rate(images: Images) -> None:
    course = dataclasses.replace(
        COURSE, epochs=6, lr=1e-8, schedule="plateau", patience=4, warmup=0.0, freeze_norm=True
    )
    rates = [row["rate"] for row in train(tiny(), images, course).rows]
    assert rates[0] == 1e-8 and rates[3] == pytest.approx(1e-9)


def test_without_tuning_images_the_last_epoch_counts(images: Images) -> None:
    history = train(tiny(), dataclasses.replace(images, tune=images.tune[:0]))
    assert history.best_epoch == 4 and "tune_loss" not in history.rows[0]


def test_without_training_images_it_is_refused(images: Images) -> None:
    with pytest.raises(Refused, match="Expected training images"):
        train(tiny(), dataclasses.replace(images, train=images.train[:0]))


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(images: Images, tmp_path: Path) -> None:
    inner, done = cross_entropy(), 0

    def loss(net: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        nonlocal done
        done += 1
        scale = float("nan") if done > 6 else 1.0
        return {"loss": inner(net, batch)["loss"] * scale}

    with pytest.raises(Refused, match="Expected a finite loss; in epoch 2 it is not"):
        train(tiny(), images, folder=tmp_path, loss=loss, save_every=0.0)
    resumed = tiny()
    train(resumed, images, folder=tmp_path)
    assert all(torch.isfinite(tensor).all() for tensor in resumed.state_dict().values())


def test_terms_of_a_loss_are_summed_and_logged_one_by_one(images: Images) -> None:
    def two(net: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        logits = net(batch.inputs)
        return {"half": 0.5 * nn.functional.cross_entropy(logits, batch.labels), "other": 0.5 * nn.functional.nll_loss(
            logits.log_softmax(1), batch.labels)}  # fmt: skip

    one, other = tiny(), tiny()
    plain, parts = train(one, images), train(other, images, loss=two)
    for a, b in zip(plain.rows, parts.rows, strict=True):
        assert b["train_half"] + b["train_other"] == pytest.approx(a["train_loss"], rel=1e-3)


def test_a_loss_may_ask_for_gradients_of_the_inputs(images: Images) -> None:
    def saliency(net: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        inputs = batch.inputs.requires_grad_()
        loss = nn.functional.cross_entropy(net(inputs), batch.labels)
        (slope,) = torch.autograd.grad(loss, inputs, create_graph=True)
        return {"loss": loss, "saliency": 0.1 * slope.abs().sum((1, 2, 3)).mean()}

    first, *_, last = train(tiny(), images, loss=saliency).rows
    assert last["train_loss"] < first["train_loss"] and first["train_saliency"] > 0


def test_groups_train_at_their_share_and_the_rest_stays(images: Images) -> None:
    net, start = tiny(), tiny()
    head = list(net.children())[-1]
    train(net, images, dataclasses.replace(COURSE, freeze_norm=True), groups=[{"params": list(head.parameters())}])
    old, new = start.state_dict(), net.state_dict()
    assert [name for name in old if not torch.equal(old[name], new[name])] == ["5.weight", "5.bias"]
    still = tiny()
    train(still, images, dataclasses.replace(COURSE, freeze_norm=True),
          groups=[{"params": list(still.parameters()), "share": 0.0}])  # fmt: skip
    assert same(still, start)


def test_two_runs_cannot_share_a_folder(images: Images, tmp_path: Path) -> None:
    import subprocess
    import sys

    hold = "import sys\nfrom pathlib import Path\nfrom quantward.core.lock import only_run\n"
    hold += "with only_run(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(Refused, match="Expected to be the only run"):
        train(tiny(), images, folder=tmp_path)
    other.communicate("")


def test_ctrl_c_saves_says_how_to_go_on_and_loses_nothing(images: Images, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    whole, broken = tiny(), tiny()
    train(whole, images)
    inner, done = cross_entropy(), 0

    def loss(net: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        nonlocal done
        done += 1
        if done == 6:
            signal.raise_signal(signal.SIGINT)
        return inner(net, batch)

    with pytest.raises(Stopped, match=r"epoch 2 of 4, batch 2 of 4; saved in .* the same command again") as caught:
        train(broken, images, folder=tmp_path, loss=loss)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    resumed = tiny()
    train(resumed, images, folder=tmp_path)
    assert same(whole, resumed)


def test_it_runs_off_the_main_thread(images: Images) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            train(tiny(), images)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def test_no_space_is_said_before_anything_is_trained(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr(loop.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Refused, match="free space"):
        train(tiny(), images, folder=tmp_path, loss=cut_after(0))


def test_clipped_activations_keep_their_inputs() -> None:
    net = tiny()
    keep_inputs(net)
    assert not net[2].inplace  # type: ignore[index]


def test_every_epoch_is_a_line_in_the_log(images: Images, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "quantward.train"):
        train(tiny(), images)
    assert [r.message.partition(":")[0] for r in caplog.records] == [f"epoch {n}/4" for n in (1, 2, 3, 4)]


def test_class_weights_and_smoothing_equal_torch(images: Images) -> None:
    batch = images.to_tune().batch(images.tune[:9])
    net = tiny().eval()
    weights = (0.2, 1.0, 3.0)
    found = cross_entropy(0.1, weights)(net, batch)["loss"].detach()
    probability = net(batch.inputs).log_softmax(1).double().detach().numpy()
    target = np.full_like(probability, 0.1 / 3)
    target[np.arange(9), batch.labels] += 0.9
    per_image = -(target * probability * np.array(weights)).sum(1)
    assert float(found) == pytest.approx(per_image.sum() / np.array(weights)[batch.labels].sum(), rel=1e-5)
