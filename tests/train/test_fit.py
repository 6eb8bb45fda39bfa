"""The `fit` stage: found by name, spelled back, weighted and smoothed as asked, with published protocols as presets."""

from __future__ import annotations

import typing
from dataclasses import replace

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight
from train_world import tiny

from quantward.core.errors import Refused, UsageError
from quantward.core.registry import spelling
from quantward.train import STAGES
from quantward.train.batches import Images
from quantward.train.presets import PRESETS, Preset
from quantward.train.stages.fit import Fit
from quantward.train.supervision import balanced


def test_it_is_an_entry_with_options() -> None:
    assert "fit" in STAGES.names() and STAGES.summary("fit").startswith("Fine-tunes the whole network")
    assert STAGES.make("fit:epochs=3,lr=0.01,class_weights=balanced") == Fit(
        epochs=3, lr=0.01, class_weights="balanced"
    )
    for wrong, near in (("fit:epoch=3", "epochs"), ("fit:augment=lite", "light"), ("fitt", "fit"),
                        ("fit:preset=int8-reliabilty", "int8-reliability")):  # fmt: skip
        with pytest.raises(UsageError, match=f"Did you mean '{near}'"):
            STAGES.make(wrong)
    with pytest.raises(UsageError, match="Expected epochs of at least 1"):
        STAGES.make("fit:epochs=0")


def test_the_published_protocol_is_the_one_published() -> None:
    made = STAGES.make("fit:preset=int8-reliability")
    assert (made.optimizer, made.lr, made.weight_decay, made.batch, made.epochs) == ("adam", 1e-4, 1e-4, 32, 50)
    assert (made.patience, made.min_delta, made.monitor) == (10, 0.001, "accuracy")
    assert (made.schedule, made.warmup, made.augment) == ("constant", 0.0, "published")


def test_the_names_of_presets_are_those_there_are() -> None:
    assert set(typing.get_args(Preset)) == set(PRESETS)
    with pytest.raises(UsageError, match="Expected a preset"):
        Fit(preset="int7")  # type: ignore[arg-type]


@pytest.mark.parametrize("more", ["", ",epochs=15", ",lr=0.001,augment=standard,warmup=0.1"])
@pytest.mark.parametrize("stage", ["fit", "staged", "saliency", "distill:teacher=t,"])
def test_a_preset_is_spelled_out_and_what_is_given_wins(stage: str, more: str) -> None:
    begin = stage if stage.endswith(",") else f"{stage}:"
    made = STAGES.make(f"{begin}preset=int8-reliability{more}")
    given = dict(part.split("=") for part in more.split(",") if part)
    for name, value in PRESETS["int8-reliability"].items():
        assert f"{getattr(made, name)}" == given.get(name, f"{value}")
    assert "preset" not in spelling(made) and STAGES.make(spelling(made)) == made
    assert replace(made, patience=3) == STAGES.make(f"{begin}preset=int8-reliability,patience=3{more}")


def test_rare_classes_are_not_favoured_twice() -> None:
    with pytest.raises(UsageError, match="favours rare classes twice"):
        STAGES.make("fit:class_weights=balanced,sampling=balanced")
    with pytest.raises(UsageError, match="focal of at least 0; got 0 and -1"):
        STAGES.make("staged:focal=-1")


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.random.default_rng(0).choice(4, 200, p=[0.6, 0.25, 0.1, 0.05])
    witness = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert balanced(labels, tuple("abcd")) == pytest.approx(tuple(witness))
    with pytest.raises(Refused, match="'d' has none to train on"):
        balanced(labels[labels < 3], tuple("abcd"))


@pytest.mark.parametrize(
    "spelled",
    ["fit", "fit:class_weights=balanced,smoothing=0.1,augment=none", "fit:focal=2", "fit:sampling=balanced"],
)
def test_it_trains(images: Images, spelled: str) -> None:
    stage = STAGES.make(f"{spelled}{',' if ':' in spelled else ':'}epochs=5,batch=12,lr=0.01,precision=32")
    history = stage.run(tiny(), images, seed=0)
    assert history.rows[-1]["tune_accuracy"] > 0.85
