"""The search end to end on a network and images that need no training: ladder, verdicts, report, bundle, resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from quantward.audit.equivalence import NotEquivalent
from quantward.bundle import predict, verify
from quantward.candidates import Search, Step
from quantward.core.contracts import Batch
from quantward.core.errors import Refused, UsageError
from quantward.core.preprocess import normalise
from quantward.core.store import read_json
from quantward.core.values import Dataset, Dossier, Fold, Plan
from quantward.data import split
from quantward.evaluate import read_gates
from quantward.find import find, publish, save_dossier, thumbnails
from quantward.graph.network import Network
from quantward.report.html import write_report

LENIENT = """gates:
  accuracy-drop: 0.06
  flip-rate: 0.2
  agreement: 0.97
"""


@pytest.fixture(scope="module")
def pictures(small_plan: Plan) -> Dataset:
    """Six hundred smooth random pictures, labelled by the network itself, one in twelve wrongly."""
    draw = np.random.default_rng(1)
    coarse = draw.integers(0, 256, (600, 8, 8, 3)).astype(np.float32)
    pixels = coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    with torch.no_grad():
        logits = Network(small_plan)(torch.from_numpy(normalise(pixels, small_plan.preprocess))).numpy()
    centred = logits - np.median(logits, axis=0)
    labels = centred.argmax(1)
    wrong = draw.random(600) < 1 / 12
    labels[wrong] = draw.integers(0, 4, int(wrong.sum()))
    return Dataset(
        name="pictures",
        classes=small_plan.classes,
        ids=tuple(f"p{i:03}.png" for i in range(600)),
        labels=labels,
        fingerprint="0123456789abcdef",
        reader=lambda i: pixels[i],
        groups=tuple(f"patient {i // 2}" for i in range(600)),
        attributes={"site": tuple("north" if i % 4 < 2 else "south" for i in range(600))},
    )


@pytest.fixture(scope="module")
def centred_plan(small_plan: Plan, pictures: Dataset) -> Plan:
    """The small network with its biases moved so that it says what the labels say."""
    pixels = np.stack([pictures.read(i) for i in range(len(pictures))])
    with torch.no_grad():
        logits = Network(small_plan)(torch.from_numpy(normalise(pixels, small_plan.preprocess))).numpy()
    moved = (small_plan.weights["head.bias"] - np.median(logits, axis=0)).astype(np.float32)
    return replace(small_plan, weights={**small_plan.weights, "head.bias": moved}, parent="centred")


@pytest.fixture(scope="module")
def fold(pictures: Dataset) -> Fold:
    return split(pictures, seed=0)


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    gates = tmp_path_factory.mktemp("gates") / "gates.yaml"
    gates.write_text(LENIENT)
    ladder = (
        Step("FP16", ("fp16",)),
        Step("INT8", ("int8-static:calibrator=max", "int8-static:calibrator=entropy", "int8-static:keep=nothing*")),
    )
    return Search(read_gates(gates), ladder=ladder, runtime="onnxruntime", replicates=500, subgroups=("site",))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def dossier(centred_plan: Plan, pictures: Dataset, fold: Fold, search: Search, home: Path) -> Dossier:
    return find(centred_plan, pictures, fold, search, home, external=replace(pictures, name="elsewhere", attributes={}))


def test_lowest_precision_that_passes_is_chosen(dossier: Dossier) -> None:
    told = {e.name: [f"{f.code}: {f.why}" for f in e.verdict.findings] for e in dossier.entries if e.verdict}
    assert [entry.name for entry in dossier.entries][:2] == ["fp32", "fp16"]
    assert dossier.chosen is not None, told
    assert dossier.chosen.startswith("int8-static:calibrator=")
    entry = next(entry for entry in dossier.entries if entry.name == dossier.chosen)
    assert entry.verdict is not None and entry.verdict.outcome == "PASS"
    assert entry.audit["integer_share"] == 1.0
    assert entry.comparison is not None and entry.comparison.n == len(entry.predictions or ())


def test_choice_is_made_on_select_and_verdict_on_test(dossier: Dossier, pictures: Dataset, fold: Fold) -> None:
    assert {row["images"] for row in dossier.choices} == {len(fold.select)}
    said = dossier.entries[0].predictions
    assert said is not None
    assert set(said.ids) == {pictures.ids[i] for i in fold.test}
    (best,) = [row for row in dossier.choices if row["precision"] == "INT8" and row["chosen"]]
    assert best["candidate"] == dossier.chosen


def test_a_slower_file_is_taken_only_where_no_other_is_left() -> None:
    from quantward.core.values import Efficiency, Latency
    from quantward.find import _near_the_fastest, _slower

    def cost(ms: float) -> Efficiency:
        return Efficiency("x", "r", 1, 0.0, (Latency(1, ms, ms, ms, 9, 0.0), Latency(32, 1.0, 1.0, 1.0, 9, 0.0)))

    costs = {"fp32": cost(10.0), "slow": cost(11.1), "same": cost(10.9)}
    assert [_slower(costs, name) for name in ("slow", "same", "fp32", "unmeasured")] == [True, False, False, False]
    timed = {"quick": cost(4.0), "near": cost(5.0), "far": cost(5.1)}
    assert _near_the_fastest(timed, ["far", "near", "quick"]) == ["near", "quick"]
    assert _near_the_fastest(timed, ["far", "unmeasured"]) == ["far", "unmeasured"]


def test_what_a_busy_machine_made_slow_is_not_left_out() -> None:
    from quantward.core.values import Efficiency, Latency
    from quantward.find import _near_the_fastest, _slower

    def cost(*rounds: float) -> Efficiency:
        p50 = float(np.median(rounds))
        return Efficiency("x", "r", 1, 0.0, (Latency(1, p50, p50, p50, 9, 0.0, rounds),))

    calm, steady, noisy = (cost(*times) for times in ([4.0] * 9, [6.0] * 9, [4.0] * 4 + [9.0] * 5))
    assert _near_the_fastest({"calm": calm, "steady": steady, "noisy": noisy}, ["calm", "steady", "noisy"]) == [
        "calm",
        "noisy",
    ]
    assert [_slower({"fp32": calm, "x": row}, "x") for row in (steady, noisy)] == [True, False]


def test_candidate_that_cannot_be_made_is_a_row_with_its_reason(dossier: Dossier) -> None:
    failed = dossier.entries[-1]
    assert failed.verdict is None
    assert failed.failure.startswith("Expected keep=nothing* to name a layer")


def test_the_page_says_which_runtime_was_taken(dossier: Dossier, tmp_path: Path) -> None:
    settings = {**dossier.provenance["settings"], "runtime_choice": "Fastest runtime here: openvino, 3.00 ms an image."}
    told = replace(dossier, provenance={**dossier.provenance, "settings": settings})
    assert "Fastest runtime here: openvino" in write_report(told, tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Fastest runtime" not in write_report(dossier, tmp_path / "b.html").read_text(encoding="utf-8")


def test_default_ladder_goes_from_half_precision_to_four_bits() -> None:
    from quantward.candidates import LADDER
    from quantward.core.registry import spelling
    from quantward.workbench import RECIPES

    assert [step.precision for step in LADDER] == ["FP16", "INT8", "INT8/INT4", "INT4"]
    for step in LADDER:
        for recipe in step.recipes:
            assert RECIPES.make(spelling(RECIPES.make(recipe))) == RECIPES.make(recipe)


def test_an_unknown_subgroup_is_refused_before_anything_is_made(
    centred_plan: Plan, pictures: Dataset, fold: Fold, search: Search, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="site"):
        find(centred_plan, pictures, fold, replace(search, subgroups=("sight",)), tmp_path)
    assert not any(tmp_path.iterdir())


def test_power_and_external_images_are_told(dossier: Dossier) -> None:
    assert "prove no margin below" in dossier.power
    assert dossier.external_images["name"] == "elsewhere"
    assert [entry.name for entry in dossier.external] == [entry.name for entry in dossier.entries]


def test_second_search_reads_what_the_first_wrote(
    dossier: Dossier, centred_plan: Plan, pictures: Dataset, fold: Fold, search: Search, home: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in home.rglob("*") if p.is_file()}
    again = find(centred_plan, pictures, fold, search, home)
    assert {p: p.stat().st_mtime_ns for p in home.rglob("*") if p.is_file()} == before
    assert again.chosen == dossier.chosen
    for one, two in zip(dossier.entries, again.entries, strict=True):
        if one.comparison is not None and two.comparison is not None:
            assert one.comparison.deltas == two.comparison.deltas


def test_changed_file_is_made_again(
    dossier: Dossier, centred_plan: Plan, pictures: Dataset, fold: Fold, search: Search, home: Path
) -> None:
    file = home / "files" / "fp16.onnx"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"x")
    find(centred_plan, pictures, fold, search, home)
    assert file.read_bytes() == good


def test_export_that_computes_something_else_stops_the_search(
    centred_plan: Plan, pictures: Dataset, fold: Fold, search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import quantward.candidates as module

    real = module.open_session

    def bent(variant, runtime, threads):  # type: ignore[no-untyped-def]
        session = real(variant, runtime, threads)
        return (lambda batch: session(batch) + 0.01) if runtime == "onnxruntime" else session

    monkeypatch.setattr(module, "open_session", bent)
    with pytest.raises(NotEquivalent, match="Expected the FP32 file on onnxruntime to give the same logits"):
        find(centred_plan, pictures, fold, search, tmp_path)
    assert not (tmp_path / "predictions").exists()


@pytest.fixture(scope="module")
def bundle(dossier: Dossier, search: Search, home: Path, pictures: Dataset) -> Path:
    save_dossier(dossier, home / "dossier.json")
    report = write_report(dossier, home / "report.html", thumbnails(pictures))
    made = publish(dossier, search, home, report)
    assert made is not None
    return made


def test_bundle_verifies_and_its_verdict_is_computed_anew(bundle: Path) -> None:
    found = verify(bundle)
    assert found.holds, found.checks
    assert found.verdict == "PASS"


def test_bundle_names_no_image(bundle: Path) -> None:
    proof = (bundle / "proof" / "candidate.csv").read_text()
    assert "p0" not in proof.replace("p_", "") or ".png" not in proof
    assert "patient 1" not in proof


@pytest.mark.parametrize("name", ["model.onnx", "proof/candidate.csv", "labels.json"])
def test_changed_bundle_is_found(bundle: Path, tmp_path: Path, name: str) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    found = verify(copy)
    assert not found.holds
    assert [check.name for check in found.checks if not check.holds] == [name]


def test_file_that_the_manifest_does_not_know_is_found(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    (copy / "extra.txt").write_text("x")
    assert "extra.txt" in [check.name for check in verify(copy).checks if not check.holds]


def test_manifest_cannot_reach_out_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["../secret.txt"] = "0" * 64
    (tmp_path / "secret.txt").write_text("x")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    check = next(check for check in verify(copy).checks if check.name == "../secret.txt")
    assert not check.holds and check.seen == "not in the bundle"


def test_claimed_verdict_is_not_believed(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "verdict": "FAIL"}))
    assert not verify(copy).holds


def test_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Expected a bundle"):
        verify(tmp_path)


def test_bundle_predicts_single_images_as_it_was_measured(
    bundle: Path, dossier: Dossier, pictures: Dataset, fold: Fold, tmp_path: Path
) -> None:
    from PIL import Image

    entry = next(entry for entry in dossier.entries if entry.name == dossier.chosen)
    assert entry.predictions is not None
    Image.fromarray(pictures.read(int(fold.test[0]))).save(tmp_path / "a.png")
    (row,) = predict(bundle, [tmp_path / "a.png"])
    expected = entry.predictions.probabilities[0]
    got = [row["probabilities"][name] for name in pictures.classes]
    assert np.allclose(got, expected, atol=1e-5)


def test_dossier_json_holds_every_verdict(dossier: Dossier, bundle: Path, home: Path) -> None:
    document = read_json(home / "dossier.json")
    assert document["chosen"] == dossier.chosen
    outcomes = [entry["verdict"]["outcome"] for entry in document["entries"] if entry["verdict"]]
    assert "PASS" in outcomes
    assert all(entry["predictions"] is None for entry in document["entries"])


def test_images_fixture_is_what_the_network_reads(images: Batch, small_plan: Plan) -> None:
    assert images.shape[1:] == (3, small_plan.preprocess.size, small_plan.preprocess.size)
