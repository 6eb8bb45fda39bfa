"""The staged stage: who trains when, at which rate, what stands still, and that the best epoch of all is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from train_world import tiny

from quantward.core.errors import UsageError
from quantward.train import STAGES, loop
from quantward.train.batches import Images
from quantward.train.judge import evaluate
from quantward.train.lesson import lesson_named

SPELLED = "staged:head_epochs=2,top_epochs=1,epochs=2,top=0.5,fall=0.1,batch=12,lr=0.01,precision=32,schedule=constant"


def test_head_then_top_then_all_at_falling_rates(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[str], dict[str, torch.Tensor]]] = []
    plain = loop._Run.to_the_end

    def watched(self: Any) -> Any:
        before = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
        trained = {name for name, p in self.net.named_parameters() if p.requires_grad}
        result = plain(self)
        seen.append((trained, {n: t for n, t in self.net.state_dict().items() if not torch.equal(t, before[n])}))
        return result

    monkeypatch.setattr(loop._Run, "to_the_end", watched)
    net = tiny()
    history = STAGES.make(f"{SPELLED},warmup=0").run(net, images, seed=0)
    head, top, everything = seen
    assert head[0] == {"5.weight", "5.bias"} == set(head[1])
    assert top[0] == {"1.weight", "1.bias", "5.weight", "5.bias"}
    assert "0.weight" not in top[1] and "1.running_mean" in top[1]
    assert everything[0] == {name for name, _ in net.named_parameters()}
    rates = [(row["phase"], row["rate"]) for row in history.rows]
    assert rates == [(1, 0.01), (1, 0.01), (2, pytest.approx(1e-3)), (3, pytest.approx(1e-4)), (3, pytest.approx(1e-4))]
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4, 5]
    assert history.ended == "head: all 2 epochs; top: all 1 epochs; all: all 2 epochs"
    assert all(p.requires_grad for p in net.parameters())


def test_a_phase_that_harms_is_undone(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = STAGES.make(SPELLED.replace("fall=0.1", "fall=1") + ",optimizer=sgd,augment=none")
    real = loop.rate

    def wild(course: Any, step: int, steps: int, factor: float = 1.0) -> float:
        return 500.0 if course.epochs == 2 and step >= 0 and wild_now else real(course, step, steps, factor)

    wild_now = False
    told: list[Mapping[str, Any]] = []
    plain = loop.fit

    def watched(*given: Any, **named: Any) -> Any:
        nonlocal wild_now
        wild_now = named["arguments"]["phase"] == "all"
        told.append(named["arguments"])
        return plain(*given, **named)

    monkeypatch.setattr("quantward.train.teach.fit", watched)
    monkeypatch.setattr(loop, "rate", wild)
    net = tiny()
    history = stage.run(net, images, seed=0)
    assert [arguments["phase"] for arguments in told] == ["head", "top", "all"]
    best = min(history.rows, key=lambda row: row["tune_loss"])
    assert best["phase"] < 3 and history.best_epoch == best["epoch"]
    assert evaluate(net, images.to_tune())["loss"] == pytest.approx(best["tune_loss"], rel=1e-5)


def test_phases_can_be_left_out_and_it_learns(images: Images) -> None:
    history = STAGES.make("staged:head_epochs=0,epochs=4,top_epochs=2,top=1,batch=12,lr=0.01,precision=32").run(
        tiny(), images, seed=0
    )
    assert [row["phase"] for row in history.rows] == [1, 1, 2, 2, 2, 2]
    assert history.rows[-1]["tune_accuracy"] > 0.9
    with pytest.raises(UsageError, match="Expected top of at least 0, at most 1"):
        STAGES.make("staged:top=3")


def test_without_tuning_images_the_last_epoch_stays(images: Images) -> None:
    import dataclasses

    alone = dataclasses.replace(images, tune=images.tune[:0])
    history = STAGES.make(SPELLED).run(tiny(), alone, seed=0)
    assert history.best_epoch == 5 == len(history.rows)


def test_as_a_lesson_it_is_refused_whatever_its_options() -> None:
    """Its phases would be silently dropped, and cross-entropy be all that is left."""
    for spelled in ("staged", "staged:top=0.5", "staged:class_weights=balanced"):
        with pytest.raises(UsageError, match="in what order layers learn"):
            lesson_named(spelled)
    assert lesson_named("fit:class_weights=balanced").class_weights == "balanced"
