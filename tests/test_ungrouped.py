"""The split that leaks on purpose: every file stays, nobody is kept together, and whoever opens the run is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("timm")

from quantward.core.errors import Refused, UsageError
from quantward.core.store import read_json
from quantward.crossval import train_folds
from quantward.data import make_toy
from quantward.runs import LEAKS, open_run, prepare


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of some patients, ten of them filed a second time under another name, with a published split."""
    return make_toy(tmp_path_factory.mktemp("toy") / "scans", n=64, classes=2, leaks=10)


def test_it_keeps_every_file_ties_nobody_and_warns_first(leaking: Path) -> None:
    own, loose = prepare(leaking, "own"), prepare(leaking, "ungrouped")
    assert (len(own.dataset), len(loose.dataset)) == (64, 74)
    assert loose.dataset.groups is None and not loose.published and loose.warnings[0] == LEAKS
    assert LEAKS not in own.warnings and loose.dataset.fingerprint != own.dataset.fingerprint


def test_its_folds_are_runs_that_open_as_they_were_trained(leaking: Path, tmp_path: Path) -> None:
    found = train_folds(leaking, tmp_path, folds=2, arch="resnet10t", weights="none", size=32, replicates=100,
                        split="ungrouped", stage="fit:epochs=1,precision=32")  # fmt: skip
    assert len(found.pooled) == 74 and found.pooled.groups is None
    run = open_run(tmp_path / "fold-1", leaking)
    assert read_json(tmp_path / "fold-1" / "data.json")["split"] == "ungrouped"
    assert run.warnings[0] == LEAKS and len(run.dataset) == 74
    patients = patients_of(leaking)
    tested = {patients[run.dataset.ids[i]] for i in run.fold.test}
    learned = {patients[run.dataset.ids[i]] for i in run.fold.train}
    assert tested & learned  # which is what it is for


def patients_of(data: Path) -> dict[str, str]:
    """Who is on each scan."""
    rows = [line.split(",") for line in (data / "images.csv").read_text().splitlines()]
    path, group = rows[0].index("path"), rows[0].index("group")
    return {row[path]: row[group] for row in rows[1:]}


def test_an_unreadable_file_is_refused_all_the_same_and_a_typo_is_told(tmp_path: Path) -> None:
    torn = make_toy(tmp_path / "torn", n=64, classes=2, truncated=1)
    with pytest.raises(Refused, match="Mend or remove the files"):
        prepare(torn, "ungrouped")
    with pytest.raises(UsageError, match="Did you mean 'ungrouped'"):
        prepare(torn, "ungruped")
