"""Cross-validation: every patient tested once, runs that open like any other, and a kill between or within folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score
from train_world import Killed, cut_after

from quantward.core.errors import Refused, UsageError
from quantward.crossval import CrossValidated, train_folds
from quantward.evaluate import predictions
from quantward.runs import open_run

OPTIONS: dict[str, Any] = {
    "arch": "test_resnet",
    "weights": "none",
    "size": 32,
    "stage": "fit:epochs=2,batch=16,lr=0.003,precision=32",
    "replicates": 200,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs each of forty-five patients, three classes, beside a CSV."""
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    lines = ["path,label,group"]
    for number in range(90):
        label = (number // 2) % 3
        pixels = draw.integers(0, 70, (40, 40, 3)).astype(np.uint8)
        pixels[5 + 11 * label : 13 + 11 * label, 4:36] += 150
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'abc'[label]},patient {number // 2}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def found(data: Path, tmp_path_factory: pytest.TempPathFactory) -> CrossValidated:
    return train_folds(data, tmp_path_factory.mktemp("whole"), folds=3, **OPTIONS)


def test_every_patient_is_tested_once_by_a_network_that_never_saw_it(data: Path, found: CrossValidated) -> None:
    assert sorted(found.pooled.ids) == sorted(f"{n}.png" for n in range(90))
    for number, fold in enumerate(found.folds):
        run = open_run(found.folder / f"fold-{number}", data)
        assert (run.fold.number, run.fold.of) == (number, 3) and run.provenance["arch"] == "test_resnet"
        groups = run.dataset.groups
        assert groups is not None and fold.groups is not None
        learned = {groups[i] for i in (*run.fold.train, *run.fold.tune, *run.fold.calibrate, *run.fold.select)}
        assert not learned & set(fold.groups) and len(fold) == len(run.fold.test)
        assert fold.ids == tuple(run.dataset.ids[i] for i in run.fold.test)


def test_predictions_are_those_of_each_fold_s_network(data: Path, found: CrossValidated) -> None:
    from quantward.core.preprocess import normalise
    from quantward.data import cache
    from quantward.train import load_model

    run = open_run(found.folder / "fold-1", data)
    model = load_model(found.folder / "fold-1")
    inputs = normalise(cache(run.dataset, None, model.preprocess, None)[run.fold.test], model.preprocess)
    with torch.no_grad():
        wanted = model.net(torch.from_numpy(inputs)).double().softmax(1).numpy()
    assert np.allclose(found.folds[1].probabilities, wanted, atol=1e-5)
    saved = predictions.load(found.folder / "predictions.csv")
    assert saved.ids == found.pooled.ids and np.array_equal(saved.probabilities, found.pooled.probabilities)


def test_figures_are_those_of_scikit_learn(found: CrossValidated) -> None:
    document = found.document()
    each = [accuracy_score(fold.truth, np.argmax(fold.probabilities, 1)) for fold in found.folds]
    row = document["metrics"]["accuracy"]
    assert row["folds"] == pytest.approx(each)
    assert row["mean"] == pytest.approx(np.mean(each)) and row["sd"] == pytest.approx(np.std(each, ddof=1))
    pooled = roc_auc_score(found.pooled.truth, found.pooled.probabilities, multi_class="ovr", average="macro")
    assert document["metrics"]["auroc"]["pooled"]["value"] == pytest.approx(pooled)
    assert json.loads((found.folder / "folds.json").read_text())["metrics"]["accuracy"] == row
    assert [line.partition(":")[0] for line in found.sentences()] == [
        "accuracy", "balanced_accuracy", "auroc", "auprc", "ece"]  # fmt: skip


def test_killed_in_the_second_fold_it_ends_with_the_same_bits(
    data: Path, found: CrossValidated, tmp_path: Path
) -> None:
    steps = 3 * 2 + 2
    with cut_after(steps), pytest.raises(Killed):
        train_folds(data, tmp_path, folds=3, **OPTIONS)
    assert (tmp_path / "fold-0" / "predictions.csv").exists() and not (tmp_path / "fold-1" / "model.json").exists()
    before = (tmp_path / "fold-0" / "model.safetensors").stat().st_mtime_ns
    again = train_folds(data, tmp_path, folds=3, **OPTIONS)
    assert np.array_equal(again.pooled.probabilities, found.pooled.probabilities)
    assert (tmp_path / "fold-0" / "model.safetensors").stat().st_mtime_ns == before


def test_other_folds_in_the_same_folder_are_refused(data: Path, found: CrossValidated) -> None:
    with pytest.raises(Refused, match=r"it holds fold 0 of 3 \(seed 0\)"):
        train_folds(data, found.folder, folds=4, **OPTIONS)
    with pytest.raises(Refused, match=r"it holds fold 0 of 3 \(seed 0\)"):
        train_folds(data, found.folder, folds=3, seed=1, **OPTIONS)
    with pytest.raises(Refused, match="with stage"):
        train_folds(data, found.folder, folds=3, **{**OPTIONS, "stage": "fit:epochs=3"})


def test_a_published_split_and_too_many_folds_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Every fold tests its own part"):
        train_folds(data, tmp_path, split="published", **OPTIONS)
    with pytest.raises(Refused, match="Expected at least 40 groups"):
        train_folds(data, tmp_path, folds=40, **OPTIONS)
    with pytest.raises(UsageError, match="Expected at least 2 folds; got 0"):
        train_folds(data, tmp_path, folds=0, **OPTIONS)
    assert not any(tmp_path.iterdir())


def test_each_student_learns_from_the_teacher_of_its_own_fold(
    data: Path, found: CrossValidated, tmp_path: Path
) -> None:
    spelled = f"distill:teacher={found.folder},epochs=1,batch=16,lr=0.003,precision=32"
    taught = train_folds(data, tmp_path, folds=3, **{**OPTIONS, "stage": spelled})
    names = set()
    for number in range(3):
        card = json.loads((tmp_path / f"fold-{number}" / "model.json").read_text())
        own = json.loads((found.folder / f"fold-{number}" / "model.json").read_text())
        assert card["provenance"]["arguments"]["teacher"]["sha256"] == own["sha256"]
        names.add(own["sha256"])
    assert len(names) == 3 and taught.pooled.ids == found.pooled.ids


def test_the_verb_prints_a_document(data: Path, found: CrossValidated, capsys: pytest.CaptureFixture[str]) -> None:
    from quantward.cli import train

    options = {key: OPTIONS[key] for key in ("arch", "weights", "size", "stage")}
    train(data, found.folder, folds=3, as_json=True, split="auto", seed=0, **options)
    document = json.loads(capsys.readouterr().out)
    assert document["n"] == 90 and len(document["counts"]) == 3
    train(data, found.folder, folds=3, as_json=False, split="auto", seed=0, **options)
    assert capsys.readouterr().out.splitlines()[-1] == f"trained 3 folds: {found.folder}"
