"""A runtime that crashes, hangs, refuses or answers as its file says: joins by an entry point, as any outsider does."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from quantward.core.values import Preprocess, Variant

SOURCE = '''
"""Does to itself what its file says."""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass

import numpy as np

from quantward.core.contracts import Executed
from quantward.core.errors import Refused


def do(what):
    if what.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, what))
    if what == "hang":
        time.sleep(600)
    if what == "refuse":
        raise Refused("Expected a file in a better mood; got this one. Cheer it up.")
    if what == "fail":
        raise ValueError("no such thing\\nand more")
    if what == "exit":
        os._exit(3)


@dataclass(frozen=True)
class Shaky:
    loud: bool = False
    formats: tuple = ("shaky",)

    def missing(self):
        return None

    def open(self, variant, threads=1):
        said = json.loads(variant.path.read_text())
        do(said.get("open", ""))
        if self.loud:
            print("to standard output")
            print("to standard error", file=sys.stderr)
        calls = []

        def run(batch):
            calls.append(len(batch))
            if len(calls) > said.get("good", 0) and len(batch) >= said.get("from", 1):
                do(said.get("call", ""))
            if "waste" in said:
                np.ones(said["waste"], np.uint8)
            return np.stack([batch.mean((1, 2, 3)), np.full(len(batch), threads)], 1).astype(np.float32)

        return run

    def executed(self, variant):
        do(json.loads(variant.path.read_text()).get("executed", ""))
        return Executed({"int8": 1, "float32": 2}, {"Conv": 3, "Dequantize": 2})
'''


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the runtime `shaky` known here and in every child."""
    about = folder / "shaky-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "shaky.py").write_text(SOURCE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shaky\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[quantward.runtimes]\nshaky = shaky:Shaky\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", "")))))


def file(folder: Path, name: str = "file", *, recipe: str = "fp32", parent: str = "net", **said: Any) -> Variant:
    """A file that makes `shaky` do what is `said`: `open`, `call` (after `good` calls, from batches of `from` on)."""
    path = folder / f"{name}.shaky"
    path.write_text(json.dumps(said))
    how = Preprocess(size=8, resize=8)
    digest = hashlib.sha256(path.read_bytes() + name.encode()).hexdigest()
    return Variant(name, "shaky", path, digest, 1234, recipe, parent, how, ("a", "b"), 2.5)
