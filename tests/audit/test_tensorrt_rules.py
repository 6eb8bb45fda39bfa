"""The rules of TensorRT: our files keep them, and files broken in one way each are told, with the node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from quantward.audit.tensorrt import RULES, Breach, breaches, takes
from quantward.core.errors import Refused
from quantward.core.values import Plan


class Sketch:
    """A convolution with a residual around it, as TensorRT wants it; tests break it in one place."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self.opset, self.constants = (
            17,
            {
                "step": np.float32(0.02),
                "zero": np.int8(0),
                "weight": draw.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8),
                "weight-step": draw.uniform(0.001, 0.01, 4).astype(np.float32),
                "bias": draw.normal(size=4).astype(np.float32),
            },
        )
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
            ("QuantizeLinear", ["x", "step", "zero"], "q", {}),
            ("DequantizeLinear", ["q", "step", "zero"], "d", {}),
            ("DequantizeLinear", ["weight", "weight-step"], "w", {"axis": 0}),
            ("Conv", ["d", "w", "bias"], "c", {"pads": [1, 1, 1, 1]}),
            ("Add", ["c", "d"], "s", {}),
            ("Relu", ["s"], "y", {}),
        ]

    def node(self, output: str) -> tuple[str, list[str], str, dict[str, Any]]:
        return next(node for node in self.nodes if node[2] == output)

    def insert(self, before: str, *nodes: tuple[str, list[str], str, dict[str, Any]]) -> None:
        place = self.nodes.index(self.node(before))
        self.nodes[place:place] = nodes

    def save(self, folder: Path) -> Path:
        initializers = [
            array if isinstance(array, TensorProto) else numpy_helper.from_array(np.asarray(array), name)
            for name, array in self.constants.items()
        ]
        graph = helper.make_graph(
            [helper.make_node(op, inputs, [output], name=f"{op}:{output}", **attributes)
             for op, inputs, output, attributes in self.nodes],
            "sketch",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            initializers,
        )  # fmt: skip
        path = folder / "sketch.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)]), str(path))
        return path


def unsigned(sketch: Sketch) -> None:
    sketch.constants["zero"] = np.uint8(0)


def shifted(sketch: Sketch) -> None:
    sketch.constants["zero"] = np.int8(7)


def computed_scale(sketch: Sketch) -> None:
    sketch.insert("q", ("Mul", ["weight-step", "weight-step"], "made", {}))
    sketch.node("q")[1][1] = "made"


def negative_scale(sketch: Sketch) -> None:
    sketch.constants["weight-step"][2] = -0.01


def integer_scale(sketch: Sketch) -> None:
    sketch.constants["step"] = np.int32(1)


def integer_bias(sketch: Sketch) -> None:
    sketch.constants["bias-stored"] = np.zeros(4, np.int32)
    sketch.constants.pop("bias")
    sketch.insert("c", ("DequantizeLinear", ["bias-stored", "weight-step"], "bias", {"axis": 0}))


def integer_clip(sketch: Sketch) -> None:
    sketch.constants["low"] = np.int8(0)
    sketch.insert("d", ("Clip", ["q", "low"], "clipped", {}))
    sketch.node("d")[1][0] = "clipped"


def cast_weight(sketch: Sketch) -> None:
    sketch.nodes[2] = ("Cast", ["weight"], "w", {"to": TensorProto.FLOAT})


def other_scale(sketch: Sketch) -> None:
    sketch.constants["other"] = np.float32(0.03)
    sketch.node("d")[1][1] = "other"


def no_dequantizer(sketch: Sketch) -> None:
    sketch.nodes.append(("QuantizeLinear", ["s", "step", "zero"], "lost", {}))


def channels(sketch: Sketch) -> None:
    sketch.constants["steps"] = np.full(4, 0.02, np.float32)
    sketch.constants["zeros"] = np.zeros(4, np.int8)
    for name in ("q", "d"):
        sketch.node(name)[1][1:] = ["steps", "zeros"]


def wrong_axis(sketch: Sketch) -> None:
    sketch.node("w")[3]["axis"] = 1


def wrong_count(sketch: Sketch) -> None:
    sketch.constants["weight-step"] = np.full(3, 0.01, np.float32)


def float_activation(sketch: Sketch) -> None:
    sketch.node("c")[1][0] = "x"


def own_integer_operator(sketch: Sketch) -> None:
    sketch.nodes[3] = ("ConvInteger", ["q", "weight", "zero"], "c", {"pads": [1, 1, 1, 1]})


def old_opset(sketch: Sketch) -> None:
    sketch.opset = 8


def four_bit_convolution(sketch: Sketch) -> None:
    sketch.opset = 21
    sketch.constants["weight"] = TensorProto(
        name="weight", data_type=TensorProto.INT4, dims=(4, 4, 3, 3), raw_data=bytes(72)
    )


def eight_bit_blocks(sketch: Sketch) -> None:
    sketch.opset = 21
    sketch.constants["weight-step"] = np.full((4, 2, 3, 3), 0.01, np.float32)
    sketch.node("w")[3].update(axis=1, block_size=2)


