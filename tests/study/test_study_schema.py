"""Study files: what they may say, how a scale replaces keys, and that each mistake is one sentence with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("timm")

from quantward.core.errors import UsageError
from quantward.study.lines import read_lines
from quantward.study.schema import SCALES, read_study
from quantward.study.wants import Images, Looks, Net, Timing

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "studies").glob("*.yaml"))
WHOLE = """\
format: 1
name: tiny
data:
  scans: {toy: 96, external: toy}
  photos: {path: photographs, split: ungrouped}
folds: 3
shares: {train: 0.6, select: 0}
backbones: [resnet10t, {name: wide, arch: resnet18, weights: none, size: 48}]
weights: weights
size: 32
stages: ["fit:epochs=1", "distill:teacher=@big"]
teachers:
  big: {arch: resnet18, stage: "fit:epochs=2"}
vary: {n: [8, 16], k: [0.3, 0.5]}
recipes: ["int8-static:samples={n}", fp32, "qat:epochs=1"]
lessons: ["", "saliency:masked={k}"]
targets: [onnx-cpu, litert]
runtimes: [onnxruntime, openvino, litert]
skip: [{recipe: [qat*, "*samples=8"], target: litert}]
bench: {batches: [1], seconds: 0.5}
drift: {images: 16}
sensitivity: true
gates:
  accuracy-drop: 0.02
  size-ratio: 4
published: [{row: A1, where: {recipe: fp32}, metric: "f1[ring]", value: 0.9, cite: Table 1}]
tables: [rows, "sweep:over=n"]
cut: [Everything large.]
smoke:
  data: {scans: toy}
  drift: null
  gates: {flip-rate: 0.1}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_study_is_read_whole(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, WHOLE))
    assert study.data == (Images("scans", toy=96, external="toy"), Images("photos", "photographs", "ungrouped"))
    assert study.backbones == (Net("resnet10t", "resnet10t", "weights", 32), Net("wide", "resnet18", "none", 48))
    assert study.teachers == (Net("big", "resnet18", "weights", 32, "fit:epochs=2"),)
    assert study.recipes == ("fp32", "int8-static:samples={n}", "qat:epochs=1")  # fp32 is always there, and first
    assert study.vary == {"n": (8, 16), "k": (0.3, 0.5)} and study.shares == {"train": 0.6, "select": 0.0}
    assert study.bench == Timing((1,), 0.5) and study.drift == Looks("gradcam", 16)
    assert study.sensitivity == "int8-static" and study.skip[0]["recipe"] == ("qat*", "*samples=8")
    assert study.gates == {"gates": {"accuracy-drop": {"limit": 0.02}, "size-ratio": {"limit": 4.0}}}
    assert study.document["scale"] == "full" and study.document["vary"] == {"n": [8, 16], "k": [0.3, 0.5]}
    assert study.document["published"][0]["metric"] == "f1[ring]"


def test_what_a_study_leaves_out_has_a_default(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, "format: 1\nname: least\ndata: {scans: toy}\nbackbones: [resnet10t]\n"))
    assert (study.recipes, study.stages, study.lessons) == (("fp32",), ("fit",), ("",))
    assert study.pairs() == [("onnx-cpu", "onnxruntime")] and study.gates == "clinical"
    assert (study.folds, study.seed, study.threads, study.replicates) == (1, 0, 1, 2000)
    assert study.bench is None and study.drift is None and study.sensitivity == ""


