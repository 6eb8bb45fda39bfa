"""An ONNX graph with markers while it is being written step by step: operators in order, arrays, and every shape.

Shapes are inferred as each operator is written, for a number of images that is a large prime: a size that it divides
grows with the images, and every other size is a plain number. So a reshape is written with numbers and one -1, and no
arithmetic on shapes is left for runtimes to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from quantward.core.errors import Unsupported
from quantward.core.values import Node, Plan

DOMAIN = "quantward"
OPSET = 21
LARGEST = np.iinfo(np.int64).max

IMAGES = 1_000_003
"""How many images shapes are inferred for: a prime that divides no other size."""

SMALL = 64
"""Most numbers of an array whose values decide a shape: axes, places, sizes."""


@dataclass
class Writing:
    """The file while it grows. `values` maps a step to its tensor, `parts` to its tensors where it makes several,
    `counts` to its number where it counts images; `kinds` and `shapes` map tensors to element type and sizes."""

    plan: Plan
    images: int = IMAGES
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    arrays: list[onnx.TensorProto] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    small: dict[str, onnx.TensorProto] = field(default_factory=dict)
    tapped: dict[str, str] = field(default_factory=dict)

    def put(self, op: str, inputs: Sequence[str], shape: Sequence[int] | None = None, **attributes: Any) -> str:
        """Append an operator with one output; returns its name. `shape` says what ONNX would not find out."""
        return self.put_many(op, inputs, 1, shape, **attributes)[0]

    def put_many(
        self, op: str, inputs: Sequence[str], outputs: int, shape: Sequence[int] | None = None, **attributes: Any
    ) -> list[str]:
        """Append an operator; returns the names of its outputs.

        Raises ValueError where the shapes of its inputs do not fit each other.
        """
        made = [f"value:{len(self.nodes)}{f'.{place}' if place else ''}" for place in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, **attributes))
        if shape is not None:
            self.kinds[made[0]], self.shapes[made[0]] = self.kinds[inputs[0]], tuple(shape)
            return made
        types = {name: helper.make_tensor_type_proto(self.kinds[name], self.shapes[name]) for name in inputs if name}
        known = {name: self.small[name] for name in inputs if name in self.small}
        try:
            found = shape_inference.infer_node_outputs(
                defs.get_schema(op, OPSET, ""), self.nodes[-1], types, known, None, [helper.make_opsetid("", OPSET)], 10
            )
        except Exception as error:  # of ONNX's own types, all of which mean the same
            raise ValueError(f"{op}: {error}") from None
        for name in made:
            self.kinds[name] = found[name].tensor_type.elem_type
            self.shapes[name] = tuple(int(size.dim_value) for size in found[name].tensor_type.shape.dim)
        return made

    def tap(self, value: str, name: str) -> str:
        """A marker behind a value."""
        output = f"tap:{name}"
        self.nodes.append(helper.make_node("Tap", [value], [output], domain=DOMAIN))
        self.nodes[-1].attribute.append(helper.make_attribute("name", name))
        self.kinds[output], self.shapes[output] = self.kinds[value], self.shapes[value]
        return output

    def constant(self, array: Any, kind: Any = np.float32) -> str:
        """A stored array."""
        name = f"constant:{len(self.arrays)}"
        tensor = numpy_helper.from_array(np.asarray(array, kind), name)
        self.arrays.append(tensor)
        self.kinds[name], self.shapes[name] = tensor.data_type, tuple(tensor.dims)
        if np.size(array) <= SMALL:
            self.small[name] = tensor
        return name

    def value(self, item: Any) -> str:
        """The tensor of an argument: a step, a weight behind its marker, or a number."""
        if not isinstance(item, dict):
            return self.constant(item)
        if "node" in item:
            counted = self.counts.get(item["node"])
            return self.values[item["node"]] if counted is None else self.sizes([counted])
        if "float" in item:
            return self.constant(float(item["float"]))
        name = item["weight"]
        if name not in self.tapped:
            array = self.plan.weights[name]
            if np.issubdtype(array.dtype, np.floating):
                self.kinds[name], self.shapes[name] = TensorProto.FLOAT, array.shape
                self.tapped[name] = self.tap(name, f"weight:{name}")
            else:
                self.tapped[name] = self.constant(array, array.dtype)
        return self.tapped[name]

    def alike(self, items: Sequence[Any], floats: bool = False) -> list[str]:
        """Arguments in one element type: float32 where one of them is a float (or `floats` says so), else int64."""
        tensors = {place: self.value(item) for place, item in enumerate(items) if _is_tensor(item)}
        kinds = {self.kinds[name] for name in tensors.values()}
        plain = [float(item["float"]) if isinstance(item, dict) else item for item in items if not _is_tensor(item)]
        floats = floats or TensorProto.FLOAT in kinds or any(isinstance(number, float) for number in plain)
        kind = TensorProto.FLOAT if floats else kinds.pop() if len(kinds) == 1 else TensorProto.INT64
        if kind == TensorProto.BOOL and plain:
            kind = TensorProto.INT64
        rest = iter(plain)
        return [
            self.cast(tensors[place], kind)
            if place in tensors
            else self.constant(next(rest), helper.tensor_dtype_to_np_dtype(kind))
            for place in range(len(items))
        ]

    def cast(self, value: str, kind: int) -> str:
        """A value in an element type."""
        return value if self.kinds[value] == kind else self.put("Cast", [value], to=kind)

    def shape(self, item: Any) -> tuple[int, ...]:
        """The sizes of an argument; those that `images` divides grow with the images."""
        return self.shapes[self.value(item)] if _is_tensor(item) else ()

    def rank(self, item: Any) -> int:
        """How many axes an argument has."""
        return len(self.shape(item))

    def size(self, item: Any) -> int:
        """A size as a number: its own, or that of a step that counts images."""
        return self.counts[item["node"]] if isinstance(item, dict) else int(item)

    def grows(self, size: int) -> bool:
        """Whether a size grows with the images."""
        return self.images > 1 and size >= self.images and size % self.images == 0

    def numbers(self, values: Sequence[int]) -> str:
        """Stored integers, as axes and places are given."""
        return self.constant([min(int(value), LARGEST) for value in values], np.int64)

    def sizes(self, sizes: Sequence[int]) -> str:
        """Sizes as a tensor; those that grow are counted when the file runs."""
        if not any(self.grows(size) for size in sizes):
            return self.numbers(sizes)
        count = self.put("Shape", ["input"], [1], start=0, end=1)
        self.kinds[count] = TensorProto.INT64
        parts = [
            self.numbers([size])
            if not self.grows(size)
            else count
            if size == self.images
            else self.put("Mul", [count, self.numbers([size // self.images])])
            for size in sizes
        ]
        return parts[0] if len(parts) == 1 else self.put("Concat", parts, axis=0)

    def reshaped(self, value: str, sizes: Sequence[int]) -> str:
        """A value with other sizes; itself where they are its own. At most one size may grow with the images."""
        if tuple(sizes) == self.shapes[value]:
            return value
        growing = [place for place, size in enumerate(sizes) if self.grows(size)]
        if len(growing) > 1:
            raise Unsupported("Expected one axis that grows with the images; got two. Report the architecture.")
        written = [-1 if place in growing else size for place, size in enumerate(sizes)]
        return self.put("Reshape", [value, self.numbers(written)], sizes)


def _is_tensor(item: Any) -> bool:
    return isinstance(item, dict) and "float" not in item


def argument(node: Node, place: int, default: Any) -> Any:
    """A positional argument that may be left out."""
    return node.args[place] if len(node.args) > place else default


def refused(node: Node, expected: str, got: Any) -> Unsupported:
    """The sentence for an operator that is known, but not so."""
    return Unsupported(
        f"Expected {expected} at {node.name!r} ({node.op}); got {got}. Report the architecture, or choose another."
    )
