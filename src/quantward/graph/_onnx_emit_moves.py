"""What moves, cuts, repeats and counts numbers without changing them: one function an aten operator.

Sizes are known while the file is written, so what would move nothing is left out.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from quantward.core.values import Node
from quantward.graph._onnx_writing import LARGEST, Writing, argument, refused
from quantward.graph.walk import inputs_of

KINDS: dict[str, int] = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}


def flatten(work: Writing, node: Node) -> str:
    """Several axes as one."""
    x = work.value(node.args[0])
    shape = work.shapes[x]
    start, end = int(argument(node, 1, 0)) % len(shape), int(argument(node, 2, -1)) % len(shape)
    if start == 1 and end == len(shape) - 1:
        return work.put("Flatten", [x], axis=1)
    return work.reshaped(x, [*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]])


def reshape(work: Writing, node: Node) -> str:
    """Other sizes, one of which may be what is left."""
    return _reshaped(work, node, [work.size(item) for item in node.args[1]])


def _reshaped(work: Writing, node: Node, sizes: list[int]) -> str:
    x = work.value(node.args[0])
    if -1 in sizes:
        rest = math.prod(size for size in sizes if size != -1)
        left, over = divmod(math.prod(work.shapes[x]), rest)
        if over:
            raise ValueError(f"{node.name}: {work.shapes[x]} does not go into {sizes}")
        sizes = [left if size == -1 else size for size in sizes]
    return work.reshaped(x, sizes)


def reshape_as(work: Writing, node: Node) -> str:
    """The sizes of another step."""
    return work.reshaped(work.value(node.args[0]), work.shape(node.args[1]))


def unflatten(work: Writing, node: Node) -> str:
    """One axis as several."""
    shape = work.shape(node.args[0])
    axis = int(node.args[1]) % len(shape)
    sizes = [work.size(item) for item in node.args[2]]
    whole = [shape[axis] // math.prod(s for s in sizes if s != -1) if size == -1 else size for size in sizes]
    return work.reshaped(work.value(node.args[0]), [*shape[:axis], *whole, *shape[axis + 1 :]])


def unsqueeze(work: Writing, node: Node) -> str:
    """One more axis of size 1."""
    return work.put("Unsqueeze", [work.value(node.args[0]), work.numbers([node.args[1]])])


def squeeze(work: Writing, node: Node) -> str:
    """Axes of size 1 taken out; others stay, as in torch."""
    x = work.value(node.args[0])
    given = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    axes = [axis for axis in (int(a) % len(work.shapes[x]) for a in given) if work.shapes[x][axis] == 1]
    return work.put("Squeeze", [x, work.numbers(axes)]) if axes else x


def expand(work: Writing, node: Node) -> str:
    """Repeated along axes of size 1, -1 for as it is."""
    sizes, shape = [work.size(item) for item in node.args[1]], work.shape(node.args[0])
    own = [1] * (len(sizes) - len(shape)) + list(shape)
    return _expanded(work, node, [old if new == -1 else new for old, new in zip(own, sizes, strict=True)])


def expand_as(work: Writing, node: Node) -> str:
    """The sizes of another step; nothing where all its readers meet that step in arithmetic, which repeats itself."""
    partner = node.args[1]
    readers = [step for step in work.plan.program if node.name in inputs_of(step)]
    arithmetic = {f"aten.{name}.Tensor" for name in ("add", "sub", "mul", "div")}
    if all(step.op in arithmetic and partner in step.args[:2] for step in readers):
        return work.value(node.args[0])
    return _expanded(work, node, list(work.shape(partner)))


def _expanded(work: Writing, node: Node, sizes: list[int]) -> str:
    x = work.value(node.args[0])
    if tuple(sizes) == work.shapes[x]:
        return x
    own = [1] * (len(sizes) - len(work.shapes[x])) + list(work.shapes[x])
    written = [1 if old == new else new for old, new in zip(own, sizes, strict=True)]
    return work.put("Expand", [x, work.sizes(written)], sizes)


def repeat(work: Writing, node: Node) -> str:
    """Laid side by side, so many times along each axis."""
    x, times = work.value(node.args[0]), [work.size(item) for item in node.args[1]]
    own = [1] * (len(times) - len(work.shapes[x])) + list(work.shapes[x])
    x = work.reshaped(x, own)
    if all(count == 1 for count in times):
        return x
    return work.put("Tile", [x, work.sizes(times)], [size * count for size, count in zip(own, times, strict=True)])


def permute(work: Writing, node: Node) -> str:
    """Axes in another order."""
    rank = work.rank(node.args[0])
    return work.put("Transpose", [work.value(node.args[0])], perm=[axis % rank for axis in node.args[1]])


def transpose(work: Writing, node: Node) -> str:
    """Two axes changed for each other."""
    order = list(range(work.rank(node.args[0])))
    first, second = node.args[1] % len(order), node.args[2] % len(order)
    order[first], order[second] = second, first
    return work.put("Transpose", [work.value(node.args[0])], perm=order)


def turn(work: Writing, node: Node) -> str:
    """A matrix with rows and columns changed."""
    return work.put("Transpose", [work.value(node.args[0])], perm=list(range(work.rank(node.args[0])))[::-1])


def roll(work: Writing, node: Node) -> str:
    """Pushed along axes, what falls off one end comes in at the other: one Gather an axis."""
    axes = argument(node, 2, [])
    if len(axes) != len(node.args[1]):
        raise refused(node, "an axis for each shift", list(axes))
    x = work.value(node.args[0])
    for shift, axis in zip(node.args[1], axes, strict=True):
        size = work.shapes[x][axis]
        if work.grows(size):
            raise refused(node, "a roll within images", "one along the images")
        if shift % size:
            x = work.put("Gather", [x, work.numbers([(place - shift) % size for place in range(size)])], axis=int(axis))
    return x


def cat(work: Writing, node: Node) -> str:
    """Side by side along an axis."""
    return work.put("Concat", work.alike(node.args[0]), axis=int(argument(node, 1, 0)))


def stack(work: Writing, node: Node) -> str:
    """Side by side along a new axis."""
    axis = int(argument(node, 1, 0))
    items = [work.put("Unsqueeze", [item, work.numbers([axis])]) for item in work.alike(node.args[0])]
    return work.put("Concat", items, axis=axis)


def cut(work: Writing, node: Node) -> str:
    """Every step-th place from start to end of an axis."""
    x = work.value(node.args[0])
    axis, start, end, step = (argument(node, place, default) for place, default in ((1, 0), (2, 0), (3, None), (4, 1)))
    start, end, axis = work.size(start or 0), LARGEST if end is None else work.size(end), axis % len(work.shapes[x])
    if step == 1 and start == 0 and end >= work.shapes[x][axis]:
        return x
    return work.put("Slice", [x, *(work.numbers([number]) for number in (start, end, axis, step))])


def select(work: Writing, node: Node) -> str:
    """One place of an axis, which goes."""
    place = work.constant(int(node.args[2]), np.int64)
    return work.put("Gather", [work.value(node.args[0]), place], axis=int(node.args[1]))


def index_select(work: Writing, node: Node) -> str:
    """Places of an axis."""
    return work.put("Gather", [work.value(node.args[0]), work.value(node.args[2])], axis=int(node.args[1]))


def index(work: Writing, node: Node) -> str:
    """Places of one axis, given by a tensor of any shape (tables of relative positions)."""
    given = [place for place, item in enumerate(node.args[1]) if item is not None]
    if len(given) != 1 or work.kinds[work.value(node.args[1][given[0]])] == TensorProto.BOOL:
        raise refused(node, "places along one axis", "several axes, or a mask")
    return work.put("Gather", [work.value(node.args[0]), work.value(node.args[1][given[0]])], axis=given[0])


def unbind(work: Writing, node: Node) -> None:
    """All places of an axis, each by itself."""
    x, axis = work.value(node.args[0]), int(argument(node, 1, 0))
    places = range(work.shapes[x][axis])
    work.parts[node.name] = [work.put("Gather", [x, work.constant(place, np.int64)], axis=axis) for place in places]


def split(work: Writing, node: Node) -> None:
    """An axis in pieces of given sizes, or of one size with what is left at the end."""
    _split(work, node, node.args[1])


def chunk(work: Writing, node: Node) -> None:
    """An axis in so many pieces, the last one smaller where they do not divide it."""
    size = work.shape(node.args[0])[int(argument(node, 2, 0))]
    _split(work, node, -(-size // int(node.args[1])))


def _split(work: Writing, node: Node, sizes: Any) -> None:
    x, axis = work.value(node.args[0]), int(argument(node, 2, 0))
    whole = work.shapes[x][axis]
    if not isinstance(sizes, (list, tuple)):
        sizes = [min(int(sizes), whole - start) for start in range(0, whole, int(sizes))]
    work.parts[node.name] = (
        [x] if len(sizes) == 1 else work.put_many("Split", [x, work.numbers(sizes)], len(sizes), axis=axis)
    )


def part(work: Writing, node: Node) -> str:
    """One of several results."""
    return work.parts[node.args[0]["node"]][int(node.args[1])]


def pad(work: Writing, node: Node) -> str:
    """More places at the ends of the last axes."""
    x, sides, mode = work.value(node.args[0]), list(node.args[1]), argument(node, 2, "constant")
    if not any(sides):
        return x
    count = len(sides) // 2
    axes = work.numbers([len(work.shapes[x]) - 1 - k for k in range(count)])
    amounts = work.numbers([sides[2 * k + end] for end in (0, 1) for k in range(count)])
    filled = work.value(argument(node, 3, None) or 0.0) if mode == "constant" else ""
    return work.put("Pad", [x, amounts, filled, axes], mode={"replicate": "edge"}.get(mode, mode))


def filled(number: float) -> Callable[[Writing, Node], str]:
    """A tensor of one number; its sizes may count images."""

    def emitter(work: Writing, node: Node) -> str:
        sizes = [work.size(item) for item in node.args[0]]
        kind = _kind(node, node.kwargs.get("dtype"), TensorProto.FLOAT)
        return work.put("Expand", [work.cast(work.constant(number), kind), work.sizes(sizes)], sizes)

    return emitter


def arange(work: Writing, node: Node) -> str:
    """Numbers at equal distances, stored."""
    ends = [work.size(item) if isinstance(item, dict) else item for item in node.args]
    if any(work.grows(int(end)) for end in ends):
        raise refused(node, "places within an image", "places among the images")
    whole = all(isinstance(end, int) for end in ends)
    numbers = work.constant(np.arange(*ends), np.int64 if whole else np.float32)
    return work.cast(numbers, _kind(node, node.kwargs.get("dtype"), work.kinds[numbers]))


def convert(work: Writing, node: Node) -> str:
    """Another element type."""
    return work.cast(work.value(node.args[0]), _kind(node, argument(node, 1, None), TensorProto.FLOAT))


def _kind(node: Node, given: Mapping[str, str] | None, default: int) -> int:
    if given is None:
        return default
    if given["dtype"] not in KINDS:
        raise refused(node, f"one of the types {', '.join(KINDS)}", given["dtype"])
    return KINDS[given["dtype"]]


def cumulated(work: Writing, node: Node) -> str:
    """The sum of all places up to each."""
    kind = _kind(node, node.kwargs.get("dtype"), work.kinds[work.value(node.args[0])])
    kind = TensorProto.INT64 if kind == TensorProto.BOOL else kind
    axis = work.constant(int(node.args[1]), np.int64)
    return work.put("CumSum", [work.cast(work.value(node.args[0]), kind), axis])


def count(work: Writing, node: Node) -> None:
    """A size; the number of images where it is that of the first axis."""
    work.counts[node.name] = work.shape(node.args[0])[int(node.args[1])]


def counted(work: Writing, node: Node) -> None:
    """Arithmetic on sizes, done here."""
    done: Callable[[int, int], int] = getattr(operator, node.op.partition(".")[2])
    work.counts[node.name] = done(*(work.size(item) for item in node.args))


def nothing(work: Writing, node: Node) -> None:
    """A check of the trace; it makes nothing."""
