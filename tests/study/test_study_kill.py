"""A study that is killed twenty times, in every kind of step, ends with the results of an unbroken run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from quantward.study.store import FolderStore

HERE = Path(__file__).resolve().parent
CLOCKED = ("history.csv", "history.json", "model.json", "bench.json")
"""Files that hold how long something took; so do the cards of deployed files."""


def without_times(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "seconds"}


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="forks")
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    whole = tmp_path / "whole"
    arguments = [str(tmp_path / "study"), str(tmp_path / "toys"), str(whole), "20"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "TMPDIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, str(HERE / "kill_server.py"), *arguments], env=environment, text=True,
                         capture_output=True)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert len(told["kills"]) >= 20
    unbroken, broken = FolderStore(str(whole)), FolderStore(str(tmp_path / "study" / "store"))
    kinds = set()
    for key in told["keys"]:
        one, other = unbroken.find(key), broken.find(key)
        assert one is not None and other is not None
        kinds.add(one.kind)
        assert set(one.files) == set(other.files), one.label
        if one.kind == "bench":
            assert [row["name"] for row in one.facts["rows"]] == [row["name"] for row in other.facts["rows"]]
        else:
            assert without_times(one.facts) == without_times(other.facts), one.label
        for name, digest in one.files.items():
            if name not in CLOCKED and not name.endswith((".onnx.json",)):
                assert other.files[name] == digest, f"{name} of {one.label}"
    assert kinds == set(told["kills"]) and len(kinds) == 8
    assert not list((tmp_path / "study" / "store").glob("*/*.part"))
    assert not list((tmp_path / "study" / "store").glob("*/*.broken-*"))
