"""From a Plan to the bytes of a TFLite file: walk the program once, write each step that depends on the image.

What depends on weights alone (position tables, masks) is computed here and stored; shapes come from running the float
program once on one image, so the file is written for one image at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from quantward.core.errors import Unsupported
from quantward.core.values import Node, Plan, QuantSpec
from quantward.graph.network import function
from quantward.graph.stored import stored_weight
from quantward.graph.walk import inputs_of, readers
from quantward.targets._litert_file import Grid
from quantward.targets._litert_layers import Activation
from quantward.targets._litert_step import Step, activation_of
from quantward.targets._litert_steps import STEPS
from quantward.targets._litert_values import CHANNELS_LAST, Sheet, Value, in_order, on_grid, refuse

FUSING = {"aten.conv2d.default", "aten.linear.default", "aten.batch_norm.default", "aten.add.Tensor"}
"""Operators that can clamp what they write."""


def write_program(plan: Plan, logits: Grid | None = None, pack: bool = True) -> bytes:
    """The Plan as a TFLite file with one input (1, rows, columns, 3) and one output (1, classes), integers where the
    Plan has them in integers; `logits` is the grid of the output, which Plans leave in float,
    `pack` whether weights of 4 bits and fewer lie two in a byte.

    Raises Unsupported for steps and specs without a counterpart.
    """
    sheet = Sheet(half=any(spec.format == "float16" for spec in plan.tensors.values()), pack=pack)
    weights = {name: torch.from_numpy(_stored(array, plan.tensors.get(name))) for name, array in plan.weights.items()}
    follows = readers(plan.program)
    known: dict[str, Any] = {}
    written: dict[str, Any] = {}
    fused: dict[str, str] = {}
    for node in plan.program:
        if node.op == "input":
            size = plan.preprocess.size
            known[node.name] = torch.zeros(1, 3, size, size)
            written[node.name] = sheet.value("input", (1, 3, size, size), CHANNELS_LAST, grid_of(plan, node.name))
            first = written[node.name]
        elif node.op == "output":
            return _finished(sheet, first, written.get(inputs_of(node)[0]), logits)
        else:
            args, kwargs = (_resolved(given, known, weights) for given in (node.args, node.kwargs))
            with torch.no_grad():
                known[node.name] = function(node.op)(*args, **kwargs)
            if node.name in fused:
                written[node.name] = written[fused[node.name]]
            elif node.op == "operator.getitem" and inputs_of(node)[0] in written:
                written[node.name] = written[inputs_of(node)[0]][node.args[1]]
            elif any(name in written for name in inputs_of(node)) and not isinstance(known[node.name], int):
                written[node.name] = _written(sheet, plan, node, known, weights, written, follows, fused, logits)
    raise Unsupported("Expected a program that ends with an output; this one does not. Capture it again.")


def grid_of(plan: Plan, name: str) -> Grid | None:
    """The grid of a node's output, None where it stays in float.

    Raises Unsupported for grids that no TFLite type holds.
    """
    spec = plan.tensors.get(name)
    if spec is None or spec.kind != "activation" or spec.dynamic:
        return None
    if spec.format != "integer" or np.ndim(spec.scale):
        raise refuse("integer activations with one scale", f"{spec.format}, {np.size(spec.scale)} scales", name)
    if not (2 <= spec.bits <= 8 or (spec.bits == 16 and spec.signed and not np.any(spec.zero_point))):
        raise refuse("activations of 2 to 8 bits, or of 16 around zero", f"{spec.bits}", name)
    return Grid.of(spec)


def _stored(array: Any, spec: QuantSpec | None) -> Any:
    return np.array(array if spec is None or spec.kind == "activation" else stored_weight(array, spec))


def _written(sheet: Sheet, plan: Plan, node: Node, known: Mapping[str, Any], weights: Mapping[str, Any],
             written: Mapping[str, Any], follows: Mapping[str, list[Node]], fused: dict[str, str],
             logits: Grid | None) -> Any:  # fmt: skip
    """One step in the file, rounded as the Plan says; a clamp that alone reads it becomes part of it."""
    if node.op not in STEPS:
        raise Unsupported(
            f"Expected operators that litert has a form for; {node.name!r} is {node.op}. Use the target onnx-cpu."
        )
    want, activation, users = grid_of(plan, node.name), "NONE", follows[node.name]
    if node.op in FUSING and want is None and len(users) == 1 and users[0].op != "output":
        clamp = activation_of(users[0])
        if clamp is not None:
            activation, want = clamp, grid_of(plan, users[0].name)
            fused[users[0].name] = node.name
    if want is None and [user.op for user in users] == ["output"]:
        want = logits
    found = known[node.name]
    step = Step(
        sheet,
        plan,
        node,
        tuple(_resolved(node.args, {**known, **written}, weights)),
        _resolved(node.kwargs, {**known, **written}, weights),
        tuple(found.shape) if isinstance(found, torch.Tensor) else (),
        want,
        _as_activation(activation),
        all(grid_of(plan, user.name) is not None for user in users),
    )
    result = STEPS[node.op](step)
    return result if isinstance(result, tuple) else on_grid(sheet, result, want, node.name)


def _as_activation(text: Any) -> Activation:
    named: Activation = text
    return named


def _resolved(item: Any, values: Mapping[str, Any], weights: Mapping[str, Any]) -> Any:
    """An argument with its references replaced: by tensors, by Values of the file, by plain numbers."""
    if isinstance(item, Mapping):
        if "node" in item:
            return values[item["node"]]
        if "weight" in item:
            return weights[item["weight"]]
        if "dtype" in item:
            return getattr(torch, item["dtype"])
        if "float" in item:
            return float(item["float"])
        return {key: _resolved(value, values, weights) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_resolved(part, values, weights) for part in item]
    return item


def _finished(sheet: Sheet, first: Value, last: Any, logits: Grid | None) -> bytes:
    if not isinstance(last, Value):
        raise Unsupported("Expected logits that depend on the image; they do not. Capture the network again.")
    last = on_grid(sheet, in_order(sheet, last), logits, "logits")
    return sheet.draft.data({"input": first.tensor}, {"logits": last.tensor})
