"""The `fit` stage: found by name, spelled back, weighted and smoothed as asked."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight
from train_world import tiny

from quantward.core.errors import Refused, UsageError
from quantward.core.registry import spelling
from quantward.train import STAGES
from quantward.train.batches import Images
from quantward.train.stages.fit import PUBLISHED, Fit, balanced


def test_it_is_an_entry_with_options() -> None:
    assert "fit" in STAGES.names() and STAGES.summary("fit").startswith("Fine-tunes the whole network")
    assert STAGES.make("fit:epochs=3,lr=0.01,class_weights=balanced") == Fit(
        epochs=3, lr=0.01, class_weights="balanced"
    )
    assert STAGES.make(spelling(PUBLISHED)) == PUBLISHED
    for wrong, near in (("fit:epoch=3", "epochs"), ("fit:augment=lite", "light"), ("fitt", "fit")):
        with pytest.raises(UsageError, match=f"Did you mean '{near}'"):
            STAGES.make(wrong)
    with pytest.raises(UsageError, match="Expected epochs of at least 1"):
        STAGES.make("fit:epochs=0")


def test_the_published_protocol_is_the_one_published() -> None:
    told = (PUBLISHED.optimizer, PUBLISHED.lr, PUBLISHED.weight_decay, PUBLISHED.batch, PUBLISHED.epochs)
    assert told == ("adam", 1e-4, 1e-4, 32, 50)
    assert (PUBLISHED.patience, PUBLISHED.min_delta, PUBLISHED.monitor) == (10, 0.001, "accuracy")


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.random.default_rng(0).choice(4, 200, p=[0.6, 0.25, 0.1, 0.05])
    witness = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert balanced(labels, tuple("abcd")) == pytest.approx(tuple(witness))
    with pytest.raises(Refused, match="'d' has none to train on"):
        balanced(labels[labels < 3], tuple("abcd"))


@pytest.mark.parametrize("spelled", ["fit", "fit:class_weights=balanced,smoothing=0.1,augment=none"])
def test_it_trains(images: Images, spelled: str) -> None:
    stage = STAGES.make(f"{spelled}{',' if ':' in spelled else ':'}epochs=5,batch=12,lr=0.01,precision=32")
    history = stage.run(tiny(), images, seed=0)
    assert history.rows[-1]["tune_accuracy"] > 0.85
