"""An ONNX graph as it behaves at one image size: the shape of every tensor, and the value of all that no pixel moves.

Exporters write shape arithmetic in a dozen dialects. None has to be understood here: ONNX Runtime computes it, once
with two images and once with three, and what differs between the two runs is the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from quantward.core.errors import Refused, Unsupported

Array = npt.NDArray[Any]
Pair = tuple[Array, Array]

FEWEST, MOST = 9, 25
"""Operator sets that are read."""

LARGEST = 1 << 30
"""Bytes of weights that are read: a message of protocol buffers ends at twice that."""

SHAPES = {"Shape", "Size"}
TRIES: tuple[tuple[int, int], ...] = ((2, 3), (1, 1))
"""Numbers of images that a graph is run with: two different ones, or the one that a fixed graph takes."""


@dataclass(frozen=True)
class Seen:
    """A graph with one image input and one output. `shapes` holds two shapes for every tensor, of two runs with
    `batches` images; `values` both values of each tensor that is computed from weights and shapes alone."""

    graph: onnx.GraphProto
    opset: int
    source: str
    target: str
    batches: tuple[int, int]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    values: dict[str, Pair]

    def fixed(self, name: str) -> bool:
        """Whether no pixel moves a tensor."""
        return name in self.values

    def constant(self, name: str) -> Array | None:
        """The value of a tensor that neither pixels nor the number of images move, else None."""
        pair = self.values.get(name)
        if pair is None or pair[0].shape != pair[1].shape or not np.array_equal(*pair, equal_nan=_floating(pair[0])):
            return None
        return pair[0]


def _floating(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def read(path: Path) -> onnx.ModelProto:
    """The file with its external data, local functions written out.

    Raises Refused where it cannot be read, is too large or of an operator set that is too old or too new.
    """
    from onnx import inliner

    try:
        model = onnx.load(str(path))
        if model.functions:
            model = inliner.inline_local_functions(model)
    except Exception as error:  # of three libraries, none of which names its own
        first = str(error).strip().partition("\n")[0]
        raise Refused(f"Expected an ONNX file at {path} that can be read; {first}. Export it again.") from None
    opset = opset_of(model)
    if not FEWEST <= opset <= MOST:
        raise Refused(f"Expected operator set {FEWEST} to {MOST} in {path.name}; got {opset}. Export it again.")
    if model.ByteSize() > LARGEST:
        raise Refused(f"Expected at most {LARGEST:,} bytes of {path.name}; got {model.ByteSize():,}. Use another.")
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operator set that a file asks for."""
    return int(next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0))


def look(model: onnx.ModelProto, name: str, shape: tuple[int, ...]) -> Seen:
    """Run the graph with two and with three images of `shape` (channels and sides in the file's order).

    A file that takes one image only is seen with one. Raises Unsupported where it runs with neither.
    """
    opened, source = _opened(model, shape)
    fixed = _fixed(opened.graph, source)
    target = opened.graph.output[0].name
    made = [output for node in opened.graph.node for output in node.output if output]
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.ValueInfoProto(name=output) for output in made)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in opened.graph.initializer}
    said = ""
    for batches in TRIES:
        runs = []
        for batch in batches[: 1 + (batches[0] != batches[1])]:
            try:
                runs.append(_run(opened, source, made, batch, shape, fixed))
            except _Failed as failure:
                said = str(failure)
                break
        if len(runs) == 1 and batches[0] == batches[1]:
            runs *= 2
        if len(runs) == 2 and all(run[0][target][:1] == (b,) for run, b in zip(runs, batches, strict=True)):
            shapes = {key: (runs[0][0][key], runs[1][0][key]) for key in runs[0][0]}
            values = {key: (runs[0][1][key], runs[1][1][key]) for key in runs[0][1]}
            values |= {key: (array, array) for key, array in stored.items()}
            shapes |= {key: (array.shape, array.shape) for key, array in stored.items()}
            shapes[source] = ((batches[0], *shape), (batches[1], *shape))
            return Seen(opened.graph, opset_of(model), source, target, batches, shapes, values)
    raise Unsupported(
        f"Expected {name} to run with one image or several of shape {' x '.join(map(str, shape))}; "
        f"{said or 'its output has no axis for images'}. Export it with an open batch size."
    )


class _Failed(Exception):
    """ONNX Runtime's first line on why it could not run the graph."""


def _opened(model: onnx.ModelProto, shape: tuple[int, ...]) -> tuple[onnx.ModelProto, str]:
    """A copy whose image input has an open batch size and the given sizes elsewhere, and that input's name."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    stored = {tensor.name for tensor in opened.graph.initializer}
    images = [value for value in opened.graph.input if value.name not in stored]
    dims = images[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, (None, *shape), strict=True):
        dim.Clear()
        if size is None:
            dim.dim_param = "images"
        else:
            dim.dim_value = size
    del opened.graph.value_info[:]
    return opened, images[0].name


def _fixed(graph: onnx.GraphProto, source: str) -> set[str]:
    """Names of all tensors that pixels do not reach; the shape of a tensor is no pixel."""
    moved = {source}
    for node in graph.node:
        inner = {
            name
            for attribute in node.attribute
            for sub in (attribute.g, *attribute.graphs)
            for item in sub.node
            for name in item.input
        }
        if node.op_type not in SHAPES and moved & ({*node.input} | inner):
            moved.update(node.output)
    return {output for node in graph.node for output in node.output if output and output not in moved}


def _run(
    model: onnx.ModelProto, source: str, made: list[str], batch: int, shape: tuple[int, ...], fixed: set[str]
) -> tuple[dict[str, tuple[int, ...]], dict[str, Array]]:
    """All shapes, and the values that no pixel moves."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    images = np.random.default_rng(batch).normal(size=(batch, *shape)).astype(np.float32)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = dict(zip(made, session.run(made, {source: images}), strict=True))
    except Exception as error:  # ONNX Runtime's own exception types live in a private module
        raise _Failed(str(error).strip().partition("\n")[0]) from None
    return (
        {name: tuple(array.shape) if hasattr(array, "shape") else () for name, array in found.items()},
        {name: found[name] for name in fixed},
    )
