"""The program while it is being read out of an ONNX graph: nodes in order, weights by name, and who says what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from quantward.core.errors import Unsupported
from quantward.core.values import Node
from quantward.graph._onnx_seen import Array, Seen

Ref = dict[str, str]

SMALL = 1e38
"""Ends of a clip beyond which there is none: exporters write the largest float for infinity."""


@dataclass
class Reading:
    """Grows operator by operator. `says` maps each tensor of the file to the node or weight that holds it here."""

    seen: Seen
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    says: dict[str, Ref] = field(default_factory=dict)
    taken: set[str] = field(default_factory=lambda: {"input", "output"})
    kept: dict[tuple[str, str], Ref] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """A name that nothing else has, of letters, digits, dots, dashes and underscores."""
        clean = re.sub(r"[^A-Za-z0-9_.-]+", ".", name).strip(".")[:120] or "step"
        found, count = clean, 1
        while found in self.taken:
            count += 1
            found = f"{clean}.{count}"
        self.taken.add(found)
        return found

    def add(self, op: str, args: Sequence[Any], name: str, **kwargs: Any) -> Ref:
        """Append a step; returns the reference to its result."""
        return self.append(Node(self.unique(name), op, tuple(args), kwargs))

    def append(self, step: Node) -> Ref:
        """Append a step whose name is its own already; returns the reference to its result."""
        self.nodes.append(step)
        return {"node": step.name}

    def keep(self, name: str, array: Array) -> Ref:
        """Store an array as a weight; floats as float32."""
        if np.issubdtype(array.dtype, np.floating):
            array = np.ascontiguousarray(array, np.float32)
        elif array.dtype not in (np.int64, np.int32, np.bool_):
            raise Unsupported(
                f"Expected weights of floats or of 32 and 64-bit integers; {name!r} is {array.dtype}. "
                "Export the float model."
            )
        own = self.unique(name)
        self.weights[own] = array
        return {"weight": own}

    @property
    def images(self) -> Ref:
        """The number of images, as a step."""
        if ("", "images") not in self.kept:
            self.kept["", "images"] = self.add("aten.sym_size.int", [{"node": "input"}, 0], "images")
        return self.kept["", "images"]

    def size(self, pair: tuple[int, int]) -> int | Ref:
        """One size of a shape: a number, or that many times the images."""
        few, more = pair
        if few == more:
            return int(few)
        times, rest = divmod(few, self.seen.batches[0])
        if rest or times * self.seen.batches[1] != more:
            raise Unsupported(
                f"Expected sizes that grow with the images; got {few} and {more}. Export the model with fixed sizes."
            )
        if times == 1:
            return self.images
        key = ("images", str(times))
        if key not in self.kept:
            self.kept[key] = self.add("operator.mul", [times, self.images], "images")
        return self.kept[key]


@dataclass(frozen=True)
class Call:
    """One operator of the file, with its place in the reading."""

    reading: Reading
    node: onnx.NodeProto

    @property
    def op(self) -> str:
        """Its type."""
        return str(self.node.op_type)

    @property
    def opset(self) -> int:
        """The file's operator set."""
        return self.reading.seen.opset

    @property
    def name(self) -> str:
        """What to call it: the module path where the exporter left one, else its own name."""
        for given in self.node.input[1:2]:
            if given.endswith(".weight"):
                return str(given.removesuffix(".weight"))
        for note in self.node.metadata_props:
            if note.key == "pkg.torch.onnx.name_scopes":  # "['', 'blocks.0', 'blocks.0.attn', 'linear']"
                scopes = re.findall(r"'([^']*)'", note.value)
                if len(scopes) > 1 and scopes[-2]:
                    return str(scopes[-2])
        path = self.node.name or (self.node.output[0] if self.node.output else "")
        parts = [part for part in re.split(r"[/:]+", path) if part]
        if len(parts) > 1 and re.sub(r"_\d+$", "", parts[-1]) == self.op:
            parts = parts[:-1]
        kept: list[str] = []
        for part in parts:  # exporters write /layer1/layer1.0/conv1
            kept = [*(kept[:-1] if kept and part.startswith(f"{kept[-1]}.") else kept), part]
        return ".".join(kept) or self.op.lower()

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute as plain Python, strings as str."""
        for found in self.node.attribute:
            if found.name == name:
                value = helper.get_attribute_value(found)
                return value.decode() if isinstance(value, bytes) else list(value) if _many(value) else value
        return default

    def has(self, place: int) -> bool:
        """Whether an optional input is given."""
        return len(self.node.input) > place and bool(self.node.input[place])

    def input(self, place: int) -> str:
        """The name of an input.

        Raises Unsupported where it is missing.
        """
        if not self.has(place):
            raise self.refused(f"input {place} is missing")
        return str(self.node.input[place])

    def shape(self, place: int) -> tuple[int, ...]:
        """An input's shape in the first of the two runs."""
        return self.reading.seen.shapes[self.input(place)][0]

    def counts_images(self, axis: int, place: int = 0) -> bool:
        """Whether the size of an input's axis grows with the images."""
        few, more = self.reading.seen.shapes[self.input(place)]
        return few[axis] != more[axis]

    def made(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The output's shape in both runs."""
        return self.reading.seen.shapes[self.node.output[0]]

    def constant(self, place: int, what: str) -> Array:
        """An input that must not change.

        Raises Unsupported where pixels or the number of images move it.
        """
        found = self.reading.seen.constant(self.input(place))
        if found is None:
            raise self.refused(f"its {what} depends on the image, or on how many there are")
        return found

    def ref(self, place: int, expand: bool = False) -> Ref:
        """An input as a node or a weight; `expand` gives a weight as many images as it has beside others."""
        name, reading = self.input(place), self.reading
        if name in reading.says:
            return reading.says[name]
        few, more = reading.seen.values[name]
        constant = reading.seen.constant(name)
        if constant is not None and not (expand and reading.seen.batches[0] == 1 and few.shape[:1] == (1,)):
            return self._kept(name, constant)
        axes = [axis for axis, (a, b) in enumerate(zip(few.shape, more.shape, strict=False)) if a != b] or [0]
        if few.ndim != more.ndim or len(axes) != 1 or (few != few.take([0], axes[0])).any():
            raise self.refused(f"what it reads in {name!r} changes with the number of images")
        one = self._kept(name, few.take([0], axes[0]))
        sizes: list[Any] = [-1] * few.ndim
        sizes[axes[0]] = reading.images
        return reading.add("aten.expand.default", [one, sizes], f"{self.name}.expand")

    def _kept(self, name: str, array: Array) -> Ref:
        key = (name, "")
        if key not in self.reading.kept:
            ends = name.rpartition(".")[2] in ("weight", "bias")
            self.reading.kept[key] = self.reading.keep(f"{name}.value" if ends else name, array)
        return self.reading.kept[key]

    def number(self, place: int) -> float | None:
        """An input that is one number for all, as that number; None where it is more."""
        found = self.reading.seen.constant(self.input(place))
        if found is None or found.size != 1 or not np.issubdtype(found.dtype, np.floating):
            return None
        return float(found.reshape(())) if found.ndim <= len(self.made()[0]) else None

    def put(self, op: str, *args: Any, name: str = "", **kwargs: Any) -> Ref:
        """Append the step that gives this operator's first output; `name` is one that `unique` gave."""
        made = self.reading.append(Node(name or self.reading.unique(self.name), op, args, kwargs))
        self.reading.says[self.node.output[0]] = made
        return made

    def same(self, place: int = 0) -> None:
        """The output is the input."""
        self.reading.says[self.node.output[0]] = self.ref(place)

    def refused(self, why: str) -> Unsupported:
        """The sentence for an operator that is known, but not so."""
        return Unsupported(
            f"Expected operators as image classifiers use them; {self.op} {self.node.name or self.node.output[0]!r} is "
            f"used in another way ({why}). Report the file, or quantize it where it was trained."
        )


def _many(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str | bytes) and not hasattr(value, "SerializeToString")
