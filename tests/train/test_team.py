"""Two processes that train together: as one would with the same batches, resumable, and never left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kill_world import COMMON, process, trained, trained_together, world

from quantward.core import machine
from quantward.core.errors import Refused, UsageError
from quantward.core.store import digest_file, read_json
from quantward.core.values import Model
from quantward.train import STAGES, on_devices, train_model
from quantward.train.judge import evaluate
from quantward.train.team import ALONE, Team, member, team

pytestmark = pytest.mark.skipif(machine.cores() < 2, reason="needs two cores")


def run(stage: str, folder: Path, devices: int, arch: str = "test_vit") -> Model:
    dataset, fold, pixels = world(3)
    with on_devices(devices):
        return train_model(dataset, fold, pixels, arch=arch, weights="none", seed=1, folder=folder,
                           stage=STAGES.make(f"{stage},{COMMON}"))  # fmt: skip


def figures(model: Model, name: str) -> list[float]:
    return [row[name] for row in model.provenance["history"]]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["fit:epochs=3,optimizer=sgd,clip=1", "saliency:epochs=2,optimizer=sgd,fill=mean"])
def test_two_train_like_one_with_the_same_batches(stage: str, tmp_path: Path) -> None:
    """A network without batch statistics and without chance: every step is that of the whole batch."""
    one, two = run(stage, tmp_path / "one", 1), run(stage, tmp_path / "two", 2)
    assert two.provenance["arguments"]["devices"] == 2 and "devices" not in one.provenance["arguments"]
    for name in [name for name in one.provenance["history"][0] if name[:5] in ("train", "tune_")]:
        assert figures(two, name) == pytest.approx(figures(one, name), rel=2e-4), name
    assert len(set(figures(one, "train_loss"))) > 1
    weights = one.net.state_dict(), two.net.state_dict()
    assert all(torch.allclose(weights[0][key], weights[1][key], rtol=1e-3, atol=1e-5) for key in weights[0])
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}


@pytest.mark.slow
def test_a_killed_team_leaves_nobody_behind_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    """Batch statistics, dropout-like noise and phases: after a step all processes hold the same."""
    stage = "staged:head_epochs=1,top_epochs=1,epochs=1,augment=light"
    assert process(trained_together, stage, tmp_path / "whole") == 0
    for death in ({"die_at_step": 2}, {"die_in_write": 4}):
        assert process(trained_together, stage, tmp_path / "broken", **death) == -signal.SIGKILL
    assert process(trained_together, stage, tmp_path / "broken") == 0
    weights = [digest_file(tmp_path / run / "model.safetensors") for run in ("whole", "broken")]
    assert weights[0] == weights[1]
    rows = [read_json(tmp_path / run / "history.json") for run in ("whole", "broken")]
    assert [{**row, "seconds": 0} for row in rows[0]] == [{**row, "seconds": 0} for row in rows[1]]
    with pytest.raises(Refused, match="with devices 2"):
        trained(stage, tmp_path / "whole")


@pytest.mark.slow
def test_a_process_that_ends_is_told_of_and_the_state_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantward.train import crew, loop

    started: list[subprocess.Popen[bytes]] = []
    plain_start, plain_step, plain_init = crew._start, loop._Run._step, loop._Run.__init__
    steps = 0

    def start(home: Path, rank: int) -> subprocess.Popen[bytes]:
        started.append(plain_start(home, rank))
        return started[-1]

    def step(self: Any, batch: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            os.kill(started[0].pid, signal.SIGKILL)
        plain_step(self, batch)

    monkeypatch.setattr(crew, "_start", start)
    monkeypatch.setattr(loop._Run, "_step", step)
    with pytest.raises(Refused, match="number 2 ended"):
        run("fit:epochs=4", tmp_path, 2)
    assert started[0].poll() is not None and (tmp_path / "checkpoint" / "last.safetensors").exists()
    assert team() == ALONE and not torch.distributed.is_initialized()
    monkeypatch.setattr(loop._Run, "_step", plain_step)
    assert len(run("fit:epochs=4", tmp_path, 2).provenance["history"]) == 4
    assert plain_init is loop._Run.__init__


def test_who_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantward.train import crew

    def absent(home: Path, rank: int) -> subprocess.Popen[bytes]:
        with (home / f"{rank}.log").open("wb") as told:
            return subprocess.Popen([sys.executable, "-c", "raise SystemExit('no room for one more')"], stderr=told)

    monkeypatch.setattr(crew, "_start", absent)
    with pytest.raises(Refused, match=r"number 2 ended \(no room for one more\)"):
        run("fit:epochs=1", tmp_path, 2)


OTHER = """
import sys, threading, time
from quantward.train.crew import _not_alone
threading.Thread(target=_not_alone, args=(int(sys.argv[1]),)).start()
time.sleep(60)
"""
FIRST = """
import os, subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())]).pid, flush=True)
time.sleep(60)
"""


def test_the_other_process_ends_with_the_first() -> None:
    # Killed at once, so the other finds itself alone before it has begun.
    parent = subprocess.Popen([sys.executable, "-c", FIRST, OTHER], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 40
    while Path(f"/proc/{child}/stat").exists() and time.monotonic() < until:
        if ") Z " in Path(f"/proc/{child}/stat").read_text():
            break
        time.sleep(0.1)
    assert time.monotonic() < until


def test_more_devices_than_there_are_and_too_small_batches_are_refused(tmp_path: Path) -> None:
    for count in (0, machine.cores() + 1 if not torch.cuda.is_available() else torch.cuda.device_count() + 1):
        with pytest.raises(UsageError, match="Expected 1 to"), on_devices(count):
            pass
    dataset, fold, pixels = world(3)
    from quantward.train import Course, Images, cross_entropy, fit
    from quantward.train.augment import Augment

    images = Images(pixels, dataset.labels, fold.train, fold.tune, dataset.classes, _how())
    with pytest.raises(Refused, match="at least one image for each of 3 devices"), member(Team(0, 3)):
        fit(torch.nn.Flatten(), images.to_train(2, Augment(), 0), None, Course(), loss=cross_entropy())


def _how() -> Any:
    from quantward.core.values import Preprocess

    return Preprocess(size=32, resize=32, squash=True)


def test_a_batch_is_dealt_out_whole_and_chance_differs() -> None:
    images = np.arange(7)
    dealt = [Team(rank, 3).part(images) for rank in range(3)]
    assert sorted(np.concatenate(dealt).tolist()) == images.tolist() and max(map(len, dealt)) == 3
    drawn = []
    for rank, step in ((0, 5), (1, 5), (0, 6), (0, 5)):
        Team(rank, 2).seed(3, step)
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[3] and len(set(drawn)) == 3
    torch.manual_seed(9)
    before = torch.rand(1).item()
    torch.manual_seed(9)
    ALONE.seed(3, 5)
    assert torch.rand(1).item() == before


def test_tuning_figures_count_classes_that_have_no_image_here() -> None:
    dataset, fold, pixels = world(3)
    from quantward.train import Images

    images = Images(pixels, dataset.labels, fold.train, fold.tune[np.asarray(dataset.labels)[fold.tune] != 1],
                    dataset.classes, _how())  # fmt: skip
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 5))
    told = evaluate(net.eval(), images.to_tune())
    assert 0 <= told["balanced_accuracy"] <= 1 and json.dumps(told)
