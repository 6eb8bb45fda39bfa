"""What exporters spell out in small steps, put back together: recipes place quantizers by the operator's name.

Each rule looks at one step and what it reads, on plain data. A rule that does not match leaves everything as it is;
the result is proved equal to the file in any case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quantward.core.values import FloatArray, Node
from quantward.graph.walk import CONV, LAYER_NORM, LINEAR, inputs_of, weights_of

Weights = dict[str, FloatArray]
ADD, SUB, MUL, DIV = (f"aten.{name}.Tensor" for name in ("add", "sub", "mul", "div"))


@dataclass
class Program:
    """The steps by name, in order, with their weights; `readers` counts who reads what."""

    steps: dict[str, Node]
    weights: Weights
    index: dict[str, list[str]] | None = None

    def readers(self, name: str) -> list[Node]:
        """The steps that read one. Looked up, until a step changes."""
        if self.index is None:
            self.index = {}
            for step in self.steps.values():
                for read in inputs_of(step):
                    self.index.setdefault(read, []).append(step.name)
        return [self.steps[reader] for reader in dict.fromkeys(self.index.get(name, ()))]

    def change(self, steps: dict[str, Node]) -> None:
        """Take other steps."""
        self.steps, self.index = steps, None

    def step(self, item: Any, op: str | None = None, alone: bool = True) -> Node | None:
        """The step that an argument refers to, if it has this operator and (where `alone`) one reader."""
        if not isinstance(item, dict) or "node" not in item:
            return None
        found = self.steps.get(item["node"])
        if found is None or (op is not None and found.op != op) or (alone and len(self.readers(found.name)) != 1):
            return None
        return found

    def number(self, item: Any) -> float | None:
        """An argument as one number."""
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            return float(item)
        array = self.array(item)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def array(self, item: Any) -> FloatArray | None:
        """An argument as a stored array of floats."""
        if not isinstance(item, dict) or "weight" not in item:
            return None
        found = self.weights[item["weight"]]
        return found if np.issubdtype(found.dtype, np.floating) else None


def recognised(program: tuple[Node, ...], weights: Weights) -> tuple[tuple[Node, ...], Weights]:
    """The program with known activations, normalisations and biases as one step each; unused steps are gone."""
    whole = Program({node.name: node for node in program}, dict(weights))
    for rule in (_normalised, _gelu, _hard_swish, _silu, _biased, _twice_permuted):
        for name in list(whole.steps):
            if name in whole.steps and (made := rule(whole, whole.steps[name])) is not None:
                whole.change({**whole.steps, name: made})
        _sweep(whole)
    used = {name for node in whole.steps.values() for name in weights_of(node)}
    return tuple(whole.steps.values()), {name: whole.weights[name] for name in whole.weights if name in used}


def _sweep(whole: Program) -> None:
    """Forget steps that nothing reads any more."""
    needed: set[str] = {"input", "output"}
    for node in reversed(list(whole.steps.values())):
        if node.name in needed:
            needed.update(inputs_of(node))
    whole.change({name: node for name, node in whole.steps.items() if name in needed})


def _pair(whole: Program, node: Node, test: Callable[[Any], bool]) -> tuple[Any, Any] | None:
    """The two arguments of a sum or product, that which passes the test first."""
    if len(node.args) != 2:
        return None
    first, second = node.args
    return (first, second) if test(first) else (second, first) if test(second) else None


def _silu(whole: Program, node: Node) -> Node | None:
    """x sigmoid(x)"""
    if node.op != MUL:
        return None
    pair = _pair(whole, node, lambda item: whole.step(item, "aten.sigmoid.default") is not None)
    gate = whole.step(pair[0]) if pair else None
    if pair is None or gate is None or gate.args[0] != pair[1]:
        return None
    return replace(node, op="aten.silu.default", args=(pair[1],))


def _hard_swish(whole: Program, node: Node) -> Node | None:
    """x hardsigmoid(x), and x clip(x + 3, 0, 6) / 6 in three orders; clip(x + 3, 0, 6) / 6 alone is a hardsigmoid."""
    if node.op in (DIV, MUL) and _sixth(whole, node):
        inner = whole.step(node.args[0])
        if inner is not None and (x := _three_up(whole, inner)) is not None:
            return replace(node, op="aten.hardsigmoid.default", args=(x,))
        pair = (
            None
            if inner is None or inner.op != MUL
            else _pair(whole, inner, lambda item: _three_up(whole, whole.step(item)) is not None)
        )
        if pair is not None and _three_up(whole, whole.step(pair[0])) == pair[1]:
            return replace(node, op="aten.hardswish.default", args=(pair[1],))
    if node.op != MUL:
        return None
    pair = _pair(whole, node, lambda item: whole.step(item, "aten.hardsigmoid.default") is not None)
    gate = whole.step(pair[0]) if pair else None
    if pair is None or gate is None or gate.args[0] != pair[1]:
        return None
    return replace(node, op="aten.hardswish.default", args=(pair[1],))


def _sixth(whole: Program, node: Node) -> bool:
    number = whole.number(node.args[1])
    return number is not None and abs(number - (6 if node.op == DIV else 1 / 6)) < 1e-6


def _three_up(whole: Program, node: Node | None) -> Any:
    """x, where a step is clip(x + 3, 0, 6)."""
    if node is None or node.op != "aten.hardtanh.default" or tuple(node.args[1:]) != (0.0, 6.0):
        return None
    inner = whole.step(node.args[0], ADD)
    return inner.args[0] if inner is not None and whole.number(inner.args[1]) == 3 else None


def _gelu(whole: Program, node: Node) -> Node | None:
    """x (1 + erf(x / sqrt 2)) / 2, the half multiplied in wherever: the last product of the chain becomes it."""
    if node.op != MUL:
        return None
    factors: list[Any] = []
    open_items = [node]
    while open_items:
        for item in open_items.pop().args:
            inner = whole.step(item, MUL)
            if inner is None:
                factors.append(item)
            else:
                open_items.append(inner)
    half = [item for item in factors if whole.number(item) == 0.5]
    bent = [item for item in factors if (found := whole.step(item, ADD)) is not None and _erf(whole, found) is not None]
    rest = [item for item in factors if item not in half and item not in bent]
    if (len(half), len(bent), len(rest)) != (1, 1, 1):
        return None
    one_more = whole.step(bent[0])
    if one_more is None or _erf(whole, one_more) != rest[0]:
        return None
    return replace(node, op="aten.gelu.default", args=(rest[0],))


def _erf(whole: Program, node: Node) -> Any:
    """x, where a step is erf(x / sqrt 2) + 1."""
    if whole.number(node.args[1]) != 1:
        return None
    bend = whole.step(node.args[0], "aten.erf.default")
    inner = None if bend is None else whole.step(bend.args[0])
    if inner is None or inner.op not in (DIV, MUL):
        return None
    factor = whole.number(inner.args[1])
    want = math.sqrt(2) if inner.op == DIV else math.sqrt(0.5)
    return inner.args[0] if factor is not None and abs(factor - want) < 1e-5 else None


def _normalised(whole: Program, node: Node) -> Node | None:
    """(x - mean) / sqrt(variance + eps) over the last axis, times a weight, plus a bias: found at its last step."""
    bias = weight = None
    inner: Node | None = node
    if inner is not None and inner.op == ADD and (vector := _vector(whole, inner.args[1])) is not None:
        bias, inner = vector, whole.step(inner.args[0], MUL)
        if inner is None:
            return None
    if inner is not None and inner.op == MUL and (vector := _vector(whole, inner.args[1])) is not None:
        weight, inner = vector, whole.step(inner.args[0], DIV)
    if inner is None or inner.op != DIV or (bias is not None and weight is None):
        return None
    if bias is None and any(reader.op in (ADD, MUL) and whole.array(reader.args[-1]) is not None
                            for reader in whole.readers(node.name)):  # fmt: skip
        return None  # its weight or bias comes later: wait for that step
    centred, root = whole.step(inner.args[0], SUB, alone=False), whole.step(inner.args[1], "aten.sqrt.default")
    lifted = None if root is None else whole.step(root.args[0], ADD)
    spread = None if lifted is None else whole.step(lifted.args[0], "aten.mean.dim")
    square = None if spread is None else whole.step(spread.args[0])
    if centred is None or lifted is None or spread is None or square is None:
        return None
    mean = whole.step(centred.args[1], "aten.mean.dim")
    epsilon = whole.number(lifted.args[1])
    itself = {"node": centred.name}
    squared = (square.op == "aten.pow.Tensor_Scalar" and square.args == (itself, 2)) or (
        square.op == MUL and square.args == (itself, itself)
    )
    if mean is None or epsilon is None or not squared or mean.args[0] != centred.args[0]:
        return None
    width = None if weight is None else whole.weights[weight["weight"]].size
    axes = {tuple(mean.args[1]), tuple(spread.args[1])}
    if width is None or len(axes) != 1 or len(mean.args[1]) != 1 or not mean.args[2] or not spread.args[2]:
        return None
    return replace(node, op=LAYER_NORM, args=(centred.args[0], [width], weight, bias, epsilon, False))


def _vector(whole: Program, item: Any) -> dict[str, str] | None:
    array = whole.array(item)
    return item if array is not None and array.ndim == 1 else None


def _biased(whole: Program, node: Node) -> Node | None:
    """A layer without bias plus one number a channel is a layer with a bias."""
    if node.op != ADD:
        return None
    pair = _pair(whole, node, lambda item: whole.array(item) is not None)
    layer = None if pair is None else whole.step(pair[1])
    if pair is None or layer is None or layer.op not in (CONV, LINEAR):
        return None
    added = whole.array(pair[0])
    weight = whole.weights[layer.args[1]["weight"]]
    assert added is not None
    lies = added.shape[-3:] if layer.op == CONV else added.shape[-1:]
    wanted = (len(weight), 1, 1) if layer.op == CONV else (len(weight),)
    if lies != wanted or added.size != len(weight):
        return None
    had = whole.array(layer.args[2]) if len(layer.args) > 2 else None
    name = layer.args[1]["weight"].removesuffix(".weight") + ".bias"
    whole.weights[name] = (added.reshape(-1) + (0 if had is None else had)).astype(np.float32)
    args = (*layer.args[:2], {"weight": name}, *layer.args[3:])
    moved = replace(layer, args=args)
    steps = {key: step for key, step in whole.steps.items() if key != layer.name}
    whole.change({(layer.name if key == node.name else key): moved if key == node.name else step
                  for key, step in steps.items()})  # fmt: skip
    _point(whole, node.name, {"node": layer.name})
    return None


def _twice_permuted(whole: Program, node: Node) -> Node | None:
    """Two orders of axes one after the other are one order, or none."""
    if node.op != "aten.permute.default":
        return None
    first = whole.step(node.args[0], node.op, alone=False)
    if first is None:
        return None
    order = [first.args[1][axis] for axis in node.args[1]]
    if order != sorted(order):
        return replace(node, args=(first.args[0], order))
    _point(whole, node.name, first.args[0])
    return None


def _point(whole: Program, name: str, to: dict[str, str]) -> None:
    """Let all that read one step read another."""

    def swap(value: Any) -> Any:
        if value == {"node": name}:
            return to
        if isinstance(value, (list, tuple)):
            return type(value)(swap(item) for item in value)
        return value

    whole.change({key: replace(step, args=swap(step.args)) if name in inputs_of(step) else step
                  for key, step in whole.steps.items()})  # fmt: skip
