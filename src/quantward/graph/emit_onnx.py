"""A Plan's program as ONNX with the markers of `graph.to_onnx`, written step by step: no torch, and milliseconds.

One table says how each operator is written (`_onnx_emitters`), whether torch traced it or an ONNX file held it. So one
Plan becomes one file, whatever is installed, and every file has the operators that runtimes fuse.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from quantward.core.errors import Unsupported
from quantward.core.values import Plan
from quantward.graph._onnx_emitters import EMITTERS
from quantward.graph._onnx_writing import DOMAIN, OPSET, Writing

__all__ = ["DOMAIN", "OPSET", "ORIGIN", "emit", "emits"]

ORIGIN = "onnx"
"""The note by which a Plan is known to come from an ONNX file; it holds the file's name."""


def emits(plan: Plan) -> bool:
    """Whether every operator of a program is known here."""
    return all(node.op in EMITTERS or node.op in ("input", "output") for node in plan.program)


def emit(plan: Plan) -> onnx.ModelProto:
    """The float program as ONNX with `quantward::Tap(name=...)` after every weight (`weight:NAME`), after every step
    that makes floats (`output:NAME`) and before every layer (`input:NAME`); input `input` (batch, 3, size, size),
    output `logits` (batch, classes).

    Behind a marker the weights are the Plan's own. Raises Unsupported, by name, for an operator that is not known or
    is used as no ONNX operator can be.
    """
    try:
        return _written(Writing(plan))
    except ValueError as error:
        try:  # files that take one image only have that 1 in their reshapes
            return _written(Writing(plan, images=1))
        except ValueError:
            first = str(error).strip().partition("\n")[0]
            raise Unsupported(
                f"Expected steps whose shapes fit each other; got {first}. Capture or read the network again."
            ) from None


def _written(work: Writing) -> onnx.ModelProto:
    plan, side = work.plan, work.plan.preprocess.size
    for node in plan.program:
        if node.op == "output":
            break
        if node.op == "input":
            work.kinds["input"], work.shapes["input"] = TensorProto.FLOAT, (work.images, 3, side, side)
            work.values["input"] = work.tap("input", "output:input")
            continue
        if node.op not in EMITTERS:
            raise Unsupported(
                f"Expected operators that can be written as ONNX; got {node.op} ({node.name!r}). "
                "Choose another architecture, or report this one."
            )
        made = EMITTERS[node.op](work, node)
        if made is not None:
            floats = work.kinds[made] == TensorProto.FLOAT
            work.values[node.name] = work.tap(made, f"output:{node.name}") if floats else made
    last = work.values[plan.program[-1].args[0]["node"]]
    for step in work.nodes:  # the marker's own output takes the name of the file's
        step.output[:] = ["logits" if name == last else name for name in step.output]
        step.input[:] = ["logits" if name == last else name for name in step.input]
    graph = helper.make_graph(
        work.nodes,
        "quantward",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(plan.classes)])],
        work.arrays,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)])
