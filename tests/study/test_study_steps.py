"""Every kind of step on made-up images, against what the rooms below say when they are asked directly."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_study import carried_out, designed, of_kind

from quantward.core.errors import Refused, UsageError
from quantward.core.progress import silent
from quantward.core.store import digest_file, read_json
from quantward.core.values import Predictions
from quantward.evaluate import evaluate
from quantward.evaluate.metrics import overall
from quantward.evaluate.predictions import load, pooled
from quantward.graph.files import load_plan
from quantward.runs import open_run, plan_run
from quantward.study.execute import KINDS, execute
from quantward.study.keys import made_by
from quantward.study.steps._images import images_of
from quantward.study.steps._teachers import with_teachers
from quantward.study.steps.score import Score
from quantward.study.store import FolderStore
from quantward.study.values import Design, Done, Failed, News, Step, Workplace
from quantward.workbench import open_variant

pytest.importorskip("timm")


@dataclass(frozen=True)
class Carried:
    design: Design
    store: FolderStore
    news: tuple[News, ...]
    home: Path

    def done(self, step: Step | str) -> Done:
        found = self.store.find(step if isinstance(step, str) else step.key)
        assert found is not None
        return found

    def folder(self, step: Step | str) -> Path:
        return self.store.folder(step if isinstance(step, str) else step.key)

    def row(self, recipe: str) -> Any:
        return next(row for row in self.design.rows if row.recipe == recipe)


RECIPES = ["fp32", "int8-static", "int8-static:samples=5000"]
"""The last asks for more images than there are."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Carried:
    home = tmp_path_factory.mktemp("study")
    # The machine's lock for timing is another program's: tests time nothing that matters.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(home))
        made = designed(home, home / "toys", recipes=RECIPES)
        store, news = FolderStore(str(home / "store")), []
        carried_out(made, store, then=news.append)
    return Carried(made, store, tuple(news), home)


def test_all_kinds_are_there_and_say_what_they_run_through() -> None:
    assert set(KINDS.names()) == {"train", "plan", "file", "said", "score", "bench", "drift", "sensitivity"}
    for name in KINDS.names():
        kind = KINDS.get(name)
        assert f"study.steps.{name}" in kind.rooms
        assert len(made_by(kind.rooms, kind.libraries)) == 64, "every room exists"
        assert KINDS.summary(name)


def test_a_recipe_that_cannot_is_a_row_with_its_reason(study: Carried) -> None:
    states = [news.state for news in study.news]
    assert len(states) == len(study.design.steps)
    failed = {news.step.key: news.failed for news in study.news if news.failed is not None}
    row = study.row(RECIPES[2])
    reason = failed[row.score].reason
    assert reason.startswith("Expected samples of at most") and study.store.failure(row.score) == failed[row.score]
    assert all(RECIPES[2] in news.step.label for news in study.news if news.state == "failed")
    for recipe in RECIPES[:2]:
        assert study.done(study.row(recipe).score)
    timed = {one["name"] for one in study.done(study.row("fp32").bench).facts["rows"]}
    assert len(timed) == 2 and not any("samples" in name for name in timed), "the others are timed all the same"


def test_a_run_is_left_that_opens_as_any_other(study: Carried) -> None:
    step = of_kind(study.design, "train")[1]
    done = study.done(step)
    opened = open_run(study.folder(step), Path(step.places["data"]))
    assert opened.fold.number == 1 and opened.fold.of == 2
    assert {role: done.facts[role] for role in ("train", "test")} == {
        "train": len(opened.fold.train), "test": len(opened.fold.test)}  # fmt: skip
    assert done.facts["epochs"] == 1
    import timm

    net = timm.create_model("test_resnet", num_classes=len(opened.dataset.classes))
    assert done.facts["parameters"] == sum(parameter.numel() for parameter in net.parameters())


def test_a_plan_is_that_of_the_run(study: Carried) -> None:
    step = next(one for one in of_kind(study.design, "plan") if one.asked["recipe"] == "int8-static")
    made = load_plan(study.folder(step) / "plan")
    alone = plan_run(study.folder(step.needs["run"]), "int8-static", Path(step.places["data"]))
    assert made.recipe == alone.recipe == study.done(step).facts["recipe"]
    assert set(made.tensors) == set(alone.tensors)
    assert all(np.array_equal(made.tensors[name].scale, alone.tensors[name].scale) for name in made.tensors)


def test_a_file_is_what_its_facts_say(study: Carried) -> None:
    for step in of_kind(study.design, "file"):
        if study.store.find(step.key) is None:
            continue
        facts, folder = study.done(step).facts, study.folder(step)
        path = folder / facts["file"]
        assert facts["sha256"] == digest_file(path) == open_variant(path).sha256
        assert facts["bytes"] == path.stat().st_size


