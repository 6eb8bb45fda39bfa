"""From a torch classifier to a float Plan: trace it once, name every step, fold batch normalisation.

`torch.export` gives one flat vocabulary (aten operators) for every network, where symbolic tracing gives three
spellings of each operation. The trace is turned into plain data (`Node`), so a Plan needs neither the Python
class of the network nor a pickle to come alive again. The folded network is proved equal to the original.
"""

from __future__ import annotations

import operator
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from quantward.core.errors import Unsupported
from quantward.core.store import digest_arrays
from quantward.core.values import FloatArray, Model, Node, Plan
from quantward.graph.fold import fold_batch_norm
from quantward.graph.network import Network
from quantward.graph.walk import weights_of

IDENTITIES = {"aten.dropout", "aten.contiguous", "aten.clone", "aten.alias", "aten.detach", "aten.feature_dropout"}
"""Operators that change nothing in inference; they are left out of the program."""

TOLERANCE = 1e-4
"""Largest |logit difference|, relative to the largest |logit| (at least 1), between a network and its folded trace."""


def capture(model: Model) -> Plan:
    """Trace `model.net` and fold its batch normalisations; the result is the float Plan all recipes start from.

    Raises Unsupported when the network cannot be traced, or when the trace does not give the network's own logits
    (random images, largest difference over `TOLERANCE`).
    """
    net: nn.Module = model.net.eval()
    size = model.preprocess.size
    example = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            batch = torch.export.Dim("batch", min=1)
            exported = torch.export.export(net, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export raises many unrelated types; all mean the same to the user
        first = str(error).strip().partition("\n")[0]
        raise Unsupported(
            f"Expected a network that torch.export can trace; {model.name!r} failed ({first}). "
            "Rewrite the part that depends on data, or choose another architecture."
        ) from None
    program, weights = _as_data(exported, net)
    program, weights = fold_batch_norm(program, weights)
    used = {name for node in program for name in weights_of(node)}
    weights = {name: array for name, array in weights.items() if name in used}
    plan = Plan(program, weights, model.preprocess, model.classes, parent=digest_arrays(weights))
    _prove_equal(net, plan, example, model.name)
    return plan


def _prove_equal(net: nn.Module, plan: Plan, example: torch.Tensor, name: str) -> None:
    with torch.no_grad():
        expected, got = net(example), Network(plan)(example)
    worst = float((expected - got).abs().max() / expected.abs().max().clamp(min=1.0))
    if not worst <= TOLERANCE:
        raise Unsupported(
            f"Expected the traced {name!r} to give the network's own logits within {TOLERANCE:g}; the largest "
            f"relative difference is {worst:.2g}. Check that the network is in eval mode and draws no random numbers."
        )


def _as_data(exported: torch.export.ExportedProgram, net: nn.Module) -> tuple[tuple[Node, ...], dict[str, FloatArray]]:
    """The exported graph as Nodes, and every weight or constant it reads as an array."""
    signature = exported.graph_signature
    sources = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    stored = {**exported.state_dict, **exported.constants}
    weights = {name: stored[name].detach().cpu().numpy().copy() for name in sources.values()}
    says: dict[str, Any] = {}
    nodes: list[Node] = []
    taken: Counter[str] = Counter()
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            if node.name in sources:
                says[node.name] = {"weight": sources[node.name]}
            else:
                says[node.name] = {"node": "input"}
                nodes.append(Node("input", "input"))
        elif node.op == "call_function":
            _add_call(node, net, nodes, says, taken)
        elif node.op == "output":
            nodes.append(Node("output", "output", (_encode(node.args[0][0], says),)))
        else:
            raise Unsupported(f"Expected a flat trace; got a node of kind {node.op!r}. Remove control flow.")
    return tuple(nodes), weights


def _add_call(node: fx.Node, net: nn.Module, nodes: list[Node], says: dict[str, Any], taken: Counter[str]) -> None:
    """Append one call; in-place operators become plain ones, whose result replaces their input from here on."""
    op = _op_name(node.target)
    if op.rpartition(".")[0] in IDENTITIES:
        says[node.name] = says[_first(node).name]
        return
    op = "aten.reshape.default" if op == "aten.view.default" else op  # a view may need the copy that was left out
    args = tuple(_encode(item, says) for item in node.args)
    kwargs = {key: _encode(item, says) for key, item in node.kwargs.items() if key not in ("device", "pin_memory")}
    if op == "aten.to.device":  # a Plan knows no devices
        op, args = "aten.to.dtype", (args[0], *args[2:])
    name = _name(node, net, op)
    taken[name] += 1
    if taken[name] > 1:
        name = f"{name}#{taken[name]}"
    base, _, overload = op.rpartition(".")
    if base.startswith("aten.") and base.endswith("_"):
        op = f"{base[:-1]}.{overload}"
        overwritten = says[_first(node).name]
        for key, reference in says.items():
            if reference == overwritten:
                says[key] = {"node": name}
    nodes.append(Node(name, op, args, kwargs))
    says[node.name] = {"node": name}


def _first(node: fx.Node) -> fx.Node:
    first = node.args[0]
    assert isinstance(first, fx.Node)
    return first


def _op_name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    name = getattr(target, "__name__", "")
    return f"operator.{name}" if name and getattr(operator, name, None) is target else str(target)


def _name(node: fx.Node, net: nn.Module, op: str) -> str:
    """The module path of a leaf module's operation; elsewhere the path and the operator's short name."""
    short = op.split(".")[1].rstrip("_")
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    try:
        leaf = bool(path) and not any(True for _ in net.get_submodule(path).children())
    except AttributeError:
        leaf = False
    if leaf:
        return path
    return f"{path}.{short}" if path else short


def _encode(value: Any, says: Mapping[str, Any]) -> Any:
    """An argument as plain JSON data."""
    if isinstance(value, fx.Node):
        return says[value.name]
    if isinstance(value, (list, tuple)):
        return [_encode(item, says) for item in value]
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, (torch.memory_format, torch.layout, torch.device)):
        return None
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise Unsupported(f"Expected plain arguments in the trace; got {type(value).__name__}. Simplify the network.")
