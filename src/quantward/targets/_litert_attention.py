"""What transformers are made of besides linear layers, in float32: LayerNorm, softmax, products of two values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from quantward.targets._litert_functions import binary
from quantward.targets._litert_moves import permuted
from quantward.targets._litert_step import Step
from quantward.targets._litert_values import Sheet, Value, arranged, as_float, in_order, refuse


def softmax(step: Step) -> Value:
    """Softmax over the last axis in the file."""
    x, axis = as_float(step.sheet, step.x), int(step.args[1])
    if x.place(axis) != len(x.shape) - 1:
        x = arranged(step.sheet, x, (*(a for a in x.order if a != axis % len(x.shape)), axis % len(x.shape)))
    return step.sheet.run("SOFTMAX", [x], step.sheet.value(step.name, x.shape, x.order), beta=1.0)


def layer_norm(step: Step) -> Value:
    """(x - mean) / sqrt(variance + eps) gamma + beta over the last axes, written out: TFLite has no operator for it."""
    sheet, x, name = step.sheet, as_float(step.sheet, step.x), step.name
    first = len(x.shape) - len(step.args[1])
    axes = sheet.whole_numbers(sorted(x.place(axis) for axis in range(first, len(x.shape))))
    small = (*x.shape[:first], *(1 for _ in x.shape[first:]))
    mean = sheet.run("MEAN", [x, axes], sheet.value(f"{name}/mean", small, x.order), keepDims=True)
    centred = sheet.run("SUB", [x, mean], sheet.value(f"{name}/centred", x.shape, x.order))
    square = sheet.run("MUL", [centred, centred], sheet.value(f"{name}/square", x.shape, x.order))
    variance = sheet.run("MEAN", [square, axes], sheet.value(f"{name}/variance", small, x.order), keepDims=True)
    eps = sheet.floats("eps", np.asarray(step.get(4, "eps", 1e-5)))
    safe = sheet.run("ADD", [variance, eps], sheet.value(f"{name}/safe", small, x.order))
    factor = sheet.run("RSQRT", [safe], sheet.value(f"{name}/factor", small, x.order))
    found = sheet.run("MUL", [centred, factor], sheet.value(f"{name}/normal", x.shape, x.order))
    for op, given in (("MUL", step.get(2, "weight", None)), ("ADD", step.get(3, "bias", None))):
        if given is not None:
            shaped = np.asarray(given, np.float32).reshape((1,) * first + np.shape(given)).transpose(x.order)
            number = sheet.floats(f"{name}/{op.lower()}", shaped)
            found = sheet.run(op, [found, number], sheet.value(name, x.shape, x.order))
    return found


def matmul(step: Step) -> Value:
    """A product of two values over their last axes, in float32."""
    left, right = (as_float(step.sheet, item) for item in step.args[:2])
    return product(step.sheet, left, right, step.shape, step.name)


def product(sheet: Sheet, left: Value, right: Value, shape: tuple[int, ...], name: str) -> Value:
    """BATCH_MATMUL; the right side lies transposed where its rows are what is stored in one piece."""
    if len(left.shape) != len(right.shape):
        raise refuse("products of values of one rank", f"{left.shape} and {right.shape}", name)
    left, rank = in_order(sheet, left), len(right.shape)
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    adjoint = right.order[-1] == rank - 2
    right = arranged(sheet, right, swapped) if adjoint else in_order(sheet, right)
    return sheet.run("BATCH_MATMUL", [left, right], sheet.value(name, shape), adjY=adjoint)


def attention(step: Step) -> Value:
    """softmax(q k^T / sqrt(d) + mask) v, in float32."""
    sheet, name = step.sheet, step.name
    if step.get(5, "is_causal", False) or step.get(4, "dropout_p", 0.0):
        raise refuse("attention of all to all", "a causal mask or dropout", name)
    query, key, value = (in_order(sheet, as_float(sheet, item)) for item in step.args[:3])
    scale = step.kwargs.get("scale") or 1 / math.sqrt(query.shape[-1])
    scaled = sheet.run("MUL", [query, sheet.floats(f"{name}/scale", np.asarray(scale))],
                       sheet.value(f"{name}/scaled", query.shape))  # fmt: skip
    turned = permuted(key, (*range(len(key.shape) - 2), len(key.shape) - 1, len(key.shape) - 2))
    size = (*query.shape[:-1], key.shape[-2])
    scores = product(sheet, scaled, turned, size, f"{name}/scores")
    mask = step.get(3, "attn_mask", None)
    if mask is not None:
        if isinstance(mask, Value) or np.asarray(mask).dtype == bool:
            raise refuse("a mask of constant floats", "another", name)
        scores = binary("ADD")(replace(step, args=(scores, mask), kwargs={}, shape=size, want=None))  # type: ignore[assignment]
    weights = sheet.run("SOFTMAX", [scores], sheet.value(f"{name}/weights", size), beta=1.0)
    return product(sheet, weights, value, step.shape, name)