def test_a_file_says_the_test_images_of_its_fold(study: Carried) -> None:
    for step in of_kind(study.design, "said"):
        if study.store.find(step.key) is None or step.asked["images"] == "external":
            continue
        said = load(study.folder(step) / "predictions.csv")
        opened = open_run(study.folder(step.needs["run"]), Path(step.places["data"]))
        assert said.ids == tuple(opened.dataset.ids[i] for i in opened.fold.test)
        facts = study.done(step).facts
        assert facts["metrics"]["accuracy"] == pytest.approx(overall("accuracy", said.truth, said.probabilities))
        assert facts["agreement"] >= 0.9 and facts["n"] == len(said)
        assert facts.get("integer_share") == (None if facts["recipe"] == "fp32" else 1.0)


def test_external_images_are_all_asked_about(study: Carried) -> None:
    row = study.row("int8-static")
    facts = study.done(row.external).facts
    assert facts["n"] == 64 and facts["folds"] == 1 and set(facts["deltas"]) == set(facts["metrics"])


def test_a_row_pools_its_folds(study: Carried) -> None:
    row = study.row("int8-static")
    facts, folder = study.done(row.score).facts, study.folder(row.score)
    trials = [study.design.trials[i] for i in row.trials]
    parts = [load(study.folder(trial.step) / "predictions.csv") for trial in trials]
    assert facts["n"] == sum(len(part) for part in parts) and facts["folds"] == 2
    assert len({name for part in parts for name in part.ids}) == facts["n"], "every image once"
    alone = evaluate(pooled(parts, "int8-static"), replicates=100, seed=0)
    one = facts["metrics"]["auroc"]
    assert one["value"] == pytest.approx(alone.overall["auroc"].value)
    folds = [overall("auroc", part.truth, np.asarray(part.probabilities)) for part in parts]
    assert one["folds"] == pytest.approx(folds)
    assert one["mean"] == pytest.approx(np.mean(folds)) and one["sd"] == pytest.approx(np.std(folds, ddof=1))
    assert facts["verdict"] == _outcome(read_json(folder / "verdict.json"))
    comparison = read_json(folder / "comparison.json")
    assert facts["deltas"]["auroc"]["delta"] == comparison["deltas"]["auroc"]["delta"]
    assert facts["smaller"] == pytest.approx(study.done(study.row("fp32").score).facts["bytes"] / facts["bytes"], 1e-3)
    assert read_json(folder / "evaluation.json")["n"] == facts["n"]


def _outcome(verdict: Mapping[str, Any]) -> str:
    states = {finding["status"] for finding in verdict["findings"]}
    return "FAIL" if "fail" in states else "INSUFFICIENT EVIDENCE" if "undecided" in states else "PASS"


def test_the_baseline_has_neither_differences_nor_a_verdict(study: Carried) -> None:
    facts = study.done(study.row("fp32").score).facts
    assert facts["deltas"] == {} and facts["flips"] is None and facts["verdict"] is None
    assert not (study.folder(study.row("fp32").score) / "comparison.json").exists()


def test_bench_drift_and_sensitivity_leave_what_tables_read(study: Carried) -> None:
    row = study.row("int8-static")
    rows = {one["name"]: one for one in study.done(row.bench).facts["rows"]}
    own = next(one for name, one in rows.items() if "int8-static" in name)
    assert own["latency"][0]["batch"] == 1 and own["latency"][0]["p50"] > 0 and own["speedups"]
    files = {study.done(step).facts["sha256"] for step in of_kind(study.design, "file") if study.store.find(step.key)}
    assert {one["sha256"] for one in rows.values()} <= files
    measures = study.done(row.drift).facts["measures"]
    assert -1 <= measures["rank correlation"]["low"] <= measures["rank correlation"]["mean"] <= 1
    assert not (study.folder(row.drift) / "files").exists()
    found = study.done(row.sensitivity).facts
    assert {"layer", "bits", "fisher", "divergence"} <= set(found["layers"][0])
    assert found["spearman"]["n"] == len(found["layers"]) and -1 <= found["spearman"]["value"] <= 1


def test_images_that_changed_are_refused(study: Carried, tmp_path: Path) -> None:
    step = of_kind(study.design, "train")[0]
    data = tmp_path / "data"
    shutil.copytree(step.places["data"], data)
    assert images_of(data, step.asked["fingerprint"], "own").dataset.fingerprint == step.asked["fingerprint"]
    first, second = sorted(data.rglob("*.png"))[:2]
    first.write_bytes(second.read_bytes())
    moved = replace(step, key="0" * 64, places={"data": str(data)}, asked={**step.asked, "split": "auto"})
    failed = execute(moved, FolderStore(str(tmp_path / "store")), silent)
    assert isinstance(failed, Failed) and "they have changed" in failed.reason


