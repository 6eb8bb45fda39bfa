"""ONNX operators that only move values, as aten steps: their shapes are taken from the two runs, not understood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from quantward.graph._onnx_reading import Call

FOREVER = 9223372036854775807


def reshape(call: Call) -> None:
    """`Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`: what comes out has the shape it has; one size may be open."""
    few, more = call.made()
    before = call.shape(0)
    if few == before:
        call.same()
        return
    if len(few) == 2 and len(before) > 2 and few[0] == before[0]:
        call.put("aten.flatten.using_ints", call.ref(0), 1)
        return
    sizes: list[Any] = [call.reading.size(pair) for pair in zip(few, more, strict=True)]
    open_places = [place for place, size in enumerate(sizes) if isinstance(size, dict)]
    if len(open_places) == 1:
        sizes[open_places[0]] = -1
    elif not open_places and call.reading.seen.batches[0] == 1 and sizes:
        sizes[0] = -1  # seen with one image only: the first axis counts the images, or the proof fails
    call.put("aten.reshape.default", call.ref(0), sizes)


def transpose(call: Call) -> None:
    """`Transpose`; without an order it turns all axes round."""
    rank = len(call.shape(0))
    order = call.attribute("perm") or list(range(rank))[::-1]
    call.put("aten.permute.default", call.ref(0), [int(axis) for axis in order])


def concat(call: Call) -> None:
    """`Concat`; what no pixel moves gets as many images as the rest."""
    axis = call.attribute("axis", 1) % len(call.made()[0])
    parts = [call.ref(place, expand=axis != 0) for place in range(len(call.node.input))
             if 0 not in call.shape(place)]  # fmt: skip
    call.put("aten.cat.default", parts, axis)


def cut(call: Call) -> None:
    """`Slice` with stored ends and steps forward."""
    rank = len(call.shape(0))
    if call.opset < 10:
        starts, ends = call.attribute("starts"), call.attribute("ends")
        axes, steps = call.attribute("axes"), None
    else:
        starts, ends = (_numbers(call, place) for place in (1, 2))
        axes = _numbers(call, 3) if call.has(3) else None
        steps = _numbers(call, 4) if call.has(4) else None
    x = call.ref(0)
    axes = list(range(len(starts))) if axes is None else [axis % rank for axis in axes]
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes), strict=True):
        if step < 1:
            raise call.refused("it steps backwards")
        size = call.shape(0)[axis]
        if start in (0, -size) and end >= size and step == 1:
            continue
        if call.counts_images(axis):
            raise call.refused("it picks some of the images")
        x = call.reading.add("aten.slice.Tensor", [x, axis, start, min(end, FOREVER), step], call.name)
    call.reading.says[call.node.output[0]] = x


def gather(call: Call) -> None:
    """`Gather` at stored places: one, a run of them, or any list along an axis."""
    rank = len(call.shape(0))
    axis = call.attribute("axis", 0) % rank
    places = call.constant(1, "places")
    if call.counts_images(axis):
        raise call.refused("it picks some of the images")
    size = call.shape(0)[axis]
    if places.ndim == 0:
        call.put("aten.select.int", call.ref(0), axis, int(places) % size)
    elif places.ndim == 1:
        flat = places % size
        if len(flat) and np.array_equal(flat, np.arange(flat[0], flat[0] + len(flat))):
            call.put("aten.slice.Tensor", call.ref(0), axis, int(flat[0]), int(flat[-1]) + 1, 1)
        else:
            index = call.reading.keep(f"{call.name}.places", flat.astype(np.int64))
            call.put("aten.index_select.default", call.ref(0), axis, index)
    else:
        raise call.refused("its places have several axes")


def split(call: Call) -> None:
    """`Split` into parts along an axis, each a slice."""
    axis = call.attribute("axis", 0) % len(call.shape(0))
    if call.counts_images(axis):
        raise call.refused("it parts the images")
    x, start = call.ref(0), 0
    for output in call.node.output:
        size = call.reading.seen.shapes[output][0][axis]
        call.reading.says[output] = call.reading.add("aten.slice.Tensor", [x, axis, start, start + size, 1], call.name)
        start += size


def expand(call: Call) -> None:
    """`Expand` to the shape it has in both runs."""
    few, more = call.made()
    if few == call.shape(0):
        call.same()
        return
    call.put("aten.expand.default", call.ref(0), [call.reading.size(pair) for pair in zip(few, more, strict=True)])


def pad(call: Call) -> None:
    """`Pad` with a constant, or by reflection or repetition of the last two axes."""
    mode = call.attribute("mode", "constant")
    amounts = call.attribute("pads") if call.opset < 11 else _numbers(call, 1)
    rank = len(call.shape(0))
    axes = [axis % rank for axis in _numbers(call, 3)] if call.has(3) else list(range(rank))
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = amounts[place], amounts[place + len(axes)]
    if not any(before + after):
        call.same()
        return
    if before[0] or after[0] or (mode != "constant" and any(before[:-2] + after[:-2])):
        raise call.refused("it pads other axes than those of the image")
    last = next(axis for axis in range(rank) if before[axis] or after[axis]) if mode == "constant" else rank - 2
    sides = [amount for axis in range(rank - 1, last - 1, -1) for amount in (before[axis], after[axis])]
    if mode == "constant":
        value = float(call.attribute("value", 0.0))
        if call.opset >= 11 and call.has(2):
            value = float(call.constant(2, "value"))
        fill: Any = value if np.isfinite(value) else {"float": str(value)}
        call.put("aten.pad.default", call.ref(0), sides, "constant", fill)
        return
    if mode not in ("reflect", "edge"):
        raise call.refused(f"it pads by {mode}")
    call.put("aten.pad.default", call.ref(0), sides, "replicate" if mode == "edge" else mode)


def cast(call: Call) -> None:
    """`Cast` and `CastLike` from float32 to float32; other arithmetic is another network."""
    if call.op == "Cast" and call.attribute("to") != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(call.attribute("to")).lower()
        raise call.refused(f"it computes in {kind}")
    call.same()


def same(call: Call) -> None:
    """`Identity` and `Dropout`."""
    if call.op == "Dropout" and call.has(2) and bool(call.constant(2, "mode")):
        raise call.refused("it is in training mode")
    call.same()


def where(call: Call) -> None:
    """`Where` with a stored condition."""
    condition = call.reading.keep(f"{call.name}.condition", call.constant(0, "condition"))
    call.put("aten.where.self", condition, call.ref(1), call.ref(2))


def _numbers(call: Call, place: int) -> list[int]:
    return [int(value) for value in call.constant(place, "place").ravel()]


MOVES: dict[str, Callable[[Call], object]] = {
    "Reshape": reshape,
    "Flatten": reshape,
    "Squeeze": reshape,
    "Unsqueeze": reshape,
    "Transpose": transpose,
    "Concat": concat,
    "Slice": cut,
    "Gather": gather,
    "Split": split,
    "Expand": expand,
    "Pad": pad,
    "Cast": cast,
    "Identity": same,
    "Dropout": same,
    "Where": where,
}
