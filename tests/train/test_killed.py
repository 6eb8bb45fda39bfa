"""`kill -9` at any point of any stage, also within a write, and the run ends with the bits of an unbroken one."""

from __future__ import annotations

import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest
from kill_world import process, quantized, trained

from quantward.core.store import digest_file, read_json

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="needs a system that forks"
)
STAGES: dict[str, tuple[str, int]] = {
    "fit": ("fit:epochs=3,focal=2,sampling=balanced", 3),
    "staged": ("staged:head_epochs=1,top_epochs=1,epochs=2", 3),
    "staged, cached": ("staged:head_epochs=2,top_epochs=1,epochs=1,augment=none,head=sigmoid", 2),
    "saliency": ("saliency:epochs=3,threshold=adaptive,sparsity=0.001", 3),
    "distill": ("distill:epochs=3,features=50,teacher={teacher}", 3),
    "distill, cached": ("distill:epochs=3,augment=none,teacher={teacher}", 3),
}
# Two steps an epoch and a write after each: in an epoch of the first phase, then in a file of a later one.
DEATHS: tuple[dict[str, int], ...] = ({"die_at_step": 2}, {"die_in_write": 4})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RUN that may teach, and that may be quantized."""
    folder = tmp_path_factory.mktemp("taught") / "float"
    assert process(trained, "fit:epochs=1", folder) == 0
    return folder


def record(folder: Path) -> dict[str, Any]:
    """The card of a model without what no two runs share: how long they took."""
    card: dict[str, Any] = read_json(folder / "model.json")
    for row in card["provenance"]["history"]:
        row.pop("seconds")
    card["provenance"].pop("seconds")
    return card


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_killed_stage_ends_with_the_bits_of_an_unbroken_one(name: str, teacher: Path, tmp_path: Path) -> None:
    spelled, classes = STAGES[name]
    stage = spelled.format(teacher=teacher)
    assert process(trained, stage, tmp_path / "whole", classes) == 0
    broken = tmp_path / "broken"
    for death in DEATHS:
        assert process(trained, stage, broken, classes, **death) == -signal.SIGKILL, death
        assert not (broken / "model.json").exists() and list((broken / "checkpoint").rglob("last.safetensors"))
    assert process(trained, stage, broken, classes) == 0
    assert digest_file(broken / "model.safetensors") == digest_file(tmp_path / "whole" / "model.safetensors")
    assert record(broken) == record(tmp_path / "whole") and not (broken / "checkpoint").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lesson", ["saliency:threshold=adaptive", "distill:features=50,teacher={}"])
def test_so_does_training_in_low_precision_with_any_lesson(lesson: str, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "float").symlink_to(teacher)
    spelled = lesson.format(teacher)
    assert process(quantized, spelled, tmp_path / "whole") == 0
    for death in ({"die_at_step": 2}, {"die_in_write": 2}):
        assert process(quantized, spelled, tmp_path / "broken", **death) == -signal.SIGKILL, death
    assert process(quantized, spelled, tmp_path / "broken") == 0
    plans = [tmp_path / run / "plan" for run in ("whole", "broken")]
    weights = [{path.name: digest_file(path) for path in plan.glob("*.safetensors")} for plan in plans]
    assert weights[0] and weights[0] == weights[1]
    texts = [json.loads((plan / "plan.json").read_text()) for plan in plans]
    assert texts[0]["tensors"] == texts[1]["tensors"]