def test_a_file_of_fp32_that_is_not_pytorch_is_refused(study: Carried, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantward.audit.equivalence import Agreement

    monkeypatch.setattr("quantward.study.steps.said.agreement", lambda *_: Agreement(20, 0.5, 3.0, 1.0))
    step = next(one for one in of_kind(study.design, "said") if " fp32 " in one.label and "external" not in one.label)
    failed = execute(replace(step, key="1" * 64), study.store, silent)
    assert isinstance(failed, Failed) and "Quantizing it would measure the export" in failed.reason


def test_sensitivity_wants_a_recipe_with_fixed_ranges(study: Carried) -> None:
    step = of_kind(study.design, "sensitivity")[0]
    failed = execute(replace(step, key="2" * 64, asked={"recipe": "int8-dynamic", "seed": 0}), study.store, silent)
    assert isinstance(failed, Failed) and "Expected a recipe with ranges fixed beforehand" in failed.reason


def workplace(folder: Path, step: Step, **facts: Mapping[str, Any]) -> Workplace:
    return Workplace(step, folder, {part: folder / part for part in facts}, facts, silent)


def test_a_teachers_name_becomes_its_folder(tmp_path: Path) -> None:
    place = workplace(tmp_path, Step("k", "train", "l"), run={}, **{"@big": {}, "@bigger": {}})
    assert with_teachers("distill:teacher=@bigger,alpha=1", place) == f"distill:teacher={tmp_path / '@bigger'},alpha=1"
    assert with_teachers("fit:epochs=2", place) == "fit:epochs=2"


@dataclass(frozen=True)
class Folds:
    """Predictions of two folds and a candidate that turns some of them, as `said` steps leave them."""

    folder: Path
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, part: str, first: int, wrong: int, size: int, agreement: float = 1.0) -> None:
        from quantward.evaluate.predictions import save

        n = 60
        truth = np.arange(n) % 2
        sure = np.where(truth == 1, 0.9, 0.1)
        sure[:wrong] = 1 - sure[:wrong]
        said = Predictions(tuple(f"i{first + i}" for i in range(n)), truth, np.stack([1 - sure, sure], 1), ("a", "b"))
        save(said, self.folder / part / "predictions.csv")
        self.facts[part] = {"recipe": part.partition("/")[0], "bytes": size, "metrics": {"accuracy": 1 - wrong / n},
                            "agreement": agreement}  # fmt: skip


@pytest.mark.parametrize(("gates", "wrong", "outcome"), [
    ({"gates": {"accuracy-drop": {"limit": 0.3}}}, 0, "PASS"),
    ({"gates": {"accuracy-drop": {"limit": 0.05}}}, 30, "FAIL"),
    ({"gates": {"agreement": {"limit": 0.99}}}, 0, "FAIL"),
    ({"gates": {"size-ratio": {"limit": 3.0}}}, 0, "PASS"),
    ({"gates": {"size-ratio": {"limit": 5.0}}}, 0, "FAIL"),
    ("clinical", 30, "FAIL"),
])  # fmt: skip
def test_gates_are_the_studys(tmp_path: Path, gates: Any, wrong: int, outcome: str) -> None:
    folds = Folds(tmp_path)
    for fold in range(2):
        folds.add(f"baseline/{fold}", 60 * fold, 0, 4000)
        folds.add(f"candidate/{fold}", 60 * fold, wrong, 1000, agreement=1.0 - 0.02 * fold)
    step = Step("k", "score", "l", {"gates": gates, "replicates": 50, "seed": 0})
    facts = Score().run(workplace(tmp_path, step, **folds.facts))
    assert facts["verdict"] == outcome
    assert facts["agreement"] == 0.98, "of two folds the worse"
    assert (facts["n"], facts["folds"], facts["bytes"], facts["smaller"]) == (120, 2, 1000, 4.0)
    assert facts["metrics"]["accuracy"]["value"] == pytest.approx(1 - wrong / 60)


def test_unknown_gates_are_a_usage_error(tmp_path: Path) -> None:
    folds = Folds(tmp_path)
    folds.add("baseline/0", 0, 0, 1)
    folds.add("candidate/0", 0, 0, 1)
    step = Step("k", "score", "l", {"gates": {"gates": {"beauty": {}}}, "replicates": 20, "seed": 0})
    with pytest.raises(UsageError, match="Expected a gate"):
        Score().run(workplace(tmp_path, step, **folds.facts))


def test_refused_is_what_a_missing_run_is(study: Carried, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        open_run(tmp_path, tmp_path)