def float_weight(sketch: Sketch) -> None:
    sketch.constants["w"] = np.zeros((4, 4, 3, 3), np.float32)
    sketch.nodes.pop(2)


def both_sides(sketch: Sketch) -> None:
    sketch.insert("s", ("QuantizeLinear", ["c", "step", "zero"], "cq", {}),
                  ("DequantizeLinear", ["cq", "step", "zero"], "cd", {}))  # fmt: skip
    sketch.node("s")[1][0] = "cd"


def before_the_clamp(sketch: Sketch) -> None:
    both_sides(sketch)
    sketch.node("s")[1][:] = ["s2", "d"]
    sketch.insert("s", ("Relu", ["cd"], "s2", {}))


BROKEN = [
    (unsigned, "types", "refused"),
    (shifted, "zero-points", "refused"),
    (computed_scale, "scales", "refused"),
    (negative_scale, "scales", "refused"),
    (integer_scale, "scales", "refused"),
    (integer_bias, "biases", "refused"),
    (integer_clip, "only-pairs", "refused"),
    (cast_weight, "only-pairs", "refused"),
    (other_scale, "dangling", "refused"),
    (no_dequantizer, "dangling", "refused"),
    (channels, "granularity", "refused"),
    (wrong_axis, "axes", "refused"),
    (wrong_count, "axes", "refused"),
    (float_activation, "integer-layers", "refused"),
    (own_integer_operator, "operators", "refused"),
    (old_opset, "opset", "refused"),
    (four_bit_convolution, "blocks", "refused"),
    (eight_bit_blocks, "blocks", "refused"),
    (float_weight, "half-quantized", "slow"),
    (both_sides, "split-sums", "slow"),
    (before_the_clamp, "split-layers", "slow"),
]


def test_the_sketch_itself_breaks_no_rule(tmp_path: Path) -> None:
    assert breaches(Sketch().save(tmp_path)) == ()


@pytest.mark.parametrize(("break_it", "rule", "severity"), BROKEN, ids=lambda item: getattr(item, "__name__", item))
def test_a_file_broken_in_one_way_is_told(
    break_it: Callable[[Sketch], None], rule: str, severity: str, tmp_path: Path
) -> None:
    sketch = Sketch()
    break_it(sketch)
    path = sketch.save(tmp_path)
    found = breaches(path)
    told = [breach for breach in found if breach.rule == rule]
    assert told and told[0].severity == severity, found
    assert takes(path) is (severity == "slow")
    names = {f"{op}:{output}" for op, _, output, _ in sketch.nodes}
    assert rule == "opset" or (told[0].nodes and set(told[0].nodes) <= names)
    assert told[0].sentence.endswith(".")


def test_every_rule_is_broken_by_some_file() -> None:
    assert {rule for _, rule, _ in BROKEN} == set(RULES)


def test_weights_quantized_by_the_builder_are_taken_too(tmp_path: Path) -> None:
    sketch = Sketch()
    sketch.constants["weight-float"] = np.ones((4, 4, 3, 3), np.float32)
    sketch.constants["weight-zero"] = np.zeros(4, np.int8)
    sketch.constants.pop("weight")
    sketch.insert("w", ("QuantizeLinear", ["weight-float", "weight-step", "weight-zero"], "weight", {"axis": 0}))
    assert breaches(sketch.save(tmp_path)) == ()


@settings(max_examples=40, deadline=None)
@given(
    scale=st.floats(-1.0, 1.0, width=32),
    zero=st.integers(-128, 127),
    kind=st.sampled_from(["int8", "uint8"]),
    axis=st.integers(0, 3),
    opset=st.integers(7, 27),
)
def test_a_file_is_taken_exactly_where_all_its_numbers_are_allowed(
    scale: float, zero: int, kind: str, axis: int, opset: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sketch = Sketch()
    sketch.opset = opset
    sketch.constants["step"] = np.float32(scale)
    sketch.constants["zero"] = np.asarray(abs(zero) if kind == "uint8" else zero, kind)
    sketch.node("w")[3]["axis"] = axis
    allowed = scale > 0 and zero == 0 and kind == "int8" and axis == 0 and 9 <= opset <= 25
    assert takes(sketch.save(tmp_path_factory.mktemp("any"))) is allowed


def test_files_for_cpus_are_told_apart(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    from quantward.targets.onnx_cpu import OnnxCpu

    found = breaches(OnnxCpu().write(planned("int8-static"), tmp_path).path)
    assert {"types", "zero-points", "biases"} <= {breach.rule for breach in found}
    assert all(isinstance(breach, Breach) for breach in found)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"this is no network")
    with pytest.raises(Refused, match="Expected an ONNX file"):
        breaches(tmp_path / "no.onnx")
    with pytest.raises(Refused, match="Expected an ONNX file"):
        breaches(tmp_path / "absent.onnx")
