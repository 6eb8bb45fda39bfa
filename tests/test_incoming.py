"""ONNX classifiers that nobody trained here: fed as they want, or refused in one sentence; and the whole road."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantward.core.errors import QuantwardError, Refused, UsageError
from quantward.core.preprocess import normalise
from quantward.core.values import ImageArray, Preprocess
from quantward.data import make_toy, open_dataset
from quantward.evaluate.predictions import load
from quantward.incoming import PIXELS, Told, is_plain, plain_variant, read_preprocess, to_time
from quantward.workbench import cached, open_session, open_variant, softmax

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIDE = 16
UNIT = Told(pixels="0..1")
CLASSES = ("a", "b", "c", "d")


def graph(
    nodes: Sequence[Any],
    arrays: dict[str, np.ndarray[Any, Any]],
    *,
    shape: Sequence[int | str | None] = ("n", 3, SIDE, SIDE),
    kind: int = TensorProto.FLOAT,
    outputs: Sequence[tuple[str, Sequence[int | str]]] = (("y", ("n", 4)),),
    result: int = TensorProto.FLOAT,
    opset: int = 17,
) -> Any:
    """A model with one input `x`."""
    made = helper.make_graph(
        list(nodes),
        "elsewhere",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, result, dims) for name, dims in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 9
    return model


def linear(
    path: Path,
    *,
    end: str = "",
    layout: str = "NCHW",
    batch: int | str = "n",
    classes: int = 4,
    scale: float = 0.05,
    **how: Any,
) -> Path:
    """A linear classifier of all pixels, written to `path`."""
    weight = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, classes), scale=scale).astype(np.float32)
    bias = np.arange(classes, dtype=np.float32) / 10
    last = "scores" if end else "y"
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weight", "bias"], [last]),
    ]
    if end:
        nodes.append(helper.make_node(end, [last], ["y"]))
    shape = (batch, 3, SIDE, SIDE) if layout == "NCHW" else (batch, SIDE, SIDE, 3)
    arrays = {"weight": weight, "bias": bias}
    how = {"shape": shape, "outputs": (("y", (batch, classes)),), **how}
    onnx.save(graph(nodes, arrays, **how), str(path))
    return path


@pytest.fixture
def pixels() -> ImageArray:
    """Five images of noise."""
    return np.random.default_rng(1).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)


def expected(pixels: ImageArray, how: Preprocess, layout: str = "NCHW", classes: int = 4) -> np.ndarray[Any, Any]:
    """The scores of `linear`, in NumPy."""
    weight = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, classes), scale=0.05).astype(np.float32)
    batch = normalise(pixels, how)
    flat = (batch if layout == "NCHW" else batch.transpose(0, 2, 3, 1)).reshape(len(pixels), -1)
    return flat @ weight + np.arange(classes, dtype=np.float32) / 10


@pytest.mark.parametrize(
    ("end", "layout", "batch"),
    [("", "NCHW", "n"), ("", "NHWC", 4), ("Softmax", "NCHW", 1), ("Softmax", "NHWC", "n"), ("LogSoftmax", "NCHW", 2)],
)
def test_every_way_of_feeding_gives_the_same_probabilities(
    end: str, layout: str, batch: int | str, pixels: ImageArray, tmp_path: Path
) -> None:
    path = linear(tmp_path / "m.onnx", end=end, layout=layout, batch=batch)
    variant = plain_variant(path, UNIT, CLASSES)
    assert (variant.layout, variant.batch) == (layout, batch if isinstance(batch, int) else None)
    assert variant.outputs == ("probabilities" if end == "Softmax" else "logits")
    session = open_session(variant, "onnxruntime", 1)
    got = softmax(session(normalise(pixels, variant.preprocess)))
    np.testing.assert_allclose(got, softmax(expected(pixels, variant.preprocess, layout)), atol=1e-6)


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_reach_the_file_in_the_range_it_wants(name: str, pixels: ImageArray, tmp_path: Path) -> None:
    variant = plain_variant(linear(tmp_path / "m.onnx"), Told(pixels=name), CLASSES)
    batch = normalise(pixels, variant.preprocess)
    plain = pixels.transpose(0, 3, 1, 2) / 255
    wanted = {
        "0..1": plain,
        "0..255": plain * 255,
        "-1..1": plain * 2 - 1,
        "imagenet": (plain - np.array([0.485, 0.456, 0.406])[:, None, None])
        / np.array([0.229, 0.224, 0.225])[:, None, None],
    }[name]
    np.testing.assert_allclose(batch, wanted, atol=1e-4)


def test_what_lies_beside_the_file_is_read_and_flags_win(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx")
    (tmp_path / "preprocess.json").write_text('{"size": 16, "resize": 20, "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}')
    (tmp_path / "labels.txt").write_text("d\nc\nb\na\n")
    variant = open_variant(path)
    assert variant.classes == ("d", "c", "b", "a")
    assert variant.preprocess == Preprocess(16, 20, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    told = Told(pixels="-1..1", resize=24, squash=True, interpolation="bicubic", classes="w,x,y,z")
    other = open_variant(path, told)
    assert other.classes == ("w", "x", "y", "z")
    assert other.preprocess == Preprocess(16, 24, True, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_classes_of_the_dataset_are_taken_and_told(tmp_path: Path) -> None:
    heard: list[str] = []
    variant = plain_variant(linear(tmp_path / "m.onnx"), UNIT, CLASSES, heard.append)
    assert variant.classes == CLASSES
    assert len(heard) == 1 and "a, b, c, d" in heard[0]


def test_a_file_that_answers_differently_in_a_batch_runs_image_by_image(pixels: ImageArray, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Div", ["x", "top"], ["z"]),
        helper.make_node("Flatten", ["z"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weight"], ["y"]),
    ]
    weight = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, 4)).astype(np.float32)
    path = tmp_path / "m.onnx"
    onnx.save(graph(nodes, {"weight": weight}), str(path))
    heard: list[str] = []
    variant = plain_variant(path, UNIT, CLASSES, heard.append)
    assert variant.max_batch == 1
    assert any("image by image" in line for line in heard)


def test_a_batch_of_one_baked_into_an_open_file_is_found(pixels: ImageArray, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "one"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["y"]),
    ]
    weight = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, 4)).astype(np.float32)
    path = tmp_path / "m.onnx"
    onnx.save(graph(nodes, {"weight": weight, "one": np.array([1, -1])}), str(path))
    variant = plain_variant(path, UNIT, CLASSES)
    assert variant.max_batch == 1
    assert open_session(variant, "onnxruntime", 1)(normalise(pixels, variant.preprocess)).shape == (5, 4)


def with_external(folder: Path, location: str, *, length: int | None = None, bytes_there: int = 4 * 48) -> Path:
    """A model whose weights lie in another file, as its bytes say."""
    folder.mkdir(exist_ok=True)
    side = 8
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 4, 1, 4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **({} if length is None else {"length": str(length)})}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    model = graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"], axis=1),
            helper.make_node("Reshape", ["w", "s"], ["m"]),
            helper.make_node("MatMul", ["f", "m"], ["t"]),
            helper.make_node("Slice", ["t", "a", "b", "k"], ["y"]),
        ],
        {"s": np.array([3, 16]), "a": np.array([0]), "b": np.array([4]), "k": np.array([1])},
        shape=("n", 3, side, side),
    )
    model.graph.initializer.append(tensor)
    (folder / "w.bin").write_bytes(np.random.default_rng(0).normal(size=48).astype(np.float32).tobytes()[:bytes_there])
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_beside_the_file_is_read_hashed_and_counted(tmp_path: Path) -> None:
    path = with_external(tmp_path / "m", "w.bin")
    before = plain_variant(path, UNIT, CLASSES)
    assert before.bytes == path.stat().st_size + 4 * 48
    (path.parent / "w.bin").write_bytes(np.ones(48, np.float32).tobytes())
    assert plain_variant(path, UNIT, CLASSES).sha256 != before.sha256


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "sub/../../w.bin", "..\\w.bin", "link.bin", ""])
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(4 * 48))
    path = with_external(tmp_path / "m", location)
    (path.parent / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(Refused, match="inside its folder"):
        plain_variant(path, UNIT, CLASSES)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [({"location": "gone.bin"}, "Copy both"), ({"location": "w.bin", "bytes_there": 100}, "holds 100"),
     ({"location": "w.bin", "length": 8}, "192 bytes")],
)  # fmt: skip
def test_external_data_that_is_not_whole_is_refused(broken: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=sentence):
        plain_variant(with_external(tmp_path / "m", **broken), UNIT, CLASSES)


def _torn(path: Path) -> None:
    path.write_bytes(linear(path).read_bytes()[:-2000])


def _huge_weight(path: Path) -> None:
    model = onnx.load(str(linear(path)))
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    path.write_bytes(model.SerializeToString())


def _forged_weight(path: Path) -> None:
    model = onnx.load(str(linear(path)))
    model.graph.initializer[0].dims[:] = [3 * SIDE * SIDE, 400]
    path.write_bytes(model.SerializeToString())


def _bomb(path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["huge"], ["z"]),
        helper.make_node("ReduceSum", ["z"], ["one"], keepdims=0),
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Add", ["f", "one"], ["y"]),
    ]
    path.write_bytes(graph(nodes, {"huge": np.array([1 << 20, 1 << 20])}).SerializeToString())


def _two_inputs(path: Path) -> None:
    model = onnx.load(str(linear(path)))
    model.graph.input.append(helper.make_tensor_value_info("age", 1, ["n", 1]))
    path.write_bytes(model.SerializeToString())


def _label(path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("ArgMax", ["f"], ["y"], axis=1)]
    onnx.save(graph(nodes, {}, result=TensorProto.INT64, outputs=(("y", ("n", 1)),)), str(path))


def _two_outputs(path: Path) -> None:
    linear(path, outputs=(("y", ("n", 4)), ("flat", ("n", 768))))


def _nan(path: Path) -> None:
    model = onnx.load(str(linear(path)))
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[3, 1] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight"))
    onnx.save(model, str(path))


REFUSALS: dict[str, tuple[Any, str]] = {
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "a page": (lambda path: path.write_bytes(b"<!DOCTYPE html><html>not found</html>"), "damaged"),
    "zeros": (lambda path: path.write_bytes(bytes(1000)), "damaged"),
    "torn": (_torn, "damaged"),
    "a huge weight": (_huge_weight, "weights of a classifier"),
    "a weight larger than its bytes": (_forged_weight, "forged"),
    "a bomb": (_bomb, "ConstantOfShape"),
    "two inputs": (_two_inputs, "got 2"),
    "two outputs": (_two_outputs, "got 2"),
    "the class alone": (_label, "int64"),
    "rows of features": (lambda path: linear(path, shape=("n", 768)), "four axes"),
    "a huge image": (lambda path: linear(path, shape=("n", 3, 1 << 20, 1 << 20)), "tensors of a classifier"),
    "grey images": (lambda path: linear(path, shape=("n", 1, SIDE, SIDE)), "3 colours"),
    "a wide image": (lambda path: linear(path, shape=("n", 3, 8, 32)), "square"),
    "bytes": (lambda path: linear(path, kind=TensorProto.UINT8), "float32"),
    "half precision": (lambda path: linear(path, kind=TensorProto.FLOAT16), "float32"),
    "one sigmoid": (lambda path: linear(path, classes=1, end="Sigmoid"), "at least 2 classes"),
    "several sigmoids": (lambda path: linear(path, end="Sigmoid"), "--outputs"),
    "five outputs": (lambda path: linear(path, classes=5), "5 classes"),
    "not a number": (_nan, "finite"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_fed_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    write, words = REFUSALS[name]
    path = tmp_path / "m.onnx"
    write(path)
    with pytest.raises(QuantwardError) as caught:
        plain_variant(path, UNIT, CLASSES)
    text = str(caught.value)
    assert text.startswith("Expected ") and words in text and "\n" not in text, text


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (Told(), "--pixels"),
        (Told(pixels="0-1"), "0..1"),
        (Told(pixels="0..1", mean=(0.0, 0.0, 0.0)), "both"),
        (Told(mean=(0.0, 0.0, 0.0)), "--pixels"),
        (Told(pixels="0..1", size=32), "declares"),
        (Told(pixels="0..1", resize=8), "resize"),
        (Told(mean=(0.0, 0.0, 0.0), std=(1.0, 0.0, 1.0)), "positive"),
        (Told(pixels="0..1", classes="a,b,c"), "4 classes"),
        (Told(pixels="0..1", classes="a,b,c,c"), "different"),
        (Told(pixels="0..1", layout="NHWC"), "layout"),
    ],
)
def test_flags_that_make_no_sense_are_refused(told: Told, words: str, tmp_path: Path) -> None:
    with pytest.raises(QuantwardError, match=words):
        plain_variant(linear(tmp_path / "m.onnx"), told, CLASSES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "object"),
        ('{"size": 16}', "mean, std"),
        ('{"size": 16, "means": [0, 0, 0], "std": [1, 1, 1]}', "Did you mean 'mean'"),
        ('{"size": "x", "mean": [0, 0, 0], "std": [1, 1, 1]}', "size"),
        ("{", "line 1"),
    ],
)
def test_a_broken_preprocess_file_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "preprocess.json").write_text(text)
    with pytest.raises(Refused, match=words):
        read_preprocess(tmp_path / "preprocess.json")


def test_an_open_size_is_asked_for(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"], axis=1),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    onnx.save(graph(nodes, {"w": np.ones((3, 4), np.float32)}, shape=("n", 3, "h", "w")), str(path))
    with pytest.raises(UsageError, match="--size"):
        plain_variant(path, UNIT, CLASSES)
    assert plain_variant(path, replace(UNIT, size=24), CLASSES).preprocess.size == 24


def test_timing_needs_no_word_on_pixels(tmp_path: Path) -> None:
    variant = to_time(linear(tmp_path / "m.onnx"))
    assert variant.classes == ("output 0", "output 1", "output 2", "output 3")


def test_a_card_and_flags_are_one_truth_too_many(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx")
    path.with_name("m.onnx.json").write_text("{}")
    assert not is_plain(path)
    with pytest.raises(UsageError, match="card"):
        open_variant(path, UNIT)


def test_the_options_of_the_command_line_are_what_can_be_told() -> None:
    from quantward.cli import FEEDING

    assert set(FEEDING) == {field.name for field in fields(Told)}


def run(*arguments: object, code: int | None = 0) -> Any:
    """`quantward ARGUMENTS` in this process: stdout and stderr apart."""
    from typer.testing import CliRunner

    from quantward.cli import app

    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if code is not None:
        assert done.exit_code == code, (done.stderr, done.stdout, done.exception)
    return done


def from_scikit_learn(path: Path, data: Path) -> np.ndarray[Any, Any]:
    """A perceptron of scikit-learn on the pixels of toy images, written as ONNX in its own layout: height, width,
    colours, with a softmax at its end. Returns the classes that scikit-learn itself gives all images."""
    sklearn = pytest.importorskip("sklearn.neural_network")
    dataset = open_dataset(data)
    how = Preprocess(SIDE, SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)
    images = normalise(cached(dataset, how), how).transpose(0, 2, 3, 1).reshape(len(dataset), -1)
    net = sklearn.MLPClassifier((24,), max_iter=40, random_state=0, early_stopping=True)
    net.fit(images[::2], np.asarray(dataset.labels)[::2])
    (first, second), (bias, last) = net.coefs_, net.intercepts_
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w1"], ["h1"]),
        helper.make_node("Add", ["h1", "b1"], ["h2"]),
        helper.make_node("Relu", ["h2"], ["h3"]),
        helper.make_node("MatMul", ["h3", "w2"], ["h4"]),
        helper.make_node("Add", ["h4", "b2"], ["h5"]),
        helper.make_node("Softmax", ["h5"], ["y"], axis=-1),
    ]
    arrays = {"w1": first, "b1": bias, "w2": second, "b2": last}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    k = len(dataset.classes)
    onnx.save(graph(nodes, arrays, shape=("n", SIDE, SIDE, 3), outputs=(("y", ("n", k)),)), str(path))
    return np.asarray(net.predict(images))


def test_a_classifier_of_scikit_learn_goes_all_the_way(tmp_path: Path) -> None:
    data, model = tmp_path / "toy", tmp_path / "perceptron.onnx"
    make_toy(data, n=120)
    own = from_scikit_learn(model, data)
    (tmp_path / "preprocess.json").write_text(json.dumps({"size": SIDE, "mean": [0, 0, 0], "std": [1, 1, 1]}))
    done = run("evaluate", model, data, "--out", tmp_path / "before.csv", "--replicates", 100, "--json")
    assert "taken for the dataset's classes" in done.stderr
    assert json.loads(done.stdout)["n"] == 120
    timed = run("bench", model, "--rounds", 3, "--seconds", 0.1, "--starts", 1, "--batch", 1, "--json")
    assert "perceptron" in timed.stdout
    for recipe in ("int8-static", "fp16", "int8-dynamic"):
        made = run("quantize", model, "--recipe", recipe, "--data", data, "--out", tmp_path / "files", "--json")
        variant = json.loads(made.stdout)
        assert variant["classes"] == list(open_dataset(data).classes)
        assert variant["bytes"] < (0.6 if recipe == "fp16" else 0.4) * model.stat().st_size
    compared = run("compare", model, tmp_path / "files" / "int8-static.onnx", data, "--replicates", 100, "--json",
                   code=None)  # fmt: skip
    document = json.loads(compared.stdout)
    assert document["n"] == 120
    assert document["flips"]["rate"] <= 0.03
    said = load(tmp_path / "before.csv")
    assert np.array_equal(said.probabilities.argmax(1), own)
