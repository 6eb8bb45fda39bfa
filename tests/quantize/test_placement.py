"""Which activations are stored as integers, and that networks made of concatenations survive it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantward.core.contracts import Batch, Context
from quantward.core.errors import Refused
from quantward.core.registry import Registry
from quantward.core.values import Model, Node, Plan, Preprocess
from quantward.quantize._placement import quantized_outputs
from quantward.quantize._signed import stored_for_readers


def node(name: str, op: str, *inputs: str) -> Node:
    return Node(name, op, tuple({"node": source} for source in inputs))


def layer(name: str, source: str) -> Node:
    return Node(name, "aten.conv2d.default", ({"node": source}, {"weight": f"{name}.weight"}, None))


def joined(reader: Node) -> tuple[Node, ...]:
    cat = Node("cat", "aten.cat.default", ([{"node": "a"}, {"node": "b"}], 1))
    end = (layer("last", reader.name), node("output", "output", "last"))
    return (node("input", "input"), layer("a", "input"), layer("b", "a"), cat, reader, *end)


@pytest.mark.parametrize("reader", [layer("read", "cat"), node("read", "aten.relu.default", "cat")])
def test_a_concatenation_has_a_grid_whoever_reads_it(reader: Node) -> None:
    """Parts on grids of their own in front of a float step are what OpenVINO gets wrong."""
    stored = quantized_outputs(joined(reader))
    assert stored == {name: name for name in ("input", "a", "b", "cat", "read")}


def test_what_only_a_float_step_reads_can_stay_float() -> None:
    program = joined(node("read", "aten.relu.default", "cat"))
    stored = stored_for_readers(program, quantized_outputs(program), {"a", "b", "last"})
    assert stored == {"input": "input", "a": "a", "read": "read"}


def test_what_does_not_depend_on_the_image_has_no_grid() -> None:
    """A table of positions added to integers: OpenVINO 2026.4 does not compile a sum of two grids one of which it can
    compute beforehand (LeViT, XCiT)."""
    table = (Node("table", "aten.index_select.default", ({"weight": "places"}, 0, {"weight": "order"})),
             Node("spread", "aten.unsqueeze.default", ({"node": "table"}, 0)))  # fmt: skip
    end = (layer("last", "sum"), node("output", "output", "last"))
    program = (node("input", "input"), layer("a", "input"), *table, node("sum", "aten.add.Tensor", "a", "spread"), *end)
    assert quantized_outputs(program) == {name: name for name in ("input", "a", "sum")}


@pytest.fixture(scope="module")
def dense_plan() -> Plan:
    """The float Plan of a block of dense layers: each reads the concatenation of all before it, scaled channel by
    channel as by a batch normalisation in front, 3 x 32 x 32 -> 4."""
    torch = pytest.importorskip("torch")
    from quantward.graph.capture import capture

    class Dense(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.grow = torch.nn.ModuleList(torch.nn.Conv2d(8 + 8 * i, 8, 3, padding=1) for i in range(3))
            self.norms = torch.nn.ParameterList(torch.rand(8 + 8 * i, 1, 1) + 0.5 for i in range(4))
            self.head = torch.nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = [self.stem(x)]
            for norm, step in zip(self.norms, self.grow, strict=False):
                seen.append(step(torch.relu(torch.cat(seen, 1) * norm - norm / 9)))
            return self.head(torch.relu(torch.cat(seen, 1) * self.norms[3] - 0.1).mean((2, 3)))  # type: ignore[no-any-return]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Dense()
        with torch.no_grad():
            net.head.weight.normal_(std=2.0)
    return capture(Model("dense", net.eval(), Preprocess(size=32, resize=32), ("a", "b", "c", "d")))


@pytest.mark.parametrize("placement", ["every", "readers"])
def test_dense_blocks_run_in_openvino(placement: str, dense_plan: Plan, images: Batch, tmp_path: Path) -> None:
    """OpenVINO 2026.4 dies compiling the file in which concatenations have a joint grid: that must be a sentence. The
    file that stores only what integers read has to work."""
    import torch

    from quantward.graph.simulate import simulate
    from quantward.runtimes.openvino import Openvino
    from quantward.targets.onnx_cpu import OnnxCpu
    from quantward.workbench import open_session

    if missing := Openvino().missing():
        pytest.skip(missing)
    recipe = Registry("recipe", "quantward.quantize.recipes").make(f"int8-static:placement={placement}")
    plan = recipe.plan(dense_plan, Context(images=lambda _: iter([images])))
    variant = OnnxCpu().write(plan, tmp_path)
    try:
        got = open_session(variant, "openvino", 1)(images)
    except Refused as crash:
        assert placement == "every" and "openvino crashed (SIGSEGV)" in str(crash)
        return
    with torch.no_grad():
        expected = simulate(plan)(torch.from_numpy(images)).numpy()
    assert np.mean(got.argmax(1) == expected.argmax(1)) >= 0.95
    assert np.abs(got - expected).max() <= 0.05 * np.ptp(expected)
    assert Openvino().executed(variant).layers == {"int8": 5}