def test_a_scale_replaces_keys_and_null_takes_one_away(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    smoke = read_study(path, "smoke")
    assert [images.name for images in smoke.data] == ["scans"] and smoke.folds == 3
    assert smoke.drift is None and smoke.gates == {"gates": {"flip-rate": {"limit": 0.1}}}
    with pytest.raises(UsageError, match=r"the scale 'laptop'.*it has none"):
        read_study(path, "laptop")
    with pytest.raises(UsageError, match=r"scale out of full, laptop, smoke.*Did you mean 'smoke'"):
        read_study(path, "smok")


def test_only_targets_and_runtimes_that_work_together_are_paired(tmp_path: Path) -> None:
    pairs = read_study(written(tmp_path, WHOLE)).pairs()
    assert pairs == [("onnx-cpu", "onnxruntime"), ("onnx-cpu", "openvino"), ("litert", "litert")]


def test_gates_may_be_a_file_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("gates: {accuracy-drop: 0.01}\n")
    text = WHOLE.replace("gates:\n  accuracy-drop: 0.02\n  size-ratio: 4\n", "gates: mine.yaml\n")
    assert read_study(written(tmp_path, text)).gates == {"gates": {"accuracy-drop": {"limit": 0.01}}}


MISTAKES = {
    "unknown key": ("folds: 3", "fold: 3", 6, "got 'fold'. Did you mean 'folds'"),
    "unknown key in a scale": ("  drift: null", "  drfit: null", 31, "Did you mean 'drift'"),
    "key twice": ("folds: 3", "folds: 3\nfolds: 4", None, "lines 6 and 7 both hold it"),
    "not whole": ("folds: 3", "folds: 2.5", 6, "a whole number of at least 1"),
    "too few": ("folds: 3", "folds: 0", 6, "a whole number of at least 1"),
    "empty list": ("[resnet10t, {name: wide, arch: resnet18, weights: none, size: 48}]", "[]", 8, "at least one"),
    "no list": ("[onnx-cpu, litert]", "onnx-cpu", 17, "a list of targets"),
    "unknown network": ("[resnet10t,", "[resnet10x,", 8, "timm architecture"),
    "network twice": ("[resnet10t,", "[resnet10t, resnet10t,", 8, "Give it a `name`"),
    "unknown recipe": ("fp32,", "fp23,", 15, "Expected a recipe; got 'fp23'"),
    "unknown option": ("samples={n}", "sample={n}", 15, "Did you mean 'samples'"),
    "option out of range": ('"qat:epochs=1"', '"qat:epochs=0"', 15, "epochs above 0"),
    "value of the wrong type": ("n: [8, 16]", "n: [8, many]", 15, "a value of type"),
    "unknown name": ("samples={n}", "samples={m}", 15, "Expected {m} among the names of vary"),
    "unused name": ("vary: {", "vary: {unused: [1], ", 14, "Expected {unused} in a recipe, lesson or stage"),
    "unknown stage": ("fit:epochs=1", "fits:epochs=1", 11, "Expected a stage; got 'fits'"),
    "lesson with options of a loop": ("masked={k}", "epochs=3,masked={k}", 16, "got epochs"),
    "unknown teacher": ("@big", "@bog", 11, "got @bog. Did you mean 'big'"),
    "unused teacher": (', "distill:teacher=@big"', "", 13, "Expected a stage or lesson with @big"),
    "unknown target": ("[onnx-cpu,", "[onnx-gpu,", 17, "Expected a target"),
    "unread target": ("openvino, litert]", "openvino]", 17, "a runtime that reads 'litert'"),
    "runtime without a target": ("[onnx-cpu, litert]", "[onnx-cpu]", 18, "a target that writes for 'litert'"),
    "unknown split": ("ungrouped", "random", 5, "Expected a split out of"),
    "path and toy": ("{toy: 96,", "{toy: 96, path: x,", 4, "either path or toy"),
    "unknown gate": ("  size-ratio: 4", "  size-ration: 4", 25, "Did you mean 'size-ratio'"),
    "gate out of range": ("accuracy-drop: 0.02", "accuracy-drop: 2", 24, "a share between 0 and 1"),
    "unknown drift method": ("{images: 16}", "{method: gradcan}", 21, "Did you mean 'gradcam'"),
    "unknown coordinate": ("where: {recipe:", "where: {recip:", 26, "Did you mean 'recipe'"),
    "percent as a word": ("value: 0.9,", "value: 90 %,", 26, "not as 93.1 %"),
    "no row of the mission": ("row: A1", "row: Z1", 26, "a row of the mission"),
    "unknown table": ("[rows,", "[row,", 27, "Expected a table"),
    "unknown role": ("{train: 0.6,", "{trane: 0.6,", 7, "Did you mean 'train'"),
    "lessons for nobody": (', "qat:epochs=1"', "", 16, "a recipe that trains"),
    "alias": ("cut: [Everything large.]", "title: &t x\ncut: [*t]", None, "no aliases"),
    "no YAML": ("cut: [Everything large.]", "cut: [Everything", None, "Expected YAML in line"),
    "another format": ("format: 1", "format: 2", None, "`format: 1`"),
    "no name": ("name: tiny\n", "", None, "the key name"),
    "a name that is no folder": ("name: tiny", "name: ../tiny", 2, "small letters, digits"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_with_its_line(tmp_path: Path, mistake: str) -> None:
    right, wrong, line, said = MISTAKES[mistake]
    assert right in WHOLE
    path = written(tmp_path, WHOLE.replace(right, wrong, 1))
    with pytest.raises(UsageError) as caught:
        read_study(path)
    text = str(caught.value)
    assert said in text and "\n" not in text, text
    assert line is None or (f"line {line} of {path}" in text), text


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="Expected a YAML file at"):
        read_study(tmp_path / name)


def test_text_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"format: 1\nname: \xff\xfe\n")
    with pytest.raises(UsageError, match="Expected UTF-8 text"):
        read_study(path)


def test_lines_reach_to_the_last_line_of_a_value(tmp_path: Path) -> None:
    top = read_lines(written(tmp_path, "a:\n  b: 1\n  c:\n    - 2\n    - 3\nd: {e: 4,\n  f: 5}\n")).value
    assert (top["a"].line, top["a"].end) == (1, 5) and (top["d"].line, top["d"].end) == (6, 7)
    assert top["a"].plain == {"b": 1, "c": [2, 3]} and top["a"].value["c"].line == 3


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_studies_are_right_at_every_scale(path: Path, scale: str) -> None:
    study = read_study(path, scale)
    assert study.name == path.stem and study.paper.citation and study.published and study.cut
    if scale == "smoke":
        assert all(images.toy for images in study.data) and all(net.weights == "none" for net in study.backbones)


def test_the_five_papers_are_shipped() -> None:
    names = {"anemia-ptq", "brain-mri-float16", "cifar-tflite", "int8-reliability", "kvasir-pact-saliency"}
    assert {path.stem for path in SHIPPED} >= names
