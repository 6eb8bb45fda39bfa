"""A model folder: what goes in comes out to the bit; anything damaged or swapped is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from quantward.core.errors import Refused
from quantward.core.values import Model
from quantward.train.backbones import build
from quantward.train.files import load_model, save_model, write_history


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    net, how, record = build("mobilenetv2_035", 3, weights="none", size=32, options={"pad_type": "same"})
    net.to(memory_format=torch.channels_last)
    model = Model("mobilenetv2_035", net, how, ("a", "b", "ü"), {"seed": 3})
    return save_model(model, tmp_path / "a run with spaces", options=record["options"])


def test_what_is_saved_is_loaded_to_the_bit(folder: Path) -> None:
    model = load_model(folder)
    assert model.classes == ("a", "b", "ü") and model.provenance == {"seed": 3} and not model.net.training
    assert model.preprocess.size == 32 and model.preprocess.squash
    again = save_model(model, folder.parent / "again", options={"pad_type": "same"})
    for name in ("model.safetensors", "model.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_swapped_weight_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(Refused, match="its hash differs"):
        load_model(folder)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("classes", ["a", "b"], "Expected the weights of mobilenetv2_035 with 2 classes"),
        ("arch", "resnet10t", "Expected options that resnet10t has"),
        ("arch", "mobilenetv2_100", "Expected the weights of mobilenetv2_100"),
        ("arch", "resnet1o", "Expected a timm architecture"),
        ("preprocess", {"size": "large"}, "at preprocess.size"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(folder: Path, key: str, value: object, what: str) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | {key: value}))
    with pytest.raises(Exception, match=what) as caught:
        load_model(folder)
    assert caught.value.exit_code in (2, 5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_an_absent_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(Refused, match="there is none"):
        load_model(folder)


def test_weights_that_are_not_finite_are_never_written(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    next(iter(model.net.parameters())).data[0] = float("inf")
    with pytest.raises(Refused, match="holds NaN or infinity"):
        save_model(model, tmp_path / "bad")
    assert not (tmp_path / "bad" / "model.json").exists()


def test_history_is_written_for_programs_and_for_spreadsheets(tmp_path: Path) -> None:
    rows = [{"epoch": 1.0, "train_loss": 0.5}, {"epoch": 2.0, "train_loss": 0.25, "tune_loss": 1.0}]
    write_history(tmp_path, rows)
    assert json.loads((tmp_path / "history.json").read_text()) == rows
    with (tmp_path / "history.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["train_loss"] for row in table] == ["0.5", "0.25"] and table[0]["tune_loss"] == ""
