"""The whole call: pixels to a model folder, repeated, interrupted by SIGKILL, refused where it must be."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from quantward.core.errors import Refused, UsageError
from quantward.core.values import Dataset, Fold, ImageArray, Model, Preprocess
from quantward.train import STAGES, load_model, train_model
from quantward.train.batches import Batches
from quantward.train.judge import evaluate

World = tuple[Dataset, Fold, ImageArray]
SPELLED = "fit:epochs=3,batch=16,lr=0.003,precision=32,augment=light"


def run(world: World, folder: Path, spelled: str = SPELLED, **more: object) -> Model:
    options: dict[str, object] = {"arch": "mobilenetv2_035", "weights": "none", "seed": 1} | more
    return train_model(*world, stage=STAGES.make(spelled), folder=folder, **options)  # type: ignore[arg-type]


def test_a_trained_model_is_in_its_folder_with_all_that_made_it(world: World, tmp_path: Path) -> None:
    model = run(world, tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        ".lock", "history.csv", "history.json", "model.json", "model.safetensors"}  # fmt: skip
    found = load_model(tmp_path / "run")
    assert found.provenance == model.provenance and found.classes == world[0].classes
    told = found.provenance
    assert told["arguments"]["stage"] == SPELLED
    assert told["arguments"]["dataset"]["fingerprint"] == "f1" and told["arguments"]["fold"]["number"] == 0
    assert told["images"] == {"train": 48, "tune": 24} and len(told["history"]) == 3
    assert told["machine"]["libraries"]["torch"] == torch.__version__.partition("+")[0]
    with torch.no_grad():
        x = torch.randn(2, 3, 32, 32)
        assert torch.equal(model.net(x), found.net(x))


def test_what_is_kept_is_the_best_epoch(world: World, tmp_path: Path) -> None:
    dataset, fold, pixels = world
    model = run(world, tmp_path)
    rows = model.provenance["history"]
    tune = Batches(pixels, np.asarray(dataset.labels), fold.tune, model.preprocess)
    assert evaluate(model.net, tune)["loss"] == pytest.approx(min(row["tune_loss"] for row in rows), rel=1e-4)


def test_the_same_call_again_returns_the_model_and_another_is_refused(world: World, tmp_path: Path) -> None:
    run(world, tmp_path)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    run(world, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(Refused, match=r"to go on in .* with seed 1; got 2"):
        run(world, tmp_path, seed=2)
    with pytest.raises(Refused, match="with stage"):
        run(world, tmp_path, "fit:epochs=4")


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np, torch
from quantward.core.values import Dataset, Fold
from quantward.train import STAGES, train_model
from train_world import bars
torch.set_num_threads(1)
pixels, labels = bars()
order = np.random.default_rng(1).permutation(len(labels))
ids = tuple(f"image {{i}}" for i in range(len(pixels)))
dataset = Dataset("bars", ("low", "middle", "high"), ids, labels, "f1", lambda i: pixels[i])
none = np.zeros(0, np.int64)
fold = Fold(0, 1, 0, "f1", order[:48], order[48:], none, none, none)
print("ready", flush=True)
train_model(dataset, fold, pixels, arch="mobilenetv2_035", weights="none", seed=1, folder=Path(sys.argv[1]),
            stage=STAGES.make({spelled!r}))
"""


def test_a_run_killed_without_warning_ends_with_the_bits_of_an_unbroken_one(world: World, tmp_path: Path) -> None:
    spelled = SPELLED.replace("epochs=3", "epochs=6")
    whole = run(world, tmp_path / "whole", spelled)
    code = CHILD.format(tests=str(Path(__file__).parent), spelled=spelled)
    broken = tmp_path / "broken"
    state = broken / "checkpoint" / "last.safetensors"
    child = subprocess.Popen([sys.executable, "-c", code, str(broken)])
    deadline = time.monotonic() + 50
    while not state.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert state.exists() and not (broken / "model.json").exists()
    resumed = run(world, broken, spelled)
    first, second = whole.net.state_dict(), resumed.net.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (broken / "checkpoint").exists()


def test_data_that_does_not_fit_is_refused(world: World, tmp_path: Path) -> None:
    dataset, fold, pixels = world
    with pytest.raises(Refused, match="one decoded image for each of the 72"):
        run((dataset, fold, pixels[:-1]), tmp_path)
    with pytest.raises(Refused, match="made before a change"):
        run((dataclasses.replace(dataset, fingerprint="f2"), fold, pixels), tmp_path)
    with pytest.raises(Refused, match="Expected pixels of shape"):
        run(world, tmp_path, preprocess=Preprocess(size=48, resize=48))
    with pytest.raises(UsageError, match="Expected a timm architecture"):
        run(world, tmp_path, arch="mobilnet")


def test_nothing_is_left_half_written_when_the_weights_explode(world: World, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Expected a finite loss"):
        run(world, tmp_path, "fit:epochs=3,batch=16,lr=1e30,warmup=0,optimizer=sgd,precision=32")
    assert not (tmp_path / "model.json").exists() and not (tmp_path / "model.safetensors").exists()
