"""From a study to steps: each once, needs first, the right baseline; folds that any step can draw again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("timm")

from quantward.core.errors import Refused, UsageError
from quantward.core.values import ROLES
from quantward.crossval import make_folds
from quantward.runs import prepare
from quantward.study.design import KINDS, design
from quantward.study.forecast import forecast
from quantward.study.grid import baseline, ways
from quantward.study.images import fold_of, opened
from quantward.study.looking import Seen, look
from quantward.study.schema import read_study
from quantward.study.values import Design, Done, Row, Step
from quantward.study.wants import Images, Study

KIND: Any = {name: SimpleNamespace(rooms=("core",), libraries=("numpy",)) for name in KINDS}
SHIPPED = sorted((Path(__file__).resolve().parents[2] / "studies").glob("*.yaml"))
WHOLE = """\
format: 1
name: tiny
data:
  scans: {path: scans, external: outside}
folds: 2
seed: 7
backbones: [resnet10t]
weights: none
size: 32
stages: ["fit:epochs=1", "distill:epochs=1,teacher=@big", "saliency:masked={k},epochs=1"]
teachers:
  big: {arch: resnet18, stage: "fit:epochs=2"}
vary: {k: [0.3, 0.5]}
recipes: [int8-static, "qat:epochs=1"]
lessons: ["", "saliency:masked={k}"]
targets: [onnx-cpu, torch-int8]
runtimes: [onnxruntime, openvino, "torch-int8:engine=fbgemm"]
skip: [{recipe: fp32, target: torch-int8}]
bench: {batches: [1], seconds: 0.5}
drift: {images: 16}
sensitivity: true
"""


def study_of(folder: Path, text: str = WHOLE) -> Study:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def seen_of(study: Study, name: str = "f") -> dict[str, Seen]:
    """What a design would find if the images were opened."""
    counts = {"train": 60, "tune": 12, "calibrate": 12, "select": 10, "test": 50}
    return {
        images.name: Seen(Path("/data") / images.name, name + images.name, (counts,) * study.folds,
                          Path("/data/outside") if images.external else None, "e" if images.external else "", 20)
        for images in study.data
    }  # fmt: skip


def made(study: Study, **more: Any) -> Design:
    return design(study, Path("/data"), kinds=KIND, seen=more.pop("seen", None) or seen_of(study), **more)


@pytest.fixture
def tiny(tmp_path: Path) -> Design:
    return made(study_of(tmp_path))


def step_of(found: Design, kind: str, **asked: Any) -> list[Step]:
    return [step for step in found.steps.values()
            if step.kind == kind and all(step.asked.get(key) == value for key, value in asked.items())]  # fmt: skip


def test_every_step_comes_after_what_it_needs_and_once(tiny: Design) -> None:
    before: set[str] = set()
    for key, step in tiny.steps.items():
        assert key == step.key and set(step.needs.values()) <= before
        before.add(key)
    kinds = Counter(step.kind for step in tiny.steps.values())
    # Two folds of four stages (one is spelled with k, twice) and of the teacher.
    assert kinds["train"] == 2 * (4 + 1)
    # fp32, int8-static and qat a stage; qat with k = 0.3 and 0.5 for two stages, with its own k for the two others.
    assert kinds["plan"] == 2 * (4 * 3 + 2 * 2 + 2 * 1)
    assert kinds["bench"] == 1 and [step.kind for step in tiny.steps.values()][-1] == "bench"
    assert kinds["sensitivity"] == 4 and kinds["drift"] == 4 * 2 + 2 * 2 + 2


def test_rows_pool_their_folds(tiny: Design) -> None:
    numbers = [number for row in tiny.rows for number in row.trials]
    assert sorted(numbers) == list(range(len(tiny.trials)))
    for row in tiny.rows:
        trials = [tiny.trials[number] for number in row.trials]
        assert [trial.fold for trial in trials] == [0, 1]
        assert {(trial.recipe, trial.target, trial.runtime) for trial in trials} == {
            (row.recipe, row.target, row.runtime)
        }
        score = tiny.steps[row.score]
        assert [score.needs[f"candidate/{number}"] for number in range(2)] == [trial.step for trial in trials]


def test_what_a_said_step_asks_is_the_file_of_its_own_fold(tiny: Design) -> None:
    for trial in tiny.trials:
        said = tiny.steps[trial.step]
        file, plan = tiny.steps[said.needs["file"]], tiny.steps[said.needs["plan"]]
        run = tiny.steps[said.needs["run"]]
        assert file.needs["plan"] == said.needs["plan"] and plan.needs["run"] == said.needs["run"]
        assert run.asked["fold"] == {"number": trial.fold, "of": 2, "seed": 7} and file.asked["target"] == trial.target
        assert said.asked == {"runtime": trial.runtime, "threads": 1, "images": "test"}


def row_of(found: Design, **about: str) -> Row:
    rows = [row for row in found.rows if all(getattr(row, key) == value for key, value in about.items())]
    assert len(rows) == 1, about
    return rows[0]


def told_by(found: Design, row: Row) -> tuple[str, str, str, str] | None:
    """What the row is compared with: stage, recipe, target, runtime."""
    needs = found.steps[row.score].needs
    if "baseline/0" not in needs:
        return None
    trial = next(one for one in found.trials if one.step == needs["baseline/0"])
    return trial.stage, trial.recipe, trial.target, trial.runtime


def test_baselines(tiny: Design) -> None:
    fit, distill = "fit:epochs=1", "distill:epochs=1,teacher=@big"
    assert told_by(tiny, row_of(tiny, stage=fit, recipe="fp32", runtime="openvino")) is None
    later = row_of(tiny, stage=distill, recipe="fp32", runtime="openvino")
    assert told_by(tiny, later) == (fit, "fp32", "onnx-cpu", "openvino")
    small = row_of(tiny, stage=distill, recipe="int8-static", runtime="openvino")
    assert told_by(tiny, small) == (distill, "fp32", "onnx-cpu", "openvino")
    # There is no fp32 in PyTorch's integer form: its first form stands for it.
    torch = row_of(tiny, stage=fit, recipe="int8-static", target="torch-int8")
    assert told_by(tiny, torch) == (fit, "fp32", "onnx-cpu", "onnxruntime")


def test_recipe_lesson_and_stage_of_a_row_share_their_values(tiny: Design) -> None:
    for row in tiny.rows:
        if row.stage.startswith("saliency") and row.lesson:
            assert row.stage == f"{row.lesson},epochs=1"
        assert not row.lesson or row.recipe.startswith("qat")


def test_teachers_are_trained_on_the_same_fold(tiny: Design) -> None:
    for step in step_of(tiny, "train"):
        if "@big" in step.needs:
            teacher = tiny.steps[step.needs["@big"]]
            assert teacher.asked["arch"] == "resnet18" and teacher.asked["stage"] == "fit:epochs=2"
            assert teacher.asked["fold"] == step.asked["fold"]
    assert sum("@big" in step.needs for step in step_of(tiny, "train")) == 2


def test_external_images_are_asked_of_the_first_fold_alone(tiny: Design) -> None:
    row = row_of(tiny, stage="fit:epochs=1", recipe="int8-static", runtime="openvino")
    score = tiny.steps[row.external]
    assert set(score.needs) == {"candidate/0", "baseline/0"}
    said = tiny.steps[score.needs["candidate/0"]]
    assert said.asked["images"] == "external" and said.asked["fingerprint"] == "e"
    assert said.places == {"data": "/data/scans", "external": "/data/outside"}
    assert tiny.steps[said.needs["run"]].asked["fold"]["number"] == 0


def test_the_bench_times_all_files_of_the_first_fold_in_one_step(tiny: Design) -> None:
    [bench] = step_of(tiny, "bench")
    assert bench.alone and {row.bench for row in tiny.rows} == {bench.key}
    assert all(part.startswith("file/") for part in bench.needs)
    firsts = {tiny.steps[trial.step].needs["file"] for trial in tiny.trials if trial.fold == 0}
    assert set(bench.needs.values()) == firsts
    assert all(not step.alone for step in tiny.steps.values() if step is not bench)


def test_drift_and_sensitivity_stand_in_their_rows(tiny: Design) -> None:
    for row in tiny.rows:
        assert bool(row.drift) == (row.recipe != "fp32")
        sensitivity = tiny.steps[row.sensitivity]
        run = tiny.steps[tiny.steps[tiny.trials[row.trials[0]].step].needs["run"]]
        assert sensitivity.asked == {"recipe": "int8-static", "seed": 7} and sensitivity.needs == {"run": run.key}


def test_two_spellings_of_one_thing_are_one_step(tmp_path: Path) -> None:
    text = WHOLE.replace('[int8-static, "qat:epochs=1"]', '[int8-static, "int8-static:calibrator=mse", "qat:epochs=1"]')
    found = made(study_of(tmp_path, text))
    one, other = (row_of(found, stage="fit:epochs=1", recipe=recipe, runtime="openvino")
                  for recipe in ("int8-static", "int8-static:calibrator=mse"))  # fmt: skip
    assert one.score == other.score and one.recipe != other.recipe


def test_where_files_lie_decides_nothing_and_what_is_in_them_all(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    seen = seen_of(study)
    elsewhere = {name: replace(one, place=Path("/elsewhere")) for name, one in seen.items()}
    one, moved = made(study, seen=seen), made(study, seen=elsewhere)
    assert list(one.steps) == list(moved.steps) and one.trials == moved.trials
    assert all(step.places["data"] == "/elsewhere" for step in moved.steps.values())
    changed = made(study, seen={name: replace(seen, fingerprint="other") for name, seen in seen.items()})
    assert not set(one.steps) & set(changed.steps)


CHANGES = {
    "another gate": ("sensitivity: true", "sensitivity: true\ngates: screening", {"score"}),
    "more replicates": ("sensitivity: true", "sensitivity: true\nreplicates: 500", {"score"}),
    "longer timing": ("seconds: 0.5", "seconds: 1", {"bench"}),
    "another drift": ("{images: 16}", "{images: 32}", {"drift"}),
    "another teacher": ('"fit:epochs=2"', '"fit:epochs=3"',
                        {"train", "plan", "file", "said", "score", "bench", "drift", "sensitivity"}),
    "another option of one recipe": ("[int8-static,", "[int8-static:samples=8,",
                                     {"plan", "file", "said", "score", "bench", "drift"}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_new_exactly_what_depends_on_it(tmp_path: Path, change: str) -> None:
    right, wrong, kinds = CHANGES[change]
    before, after = made(study_of(tmp_path)), made(study_of(tmp_path, WHOLE.replace(right, wrong)))
    new = {key: step for key, step in after.steps.items() if key not in before.steps}
    assert {step.kind for step in new.values()} == kinds
    kept = [step for key, step in after.steps.items() if key in before.steps]
    assert all(not set(step.needs.values()) & set(new) for step in kept)
    if change == "another teacher":
        assert all("distill" in step.label or "teacher" in step.label or step.kind == "bench" or "fp32" in step.label
                   for step in new.values())  # fmt: skip
    if change == "another option of one recipe":
        assert all("int8-static:samples=8" in step.label or step.kind == "bench" for step in new.values())


def test_a_study_of_which_everything_is_left_out_is_refused(tmp_path: Path) -> None:
    text = WHOLE.replace("skip: [{recipe: fp32, target: torch-int8}]", 'skip: [{recipe: "*"}]')
    with pytest.raises(UsageError, match="every one is left out by skip"):
        made(study_of(tmp_path, text))


def test_weights_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    text = WHOLE.replace("weights: none", "weights: mine").replace("big: {arch", "big: {weights: none, arch")
    (tmp_path / "mine").mkdir()
    study = study_of(tmp_path, text)

    def train(content: bytes) -> Step:
        from quantward.study.design import _weights_digest

        _weights_digest.cache_clear()
        (tmp_path / "mine" / "resnet10t.x.safetensors").write_bytes(content)
        found = design(study, tmp_path, kinds=KIND, seen=seen_of(study))
        return next(step for step in step_of(found, "train", arch="resnet10t"))

    one, other = train(b"one"), train(b"other")
    assert one.key != other.key and one.places["weights"] == str(tmp_path / "mine")
    assert one.asked["weights"] != other.asked["weights"] and len(one.asked["weights"]) == 64
    (tmp_path / "mine" / "resnet10t.x.safetensors").unlink()
    from quantward.study.design import _weights_digest

    _weights_digest.cache_clear()
    with pytest.raises(Refused, match="weight"):
        design(study, tmp_path, kinds=KIND, seen=seen_of(study))


@pytest.mark.parametrize(("split", "of"), [("own", 1), ("own", 3), ("ungrouped", 3), ("auto", 1)])
def test_a_step_draws_the_very_fold_of_its_study(tmp_path: Path, split: str, of: int) -> None:
    images = Images("scans", toy=64, classes=2, split=split)
    shares = {"calibrate": 0.3}
    seen = look(images, tmp_path, folds=of, seed=3, shares=shares, toys=tmp_path)
    prepared = opened(seen.place, split, of)
    assert prepared.dataset.fingerprint == seen.fingerprint and len(seen.counts) == of
    tested: list[int] = []
    for number in range(of):
        fold = fold_of(prepared, {"number": number, "of": of, "seed": 3, "shares": shares})
        again = fold_of(prepared, {"number": number, "of": of, "seed": 3, "shares": shares})
        assert all(np.array_equal(fold.role(role), again.role(role)) for role in ROLES)
        assert {role: len(fold.role(role)) for role in ROLES} == seen.counts[number]
        tested += fold.test.tolist()
    if of > 1:
        assert sorted(tested) == list(range(len(prepared.dataset)))
        plain = fold_of(prepared, {"number": 0, "of": of, "seed": 3})
        [*theirs] = make_folds(prepared.dataset, folds=of, seed=3)
        assert all(np.array_equal(plain.role(role), theirs[0].role(role)) for role in ROLES)


def test_images_that_cannot_be_used_as_asked_are_told_before_anything_runs(tmp_path: Path) -> None:
    options: dict[str, Any] = {"seed": 0, "shares": {}, "toys": tmp_path}
    with pytest.raises(Refused, match="Use fewer folds"):
        look(Images("scans", toy=32), tmp_path, folds=40, **options)
    with pytest.raises(Refused, match="there is nothing"):
        look(Images("scans", "nowhere"), tmp_path, folds=2, **options)
    place = look(Images("scans", toy=64, classes=2), tmp_path, folds=1, **options).place
    other = look(Images("scans", toy=64, classes=3), tmp_path, folds=1, **options).place
    with pytest.raises(UsageError, match="external images of the classes"):
        look(Images("scans", str(place), external=str(other)), tmp_path, folds=1, **options)


def test_warnings_of_the_images_reach_the_design(tmp_path: Path) -> None:
    text = "format: 1\nname: a\ndata: {scans: {toy: 96, split: ungrouped}}\nbackbones: [resnet10t]\nweights: none\n"
    found = design(study_of(tmp_path, text), tmp_path, kinds=KIND, toys=tmp_path)
    assert any("No verdict may rest on them" in warning for warning in found.study["warnings"])


def test_an_ungrouped_set_keeps_every_file_and_forgets_who_is_whose(tmp_path: Path) -> None:
    from quantward.data import make_toy

    data = make_toy(tmp_path / "toy", n=64, classes=2, leaks=6)
    own, loose = prepare(data, "own"), prepare(data, "ungrouped")
    assert len(own.dataset) == 64 and len(loose.dataset) == 70
    assert loose.dataset.groups is None and not loose.published
    assert loose.dataset.fingerprint != own.dataset.fingerprint and "ungrouped" in loose.warnings[0]


def test_ten_thousand_trials_expand_and_each_image_set_is_opened_once(tmp_path: Path) -> None:
    samples = ", ".join(str(4 + number) for number in range(100))
    text = f"""\
