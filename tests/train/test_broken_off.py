"""Every stage, killed at any point, ends with the bits of an unbroken run; so does a folder that is called again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from train_world import Killed, cut_after

from quantward.core.errors import Refused
from quantward.core.values import Dataset, Fold, ImageArray, Model
from quantward.train import STAGES, train_model

World = tuple[Dataset, Fold, ImageArray]
COMMON = "batch=16,lr=0.003,precision=32"
STAGED = "staged:head_epochs=1,top_epochs=1,epochs=2"
SPELLED = {
    "fit": "fit:epochs=3,focal=2,sampling=balanced",
    "staged": STAGED,
    "saliency": "saliency:epochs=3,threshold=adaptive,class_weights=balanced",
    "distill": "distill:epochs=3,features=50",
    "distill-cached": "distill:epochs=3,augment=none",
    "staged-sigmoid": f"{STAGED},head=sigmoid",
}


@pytest.fixture
def two_or_three(world: World, request: pytest.FixtureRequest) -> World:
    """The world, with two classes for a sigmoid head."""
    dataset, fold, pixels = world
    if "sigmoid" in request.node.callspec.params["name"]:
        dataset = dataclasses.replace(dataset, classes=("a", "b"), labels=np.asarray(dataset.labels) % 2)
    return dataset, fold, pixels


def run(world: World, folder: Path, name: str) -> Model:
    spelled = f"{SPELLED[name]},{COMMON}"
    if name.startswith("distill"):
        spelled += f",teacher={folder.parent / 'teacher'}"
        train_model(*world, arch="test_resnet", weights="none", folder=folder.parent / "teacher",
                    stage=STAGES.make(f"fit:epochs=1,{COMMON}"))  # fmt: skip
    return train_model(*world, arch="test_resnet", weights="none", seed=1, folder=folder, stage=STAGES.make(spelled))


@pytest.mark.parametrize("name", SPELLED)
def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(two_or_three: World, tmp_path: Path, name: str) -> None:
    whole = run(two_or_three, tmp_path / "whole", name)
    broken = tmp_path / "broken"
    for steps in (1, 3, 2) if name.startswith("staged") else (4, 3):
        with cut_after(steps), pytest.raises(Killed):
            run(two_or_three, broken, name)
    assert (broken / "checkpoint").exists() and not (broken / "model.json").exists()
    resumed = run(two_or_three, broken, name)
    first, second = whole.net.state_dict(), resumed.net.state_dict()
    assert set(first) == set(second) and all(torch.equal(first[key], second[key]) for key in first)
    assert not (broken / "checkpoint").exists()
    rows = [[{**row, "seconds": 0} for row in model.provenance["history"]] for model in (whole, resumed)]
    assert rows[0] == rows[1] and whole.provenance["best_epoch"] == resumed.provenance["best_epoch"]


@pytest.mark.parametrize("name", ["staged"])
def test_another_rate_does_not_go_on_where_the_first_stopped(two_or_three: World, tmp_path: Path, name: str) -> None:
    with cut_after(4), pytest.raises(Killed):
        run(two_or_three, tmp_path, name)
    with pytest.raises(Refused, match="to go on in"):
        train_model(*two_or_three, arch="test_resnet", weights="none", seed=1, folder=tmp_path,
                    stage=STAGES.make(f"{SPELLED[name]},{COMMON},fall=0.5"))  # fmt: skip
