"""A Plan's program as ONNX with the markers of `graph.to_onnx`, written step by step: no torch, and milliseconds.

Knows the operators that networks read from ONNX files consist of, and those of traced convolutional networks. So a
float file becomes a smaller file in the base install and the onnx package, which is all that a clinic's computer has.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from quantward.core.errors import Unsupported
from quantward.core.values import Plan
from quantward.graph._onnx_emitters import EMITTERS
from quantward.graph._onnx_writing import DOMAIN, Writing

__all__ = ["DOMAIN", "OPSET", "ORIGIN", "emit", "emits"]

OPSET = 21
ORIGIN = "onnx"
"""The note by which a Plan is known to come from an ONNX file; it holds the file's name."""


def emits(plan: Plan) -> bool:
    """Whether every operator of a program is known here."""
    return all(node.op in EMITTERS or node.op in ("input", "output") for node in plan.program)


def emit(plan: Plan) -> onnx.ModelProto:
    """The float program as ONNX with `quantward::Tap(name=...)` after every weight (`weight:NAME`), after every step
    (`output:NAME`) and before every layer (`input:NAME`); input `input` (batch, 3, size, size), output `logits`.

    Behind a marker the weights are the Plan's own. Raises Unsupported, by name, for an operator that is not known.
    """
    work = Writing(plan)
    for node in plan.program:
        if node.op == "output":
            break
        if node.op == "input":
            work.values["input"], work.ranks["input"] = work.tap("input", "output:input"), 4
            continue
        if node.op not in EMITTERS:
            raise Unsupported(
                f"Expected operators that can be written without torch; got {node.op} ({node.name!r}). "
                "Run: pip install 'quantward[train]'."
            )
        made = EMITTERS[node.op](work, node)
        if made in work.sizes:
            work.values[node.name] = made
            continue
        work.values[node.name] = work.tap(made, f"output:{node.name}")
    last = work.values[plan.program[-1].args[0]["node"]]
    for made_node in work.nodes:  # the marker's own output takes the name, as the exporter gives it
        made_node.output[:] = ["logits" if name == last else name for name in made_node.output]
        made_node.input[:] = ["logits" if name == last else name for name in made_node.input]
    side = plan.preprocess.size
    graph = helper.make_graph(
        work.nodes,
        "quantward",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(plan.classes)])],
        work.arrays,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets)