format: 1
name: large
data: {{a: a, b: b}}
folds: 5
backbones: [resnet10t, resnet18]
weights: none
vary: {{n: [{samples}]}}
recipes: ["int8-static:samples={{n}}", "low-bit:samples={{n}}", "int8-static:calibrator=max,samples={{n}}"]
runtimes: [onnxruntime, openvino]
"""
    study = study_of(tmp_path, text)
    found = made(study)
    assert len(found.rows) == 2 * 2 * 301 * 2 and len(found.trials) == 5 * len(found.rows) == 12_040
    assert len({row.score for row in found.rows}) == len(found.rows)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_figure_of_a_paper_is_about_rows_of_its_study(path: Path) -> None:
    study = read_study(path)
    place = Path("/data")
    without = replace(study, backbones=tuple(replace(net, weights="none") for net in study.backbones),
                      teachers=tuple(replace(net, weights="none") for net in study.teachers))  # fmt: skip
    found = design(without, place, kinds=KIND, seen=seen_of(study))
    for figure in study.published:
        about = [row for row in found.rows
                 if all(fnmatchcase(getattr(row, key), glob) for key, glob in figure.where.items())]  # fmt: skip
        assert about, figure


def test_a_study_forecasts_by_what_has_been_timed(tiny: Design) -> None:
    before = forecast(tiny, {})
    assert before.rough and before.seconds == pytest.approx(sum(step.guess for step in tiny.steps.values()))
    first = step_of(tiny, "train", arch="resnet10t")[0]
    done = Done(first.key, "train", "", {}, {}, seconds=10 * first.guess)
    after = forecast(tiny, {first.key: done})
    other = step_of(tiny, "train", arch="resnet10t")[1]
    assert after.times[other.key] == pytest.approx(10 * other.guess) and first.key not in after.times
    teacher = step_of(tiny, "train", arch="resnet18")[0]
    assert after.times[teacher.key] == pytest.approx(10 * teacher.guess)  # another network: the kind's own factor
    train = next(work for work in after.kinds if work.kind == "train")
    assert (train.steps, train.done, train.rough) == (10, 1, False)
    everything = {key: Done(key, step.kind, "", {}, {}, 1.0) for key, step in tiny.steps.items()}
    finished = forecast(tiny, everything)
    assert finished.seconds == 0 and not finished.rough


def test_the_first_row_of_a_stage_is_its_fp32(tmp_path: Path) -> None:
    rows = ways(study_of(tmp_path))
    for stage in dict.fromkeys(row.stage for row in rows):
        assert next(row for row in rows if row.stage == stage).recipe == "fp32"
    assert baseline(rows[0], rows) is None


def test_what_was_seen_is_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantward.data import make_toy
    from quantward.study import looking

    monkeypatch.setenv("QUANTWARD_CACHE", str(tmp_path / "cache"))
    place = make_toy(tmp_path / "scans", n=64, classes=2)
    opens: list[Path] = []
    monkeypatch.setattr(looking, "opened", lambda path, *how, **more: opens.append(path) or opened(path, *how, **more))
    options: dict[str, Any] = {"folds": 2, "seed": 0, "shares": {}}
    first = look(Images("scans", "scans"), tmp_path, **options)
    assert look(Images("scans", "scans"), tmp_path, **options) == first and len(opens) == 1
    assert look(Images("scans", "scans", split="ungrouped"), tmp_path, **options) != first and len(opens) == 2
    image = next(place.glob("nodule/*.png"))
    image.write_bytes(next(place.glob("healthy/*.png")).read_bytes())
    assert look(Images("scans", "scans"), tmp_path, **options).fingerprint != first.fingerprint and len(opens) == 3
