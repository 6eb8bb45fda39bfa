"""A child answers like its parent, and whatever kills it becomes a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from quantward.audit.child import Answer, executed_apart, run_apart
from quantward.core.contracts import Batch
from quantward.core.values import Variant
from quantward.runtimes.onnxruntime import Onnxruntime


def customised(folder: Path, code: str) -> dict[str, str]:
    """An environment in which every new Python first runs `code`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def test_a_child_answers_like_its_parent(int8_file: Variant, images: Batch) -> None:
    found = run_apart(int8_file, "onnxruntime", images[:20])
    assert found.reason == "" and found.logits is not None and found.seconds > 0
    assert np.array_equal(found.logits, Onnxruntime().open(int8_file)(images[:20]))


def test_what_runs_is_told_from_a_child(int8_file: Variant) -> None:
    assert executed_apart(int8_file, "onnxruntime") == (Onnxruntime().executed(int8_file), "")


def test_a_crash_is_a_reason(int8_file: Variant, images: Batch, tmp_path: Path) -> None:
    environment = customised(tmp_path / "site", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    found = run_apart(int8_file, "onnxruntime", images[:1], environment=environment)
    assert found.logits is None and found.reason == "onnxruntime crashed (SIGSEGV)"
    assert executed_apart(int8_file, "onnxruntime", environment=environment) == (None, found.reason)


def test_an_answer_that_does_not_come_is_a_reason(int8_file: Variant, images: Batch, tmp_path: Path) -> None:
    environment = customised(tmp_path / "site", "import time; time.sleep(60)")
    found = run_apart(int8_file, "onnxruntime", images[:1], environment=environment, limit=0.5)
    assert found.logits is None and found.reason == "onnxruntime gave no answer within 0.5 s" and found.seconds < 30


def test_the_runtimes_own_sentence_comes_through(int8_file: Variant, images: Batch, tmp_path: Path) -> None:
    broken = replace(int8_file, path=tmp_path / "broken.onnx")
    broken.path.write_bytes(b"no onnx")
    found = run_apart(broken, "onnxruntime", images[:1])
    assert found.logits is None and found.reason.startswith("Expected an ONNX file that ONNX Runtime can load")
    other = run_apart(replace(int8_file, format="plan"), "onnxruntime", images[:1])
    assert other.reason.startswith("Expected a file of format onnx for onnxruntime; got plan.")


def test_an_answer_without_logits_has_a_reason_to_show() -> None:
    assert Answer(None, "it crashed").reason and Answer(None).logits is None
