"""The base install, in an environment of its own: no torch there, and comparing, verifying and predicting work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from quantward.core.values import Predictions
from quantward.evaluate.predictions import save

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the base install; skipped where no package index answers."""
    home = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    done = subprocess.run(
        [str(home / "bin" / "python"), "-m", "pip", "install", "-q", str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        assert "No matching distribution" in done.stderr or "connection" in done.stderr.lower(), done.stderr
        pytest.skip("no package index answers")
    return home / "bin"


@pytest.mark.slow
def test_compare_works_where_torch_is_not_installed(base: Path, tmp_path: Path) -> None:
    absent = subprocess.run([str(base / "python"), "-c", "import torch"], capture_output=True, check=False)
    assert absent.returncode != 0
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 4, 1000)
    ids = tuple(f"{i}" for i in range(1000))
    for name in ("a", "b"):
        logits = draw.normal(size=(1000, 4)) + 3 * np.eye(4)[truth]
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        save(Predictions(ids, truth, shares, ("w", "x", "y", "z")), tmp_path / f"{name}.csv")
    done = subprocess.run(
        [str(base / "quantward"), "compare", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 3, 4), done.stderr
    assert json.loads(done.stdout)["n"] == 1000


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["compare", "verify", "predict", "check", "bench", "list"])
def test_light_verbs_start_without_torch(base: Path, verb: str) -> None:
    done = subprocess.run([str(base / "quantward"), verb, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
