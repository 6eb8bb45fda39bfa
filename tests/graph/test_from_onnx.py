"""ONNX files as Plans: every operator against ONNX Runtime, exported networks there and back, refusals by name."""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantward.core.contracts import Batch
from quantward.core.errors import QuantwardError, Refused, Unsupported
from quantward.core.registry import Registry
from quantward.core.values import Plan, Preprocess
from quantward.graph.walk import layers, weight_of

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from quantward.graph.emit_onnx import emits  # noqa: E402
from quantward.graph.from_onnx import _by_runtime, from_onnx, scores_of  # noqa: E402

SIDE = 16
HOW = Preprocess(SIDE, SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)
CLASSES = ("a", "b", "c", "d")
DRAW = np.random.default_rng(0)
RECIPES = Registry("recipe", "quantward.quantize.recipes")


def floats(*shape: int) -> np.ndarray[Any, Any]:
    """Weights that keep scores near one."""
    return (DRAW.normal(size=shape) / max(1.0, np.sqrt(np.prod(shape[1:])))).astype(np.float32)


def n(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node from names with spaces between."""
    return helper.make_node(op, inputs.split(" "), outputs.split(" "), **attributes)


def save(
    path: Path,
    nodes: Sequence[Any],
    arrays: dict[str, np.ndarray[Any, Any]],
    *,
    opset: int = 17,
    batch: int | str = "n",
    layout: str = "NCHW",
    classes: int = 4,
) -> Path:
    """A model `x` -> `y`."""
    shape = (batch, 3, SIDE, SIDE) if layout == "NCHW" else (batch, SIDE, SIDE, 3)
    made = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, classes))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 9
    onnx.save(model, str(path))
    return path


STEM = [n("Conv", "x stem.weight stem.bias", "s", pads=[1, 1, 1, 1], strides=[2, 2])]
HEAD = [
    n("GlobalAveragePool", "z", "p"),
    n("Flatten", "p", "f", axis=1),
    n("Gemm", "f head.weight head.bias", "y", transB=1),
]
WEIGHTS = {
    "stem.weight": floats(8, 3, 3, 3),
    "stem.bias": floats(8),
    "head.weight": floats(4, 8) * 4,
    "head.bias": floats(4),
}

STEPS: dict[str, tuple[list[Any], dict[str, np.ndarray[Any, Any]], int, str]] = {
    "Relu": ([n("Relu", "s", "z")], {}, 17, "aten.relu.default"),
    "LeakyRelu": ([n("LeakyRelu", "s", "z", alpha=0.2)], {}, 17, "aten.leaky_relu.default"),
    "Elu": ([n("Elu", "s", "z", alpha=0.7)], {}, 17, "aten.elu.default"),
    "PRelu": ([n("PRelu", "s slope", "z")], {"slope": floats(8, 1, 1)}, 17, "aten.prelu.default"),
    "Sigmoid": ([n("Sigmoid", "s", "z")], {}, 17, "aten.sigmoid.default"),
    "Tanh": ([n("Tanh", "s", "z")], {}, 17, "aten.tanh.default"),
    "Softplus": ([n("Softplus", "s", "z")], {}, 17, "aten.softplus.default"),
    "Mish": ([n("Mish", "s", "z")], {}, 18, "aten.mish.default"),
    "HardSwish": ([n("HardSwish", "s", "z")], {}, 17, "aten.hardswish.default"),
    "HardSigmoid of torch": ([n("HardSigmoid", "s", "z", alpha=1 / 6)], {}, 17, "aten.hardsigmoid.default"),
    "HardSigmoid of Keras": ([n("HardSigmoid", "s", "z", alpha=0.2)], {}, 17, "aten.hardtanh.default"),
    "Gelu": ([n("Gelu", "s", "z")], {}, 20, "aten.gelu.default"),
    "Gelu by tanh": ([n("Gelu", "s", "z", approximate="tanh")], {}, 20, "aten.gelu.default"),
    "ReLU6": ([n("Clip", "s lo hi", "z")], {"lo": np.float32(0), "hi": np.float32(6)}, 13, "aten.hardtanh.default"),
    "Clip of attributes": ([n("Clip", "s", "z", min=-0.5, max=0.5)], {}, 9, "aten.hardtanh.default"),
    "Clip below": ([n("Clip", "s lo", "z")], {"lo": np.float32(0.1)}, 13, "aten.clamp.default"),
    "Clip at zero": ([n("Clip", "s lo", "z")], {"lo": np.float32(0)}, 13, "aten.relu.default"),
    "SiLU": ([n("Sigmoid", "s", "g"), n("Mul", "s g", "z")], {}, 13, "aten.silu.default"),
    "hard swish in steps": (
        [n("Add", "s three", "a"), n("Clip", "a lo hi", "c"), n("Mul", "s c", "m"), n("Div", "m six", "z")],
        {"three": np.float32(3), "lo": np.float32(0), "hi": np.float32(6), "six": np.float32(6)},
        13,
        "aten.hardswish.default",
    ),
    "GELU in steps": (
        [
            n("Div", "s root", "d"),
            n("Erf", "d", "e"),
            n("Add", "e one", "a"),
            n("Mul", "s a", "m"),
            n("Mul", "m half", "z"),
        ],
        {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)},
        13,
        "aten.gelu.default",
    ),
    "BatchNormalization": (
        [n("Relu", "s", "r"), n("BatchNormalization", "r g b m v", "z", epsilon=1e-3)],
        {"g": floats(8) + 1, "b": floats(8), "m": floats(8), "v": floats(8) ** 2 + 0.5},
        15,
        "aten.batch_norm.default",
    ),
    "BatchNormalization that folds": (
        [n("BatchNormalization", "s g b m v", "z")],
        {"g": floats(8) + 1, "b": floats(8), "m": floats(8), "v": floats(8) ** 2 + 0.5},
        9,
        "aten.conv2d.default",
    ),
    "GroupNormalization": (
        [n("GroupNormalization", "s g b", "z", num_groups=2)],
        {"g": floats(8) + 1, "b": floats(8)},
        21,
        "aten.group_norm.default",
    ),
    "InstanceNormalization": (
        [n("InstanceNormalization", "s g b", "z")],
        {"g": floats(8) + 1, "b": floats(8)},
        17,
        "aten.group_norm.default",
    ),
    "channels last, LayerNormalization": (
        [
            n("Transpose", "s", "t", perm=[0, 2, 3, 1]),
            n("LayerNormalization", "t g b", "l", epsilon=1e-6),
            n("Transpose", "l", "z", perm=[0, 3, 1, 2]),
        ],
        {"g": floats(8) + 1, "b": floats(8)},
        17,
        "aten.layer_norm.default",
    ),
    "LayerNormalization in steps": (
        [
            n("Transpose", "s", "t", perm=[0, 2, 3, 1]),
            n("ReduceMean", "t", "m", axes=[-1]),
            n("Sub", "t m", "d"),
            n("Pow", "d two", "q"),
            n("ReduceMean", "q", "v", axes=[-1]),
            n("Add", "v eps", "e"),
            n("Sqrt", "e", "r"),
            n("Div", "d r", "u"),
            n("Mul", "u g", "w"),
            n("Add", "w b", "l"),
            n("Transpose", "l", "z", perm=[0, 3, 1, 2]),
        ],
        {"g": floats(8) + 1, "b": floats(8), "two": np.float32(2), "eps": np.float32(1e-5)},
        13,
        "aten.layer_norm.default",
    ),
    "Conv padded unevenly": (
        [n("Conv", "s w", "z", auto_pad="SAME_UPPER", strides=[2, 2])],
        {"w": floats(8, 8, 3, 3)},
        13,
        "aten.pad.default",
    ),
    "Conv padded below": (
        [n("Conv", "s w", "z", auto_pad="SAME_LOWER", strides=[2, 2])],
        {"w": floats(8, 8, 3, 3)},
        13,
        "aten.pad.default",
    ),
    "Conv by channel": (
        [n("Conv", "s w", "z", group=8, dilations=[2, 2])],
        {"w": floats(8, 1, 3, 3)},
        13,
        "aten.conv2d.default",
    ),
    "Conv and a bias behind it": (
        [n("Conv", "s w", "c"), n("Add", "c b", "z")],
        {"w": floats(8, 8, 1, 1), "b": floats(1, 8, 1, 1)},
        13,
        "aten.conv2d.default",
    ),
    "MaxPool": (
        [n("MaxPool", "s", "z", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        {},
        12,
        "aten.max_pool2d.default",
    ),
    "MaxPool padded unevenly": (
        [n("MaxPool", "s", "z", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
        {},
        12,
        "aten.pad.default",
    ),
    "MaxPool rounded up": (
        [n("MaxPool", "s", "z", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        {},
        12,
        "aten.max_pool2d.default",
    ),
    "AveragePool": (
        [n("AveragePool", "s", "z", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        {},
        11,
        "aten.avg_pool2d.default",
    ),
    "AveragePool with zeros": (
        [n("AveragePool", "s", "z", kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1)],
        {},
        11,
        "aten.pad.default",
    ),
    "squeeze and excite": (
        [
            n("ReduceMean", "s", "m", axes=[2, 3], keepdims=1),
            n("Conv", "m w", "c"),
            n("HardSigmoid", "c", "g", alpha=1 / 6),
            n("Mul", "g s", "z"),
        ],
        {"w": floats(8, 8, 1, 1)},
        13,
        "aten.mul.Tensor",
    ),
    "ReduceSum, ReduceMax, Max, Min": (
        [
            n("ReduceSum", "s axes", "a"),
            n("ReduceMax", "s", "b", axes=[2, 3]),
            n("Max", "a b", "c"),
            n("Min", "c s", "z"),
        ],
        {"axes": np.array([2, 3])},
        13,
        "aten.minimum.default",
    ),
    "Pad, Slice, Concat": (
        [
            n("Pad", "s pads", "a"),
            n("Slice", "a lo hi ax st", "b"),
            n("Concat", "b b", "c", axis=1),
            n("Slice", "c zero eight one", "z"),
        ],
        {
            "pads": np.array([0, 0, 1, 2, 0, 0, 3, 4]),
            "lo": np.array([1, 0]),
            "hi": np.array([9, 10**9]),
            "ax": np.array([2, 3]),
            "st": np.array([1, 2]),
            "zero": np.array([4]),
            "eight": np.array([12]),
            "one": np.array([1]),
        },
        13,
        "aten.slice.Tensor",
    ),
    "Pad by reflection": (
        [n("Pad", "s pads", "z", mode="reflect")],
        {"pads": np.array([0, 0, 1, 2, 0, 0, 2, 1])},
        13,
        "aten.pad.default",
    ),
    "Split and Gather": (
        [n("Split", "s", "a b", axis=1), n("Concat", "b a", "c", axis=1), n("Gather", "c order", "z", axis=1)],
        {"order": np.array([7, 1, 2, 0, 3, 3, 4, 5])},
        13,
        "aten.index_select.default",
    ),
    "arithmetic with numbers": (
        [
            n("Sub", "one s", "a"),
            n("Mul", "two a", "b"),
            n("Div", "b two", "c"),
            n("Neg", "c", "d"),
            n("Abs", "d", "e"),
            n("Sqrt", "e", "g"),
            n("Add", "g one", "h"),
            n("Reciprocal", "h", "i"),
            n("Exp", "i", "j"),
            n("Log", "j", "z"),
        ],
        {"one": np.float32(1), "two": np.array([2], np.float32)},
        13,
        "aten.log.default",
    ),
    "attention": (
        [
            n("Reshape", "s flat", "a"),
            n("Transpose", "a", "t", perm=[0, 2, 1]),
            n("MatMul", "t q", "b"),
            n("Add", "b qb", "c"),
            n("Transpose", "c", "d", perm=[0, 2, 1]),
            n("MatMul", "c d", "e"),
            n("Softmax", "e", "g", axis=-1),
            n("MatMul", "g c", "h"),
            n("Transpose", "h", "i", perm=[0, 2, 1]),
            n("Shape", "s", "shape"),
            n("Reshape", "i shape", "z"),
        ],
        {"flat": np.array([0, 8, -1]), "q": floats(8, 8), "qb": floats(8)},
        13,
        "aten.matmul.default",
    ),
    "a token for each image": (
        [
            n("Reshape", "s flat", "a"),
            n("Shape", "s", "sh"),
            n("Gather", "sh first", "b"),
            n("Concat", "b rest", "to", axis=0),
            n("Expand", "token to", "t"),
            n("Concat", "t a", "c", axis=2),
            n("Unsqueeze", "c last", "z"),
        ],
        {
            "flat": np.array([0, 8, -1]),
            "first": np.array([0]),
            "rest": np.array([8, 1]),
            "token": floats(1, 8, 1),
            "last": np.array([3]),
        },
        13,
        "aten.expand.default",
    ),
    "Dropout, Identity, Cast": (
        [n("Dropout", "s", "a"), n("Identity", "a", "b"), n("Cast", "b", "z", to=TensorProto.FLOAT)],
        {},
        13,
        "aten.conv2d.default",
    ),
    "Where": (
        [n("Where", "mask s zero", "z")],
        {"mask": DRAW.random((1, 8, 1, 1)) > 0.5, "zero": np.float32(0)},
        13,
        "aten.where.self",
    ),
}


@pytest.mark.parametrize("batch", ["n", 1])
@pytest.mark.parametrize("name", STEPS)
def test_every_operator_gives_what_the_file_gives(name: str, batch: int | str, tmp_path: Path) -> None:
    """`from_onnx` proves the Plan by torch; the same holds for the file written without torch."""
    nodes, arrays, opset, op = STEPS[name]
    path = save(tmp_path / "m.onnx", [*STEM, *nodes, *HEAD], {**WEIGHTS, **arrays}, opset=opset, batch=batch)
    plan = from_onnx(path, HOW, CLASSES)
    assert op in {node.op for node in plan.program}
    images = DRAW.normal(size=(5, 3, SIDE, SIDE)).astype(np.float32)
    assert emits(plan)
    np.testing.assert_allclose(_by_runtime(plan)(images), scores_of(plan)(images), atol=1e-5)


def test_what_is_spelled_out_becomes_one_step(tmp_path: Path) -> None:
    spelled = (
        "SiLU",
        "hard swish in steps",
        "GELU in steps",
        "LayerNormalization in steps",
        "Conv and a bias behind it",
    )
    for name in spelled:
        nodes, arrays, opset, op = STEPS[name]
        path = save(tmp_path / "m.onnx", [*STEM, *nodes, *HEAD], {**WEIGHTS, **arrays}, opset=opset)
        ops = Counter(node.op for node in from_onnx(path, HOW, CLASSES).program)
        assert ops[op] >= 1
        assert not {"aten.erf.default", "aten.sqrt.default", "aten.add.Tensor", "aten.mul.Tensor"} & set(ops), name


def test_channels_last_and_probabilities_come_to_the_same_plan(tmp_path: Path) -> None:
    nodes = [
        n("Transpose", "x", "c", perm=[0, 3, 1, 2]),
        n("Conv", "c stem.weight stem.bias", "s", pads=[1, 1, 1, 1], strides=[2, 2]),
        n("Relu", "s", "z"),
        *HEAD[:2],
        n("Gemm", "f head.weight head.bias", "l", transB=1),
        n("Softmax", "l", "y", axis=-1),
    ]
    last = from_onnx(save(tmp_path / "last.onnx", nodes, WEIGHTS, layout="NHWC"), HOW, CLASSES, layout="NHWC",
                     outputs="probabilities")  # fmt: skip
    first = from_onnx(save(tmp_path / "first.onnx", [*STEM, n("Relu", "s", "z"), *HEAD], WEIGHTS), HOW, CLASSES)
    assert [node.op for node in last.program] == [node.op for node in first.program]
    assert last.parent == first.parent


def test_probabilities_without_a_softmax_at_the_end_get_a_logarithm(tmp_path: Path) -> None:
    nodes = [*STEM, n("Relu", "s", "z"), *HEAD[:2], n("Gemm", "f head.weight head.bias", "l", transB=1),
             n("Exp", "l", "e"), n("ReduceSum", "e axes", "sum"), n("Div", "e sum", "y")]  # fmt: skip
    path = save(tmp_path / "m.onnx", nodes, {**WEIGHTS, "axes": np.array([1])}, opset=13)
    plan = from_onnx(path, HOW, CLASSES, outputs="probabilities")
    assert plan.program[-2].op == "aten.log.default"


REFUSALS: dict[str, tuple[list[Any], dict[str, np.ndarray[Any, Any]], str]] = {
    "an operator nobody knows": ([n("LRN", "s", "z", size=3)], {}, "LRN"),
    "one of another domain": ([n("Gelu", "s", "z", domain="com.microsoft")], {}, "com.microsoft.Gelu"),
    "an integer file": (
        [n("QuantizeLinear", "s sc zp", "q"), n("DequantizeLinear", "q sc zp", "z")],
        {"sc": np.float32(0.1), "zp": np.uint8(0)},
        "float file",
    ),
    "half precision": (
        [n("Cast", "s", "h", to=TensorProto.FLOAT16), n("Cast", "h", "z", to=TensorProto.FLOAT)],
        {},
        "float16",
    ),
    "an exponent for each pixel": ([n("Pow", "s s", "z")], {}, "exponent"),
    "images that mix": ([n("ReduceMean", "s", "m", axes=[0], keepdims=1), n("Sub", "s m", "z")], {}, "images"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_understood_is_refused_by_name(name: str, tmp_path: Path) -> None:
    nodes, arrays, words = REFUSALS[name]
    made = helper.make_graph(
        [*STEM, *nodes, *HEAD],
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4))],
        [numpy_helper.from_array(np.asarray(array), key) for key, array in {**WEIGHTS, **arrays}.items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=opsets)
    model.ir_version = 9
    path = tmp_path / "m.onnx"
    onnx.save(model, str(path))
    with pytest.raises(Unsupported) as caught:
        from_onnx(path, HOW, CLASSES)
    text = str(caught.value)
    assert text.startswith("Expected ") and words in text and "\n" not in text, text


@pytest.mark.parametrize("opset", [8, 30])
def test_an_operator_set_too_old_or_too_new_is_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="operator set"):
        from_onnx(save(tmp_path / "m.onnx", [*STEM, n("Relu", "s", "z"), *HEAD], WEIGHTS, opset=opset), HOW, CLASSES)


def test_a_network_without_layers_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [n("GlobalMaxPool", "x", "p"), n("Flatten", "p", "y")], {}, classes=3)
    with pytest.raises(Unsupported, match="nothing to quantize"):
        from_onnx(path, HOW, ("a", "b", "c"))


def exported(net: Any, path: Path, how: str) -> Path:
    """A torch network written by torch's old or new exporter, with an open or a fixed batch size."""
    torch = pytest.importorskip("torch")
    images = torch.zeros(2, 3, 32, 32)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if how == "new":
            shapes = ({0: torch.export.Dim("n", min=1)},)
            torch.onnx.export(net, (images,), str(path), dynamo=True, dynamic_shapes=shapes, verbose=False,
                              external_data=False)  # fmt: skip
        else:
            axes = {"image": {0: "n"}} if how == "old" else None
            torch.onnx.export(net, (images[:1],), str(path), dynamo=False, input_names=["image"], dynamic_axes=axes,
                              opset_version=16)  # fmt: skip
    return path


@pytest.mark.parametrize("how", ["new", "old", "old, one image"])
def test_an_exported_network_comes_back_as_it_was(
    how: str, small_model: Any, small_plan: Plan, images: Batch, tmp_path: Path
) -> None:
    path = exported(small_model.net, tmp_path / "m.onnx", how)
    plan = from_onnx(path, small_model.preprocess, small_model.classes)
    for given in (plan, small_plan):
        assert Counter(node.op for node in given.program)["aten.conv2d.default"] == 7
    assert len(layers(plan.program)) == len(layers(small_plan.program))
    for ours, traced in zip(layers(plan.program), layers(small_plan.program), strict=True):
        assert ours.name == traced.name
        np.testing.assert_allclose(plan.weights[weight_of(ours)], small_plan.weights[weight_of(traced)], atol=1e-5)
    np.testing.assert_allclose(scores_of(plan)(images), scores_of(small_plan)(images), atol=1e-4)


@pytest.mark.parametrize("how", ["new", "old, one image"])
def test_an_exported_transformer_comes_back_as_it_was(how: str, images: Batch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm.models.vision_transformer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=4)
        net.eval()
    path = exported(net, tmp_path / "m.onnx", how)
    plan = from_onnx(path, Preprocess(32, 32), CLASSES)
    ops = Counter(node.op for node in plan.program)
    assert (ops["aten.linear.default"], ops["aten.layer_norm.default"], ops["aten.gelu.default"]) == (9, 5, 2)
    with torch.no_grad():
        expected = net(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(scores_of(plan)(images), expected, atol=1e-4)
    np.testing.assert_allclose(_by_runtime(plan)(images), expected, atol=1e-4)


@pytest.fixture(scope="module")
def incoming(small_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The small network, come in as a file."""
    path = exported(small_model.net, tmp_path_factory.mktemp("incoming") / "m.onnx", "old")
    return from_onnx(path, small_model.preprocess, small_model.classes)


@pytest.mark.parametrize(
    "recipe", ["fp32", "fp16", "int8-dynamic", "int8-static", "low-bit", "int4-weights", "int16x8"]
)
def test_recipes_and_targets_work_on_it(
    recipe: str, incoming: Plan, images: Batch, context: Any, tmp_path: Path
) -> None:
    from quantward.graph.simulate import simulate
    from quantward.runtimes.onnxruntime import Onnxruntime
    from quantward.targets.onnx_cpu import OnnxCpu

    torch = pytest.importorskip("torch")
    plan = RECIPES.make(recipe).plan(incoming, context)
    variant = OnnxCpu().write(plan, tmp_path)
    got = Onnxruntime().open(variant, 1)(images)
    with torch.no_grad():
        expected = simulate(plan)(torch.from_numpy(images)).numpy()
    spread = float(np.ptp(expected))
    floating = all(spec.kind != "activation" for spec in plan.tensors.values())
    assert np.mean(got.argmax(1) == expected.argmax(1)) >= (1.0 if floating else 0.98)
    assert np.abs(got - expected).max() <= (1e-5 if floating else 0.05) * spread


def test_both_writers_run_as_many_layers_in_integers(incoming: Plan, context: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    from quantward.runtimes.onnxruntime import Onnxruntime
    from quantward.targets.onnx_cpu import OnnxCpu

    plan = RECIPES.make("int8-static").plan(incoming, context)
    ran = []
    for notes, folder in ((plan.notes, "stepwise"), ({}, "by torch")):
        executed = Onnxruntime().executed(OnnxCpu().write(replace(plan, notes=notes), tmp_path / folder))
        assert executed is not None
        ran.append(executed.layers)
    assert ran[0] == ran[1] == {"int8": 8}


def test_float_weights_become_smaller_where_torch_is_not_installed(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [*STEM, n("Relu", "s", "z"), *HEAD], WEIGHTS)
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from quantward.cli import main\n"
        "sys.argv = ['quantward', *sys.argv[1:]]\n"
        "main()\n"
    )
    for recipe in ("fp16", "int8-dynamic"):
        arguments = ["quantize", str(path), "--recipe", recipe, "--pixels", "0..1", "--classes", "a,b,c,d"]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "m" / "files" / f"{recipe}.onnx").exists()


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [*STEM, n("Relu", "s", "z"), *HEAD], WEIGHTS)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(QuantwardError) as caught:
        from_onnx(path, HOW, CLASSES)
    assert str(caught.value).startswith("Expected ")
