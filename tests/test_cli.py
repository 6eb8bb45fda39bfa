"""The command line as a person meets it: exit codes, one sentence for a fault, JSON and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantward.core.values import Predictions
from quantward.data import make_toy
from quantward.evaluate.predictions import save


def run(*arguments: object, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """`quantward ARGUMENTS` in a process of its own; whatever happens, never a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "quantward", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    if code is not None:
        assert done.returncode == code, done.stderr + done.stdout
    return done


def said(n: int = 400, flip: float = 0.0, seed: int = 0) -> Predictions:
    """Predictions of a decent classifier on n images of 4 classes; a share `flip` of the answers is made wrong."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 4, n)
    logits = draw.normal(size=(n, 4)) + 3.5 * np.eye(4)[truth]
    wrong = np.random.default_rng(seed + 1).random(n) < flip
    logits[wrong] = np.roll(logits[wrong], 1, axis=1)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    ids = tuple(f"image {i}" for i in range(n))
    return Predictions(ids, truth, powers / powers.sum(1, keepdims=True), ("a", "b", "c", "d"))


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    """Prediction files: a baseline, the same again, a much worse one, and faulty ones."""
    base = said()
    made = {name: tmp_path / f"{name}.csv" for name in ("base", "same", "worse", "fewer", "nan", "other")}
    save(base, made["base"])
    save(base, made["same"])
    save(said(flip=0.3), made["worse"])
    save(said(n=390), made["fewer"])
    lines = made["base"].read_text().splitlines()
    cells = lines[3].split(",")
    made["nan"].write_text("\n".join([*lines[:3], ",".join([*cells[:-1], "nan"]), *lines[4:]]) + "\n")
    made["other"].write_text(made["base"].read_text().replace("id,truth,a,", "id,truth,z,").replace(",a,", ",z,"))
    return made


def test_compare_prints_the_documented_json_and_nothing_else(tables: dict[str, Path]) -> None:
    done = run("compare", tables["base"], tables["worse"], "--json", "--replicates", 300, code=3)
    document = json.loads(done.stdout)
    assert {"n", "classes", "metrics", "per_class", "flips", "findings", "verdict"} <= set(document)
    assert document["verdict"] == "FAIL"
    assert set(document["metrics"]["accuracy"]) >= {"baseline", "candidate", "delta", "low", "high", "p"}


def test_compare_takes_other_images_for_thresholds_and_attributes_for_subgroups(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    names = [line.split(",")[0] for line in tables["base"].read_text().splitlines()[1:]]
    who = tmp_path / "who.csv"
    who.write_text("id,sex\n" + "".join(f"{name},{'fm'[i % 2]}\n" for i, name in enumerate(names)))
    both = (tables["base"], tables["worse"])
    done = run("compare", *both, "--select", *both, "--attributes", who, "--json", "--replicates", 300, code=3)
    document = json.loads(done.stdout)
    assert {row["value"] for row in document["decisions"]["subgroups"]} == {"f", "m"}
    assert document["calibration"]["temperature"]["baseline"]["fitted_on"] == len(names)


def test_identical_predictions_do_not_fail(tables: dict[str, Path]) -> None:
    done = run("compare", tables["base"], tables["same"], "--gates", "screening", "--replicates", 300, code=None)
    assert done.returncode in (0, 4)
    assert "0.0" in done.stdout


def test_compare_writes_a_page(tables: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run("compare", tables["base"], tables["worse"], "--report", page, "--replicates", 300, code=3)
    assert "research use" in page.read_text().lower()


@pytest.mark.parametrize(
    ("candidate", "sentence"),
    [("fewer", "Expected both predictions to cover the same"), ("nan", "line 4"), ("other", "class")],
)
def test_faulty_predictions_are_one_sentence(tables: dict[str, Path], candidate: str, sentence: str) -> None:
    done = run("compare", tables["base"], tables[candidate], code=5)
    assert sentence in done.stderr
    assert done.stderr.startswith("quantward: Expected")
    assert not done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("quantize", "RUN", "--recipe", "int8-statik"), "Did you mean 'int8-static'?"),
        (("quantize", "RUN", "--recipe", "int8-static:calibrater=max"), "Did you mean 'calibrator'?"),
        (("quantize", "RUN", "--recipe", "int8-static:calibrator=entrophy"), "Did you mean 'entropy'?"),
        (("quantize", "RUN", "--recipe", "int8-static:samples=many"), "a value of type int"),
        (("quantize", "RUN", "--recipe", "int8-static"), "--data"),
        (("compare", "a.csv", "b.csv", "--gates", "klinical"), "Did you mean 'clinical'?"),
    ],
)
def test_wrong_names_are_usage_errors_with_a_suggestion(arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in run(*arguments, code=2).stderr


def test_check_finds_a_leak_and_a_torn_file(tmp_path: Path) -> None:
    make_toy(tmp_path / "toy", n=200, leaks=5, truncated=1)
    done = run("check", tmp_path / "toy", "--json", code=5)
    codes = {finding["code"] for finding in json.loads(done.stdout)["findings"]}
    assert {"split-duplicate", "unreadable"} <= codes
    run("check", tmp_path / "toy", "--lenient")


def test_train_refuses_a_leaking_split_and_says_what_to_do(tmp_path: Path) -> None:
    make_toy(tmp_path / "toy", n=200, leaks=5)
    done = run("train", tmp_path / "toy", "--out", tmp_path / "run", code=5)
    assert "Use --split own" in done.stderr
    assert not (tmp_path / "run" / "fold.json").exists()


def test_path_outside_the_data_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "secret.png")
    (tmp_path / "data" / "images.csv").write_text("path,label\n../secret.png,a\n")
    done = run("check", tmp_path / "data", code=5)
    assert "line 2" in done.stderr


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = run("find", tmp_path, tmp_path, code=5)
    assert "Expected a finished run" in done.stderr


def test_file_without_a_card_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"x")
    assert "Expected model.tflite.json beside" in run("bench", tmp_path / "model.tflite", code=5).stderr
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert "Expected an ONNX file" in run("bench", tmp_path / "model.onnx", code=5).stderr


def test_list_names_every_entry_and_its_first_line() -> None:
    found = json.loads(run("list", "--json").stdout)
    assert set(found) == {"recipe", "target", "runtime", "stage", "gate"}
    assert "int8-static" in found["recipe"]
    assert all(line.endswith((".", ":")) or line for entries in found.values() for line in entries.values())


def test_help_loads_nothing_heavy() -> None:
    heavy = {"numpy", "torch", "onnxruntime", "rich", "scipy"}
    code = f"import sys, quantward.cli; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
