"""From an ONNX classifier to a float Plan: another door into the same waist, proved equal to the file it came from.

The graph is run at the image size asked for, so that all arithmetic on shapes becomes numbers; what pixels flow
through is written in the vocabulary that recipes know. Whatever is not understood is refused by name: a network that
is nearly right would be worse than none.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from quantward.core.contracts import Batch
from quantward.core.errors import Unsupported, suggestion
from quantward.core.store import digest_arrays
from quantward.core.values import FloatArray, Node, Plan, Preprocess
from quantward.graph.fold import fold_batch_norm
from quantward.graph.walk import layers, weights_of

TOLERANCE = 1e-4
"""Largest difference of a score, relative to the largest |score| (at least `FLOOR`), between a file and its Plan."""

FLOOR = 1e-3
TINY = 1e-30
Session = Callable[[Batch], Batch]


def from_onnx(
    path: Path,
    preprocess: Preprocess,
    classes: tuple[str, ...],
    *,
    layout: str = "NCHW",
    outputs: str = "logits",
) -> Plan:
    """The float Plan of an ONNX classifier, (n, 3, size, size) -> logits, batch normalisation folded.

    `layout` is the order of the file's axes; with `outputs` probabilities, a softmax at the end is left away and any
    other end gets a logarithm. Raises Refused for a file that cannot be read, Unsupported for an operator that is not
    known (by its name) and for a Plan that does not give the file's own scores (`TOLERANCE`).
    """
    _require_onnx()
    from quantward.graph._onnx_patterns import recognised
    from quantward.graph._onnx_reading import Reading
    from quantward.graph._onnx_seen import look, read

    side = preprocess.size
    seen = look(read(path), path.name, (side, side, 3) if layout == "NHWC" else (3, side, side))
    reading = Reading(seen)
    reading.append(Node("input", "input"))
    reading.says[seen.source] = {"node": "input"}
    if layout == "NHWC":
        reading.says[seen.source] = reading.add("aten.permute.default", [{"node": "input"}, [0, 2, 3, 1]], "channels")
    _read(reading, path.name)
    reading.append(Node("output", "output", (_scores(reading, outputs),)))
    program, weights = recognised(tuple(reading.nodes), reading.weights)
    program, weights = fold_batch_norm(program, weights)
    used = {name for node in program for name in weights_of(node)}
    weights = {name: array for name, array in weights.items() if name in used}
    if not layers(program):
        raise Unsupported(
            f"Expected a network with convolutions or linear layers in {path.name}; it has none with stored weights. "
            "There is nothing to quantize."
        )
    plan = Plan(program, weights, preprocess, classes, parent=digest_arrays(weights), notes={"onnx": path.name})
    _prove(plan, path, seen.batches[0], layout, outputs, seen.source)
    return plan


def _require_onnx() -> None:
    if find_spec("onnx") is None:
        raise Unsupported(
            "Expected the package onnx, to take a file apart; it is missing. Run: pip install 'quantward[onnx]'."
        )


def _read(reading: Any, name: str) -> None:
    """Translate every operator that pixels flow through, in the file's order."""
    from quantward.graph._onnx_layers import LAYERS
    from quantward.graph._onnx_moves import MOVES
    from quantward.graph._onnx_reading import Call

    known = {**LAYERS, **MOVES}
    needed = _needed(reading.seen)
    for node in reading.seen.graph.node:
        if not needed & set(node.output) or all(reading.seen.fixed(output) for output in node.output if output):
            continue
        own = node.domain in ("", "ai.onnx")
        if not own or node.op_type not in known:
            spelled = node.op_type if own else f"{node.domain}.{node.op_type}"
            quantized = "Quantize" in spelled or "Integer" in spelled or spelled.startswith("QLinear")
            cure = (
                "Give the float file it was made from" if quantized
                else suggestion(spelled, known) if not own or len(spelled) < 3
                else "Quantize it where it was trained"
            )  # fmt: skip
            raise Unsupported(
                f"Expected operators of image classifiers in {name}; got {spelled} ({node.name or node.output[0]!r}). "
                f"{cure.rstrip('.')}."
            )
        known[node.op_type](Call(reading, node))


def _needed(seen: Any) -> set[str]:
    """All tensors that the scores depend on."""
    needed = {seen.target}
    for node in reversed(seen.graph.node):
        if needed & set(node.output):
            needed.update(node.input)
    return needed


def _scores(reading: Any, outputs: str) -> dict[str, str]:
    """The reference to the logits: before the last softmax, or behind a logarithm of the probabilities."""
    seen = reading.seen
    if seen.fixed(seen.target):
        raise Unsupported("Expected scores that depend on the image; they are the same for every one. Check the file.")
    last: dict[str, str] = reading.says[seen.target]
    if outputs == "probabilities":
        step = next(node for node in reading.nodes if node.name == last["node"])
        if step.op == "aten.softmax.int" and step.args[1] == -1:
            last = step.args[0]
        else:
            held = reading.add("aten.clamp.default", [last, TINY, None], "scores.clamp")
            last = reading.add("aten.log.default", [held], "scores.log")
    if len(seen.shapes[seen.target][0]) != 2:
        last = reading.add("aten.flatten.using_ints", [last, 1], "scores.flatten")
    return last


def _prove(plan: Plan, path: Path, batch: int, layout: str, outputs: str, source: str) -> None:
    """Hold the Plan's scores for three images of noise against the file's own, one by one where it takes one."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    side = plan.preprocess.size
    images = (np.random.default_rng(0).random((3, 3, side, side), np.float32) * 4 - 2).astype(np.float32)
    fed = np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if layout == "NHWC" else images
    declared = session.get_inputs()[0].shape[0]
    one = batch == 1 or declared == 1
    if isinstance(declared, int) and declared > 1:
        filled = np.concatenate([fed, np.repeat(fed[-1:], -len(fed) % declared, axis=0)])
        parts = [session.run(None, {source: filled[i : i + declared]})[0] for i in range(0, len(filled), declared)]
    else:
        parts = [session.run(None, {source: part})[0] for part in (np.split(fed, len(fed)) if one else [fed])]
    expected = np.concatenate(parts)[: len(images)].reshape(len(images), -1).astype(np.float64)
    got = scores_of(plan)(images).astype(np.float64)
    if outputs == "probabilities":
        shifted = np.exp(got - got.max(axis=1, keepdims=True))
        got = shifted / shifted.sum(axis=1, keepdims=True)
    worst = np.inf
    if got.shape == expected.shape:
        worst = float(np.abs(got - expected).max() / max(FLOOR, float(np.abs(expected).max())))
    if not worst <= TOLERANCE:
        raise Unsupported(
            f"Expected the network read from {path.name} to give the file's own scores within {TOLERANCE:g}; the "
            f"largest relative difference is {worst:.2g}. Report the file, or quantize it where it was trained."
        )


def scores_of(plan: Plan) -> Session:
    """A Plan's float network as a function: by torch, or where there is none as an ONNX file in memory."""
    if find_spec("torch") is None:
        return _by_runtime(plan)
    import torch

    from quantward.graph.network import Network

    network = Network(plan).eval()

    def run(images: Batch) -> Batch:
        with torch.inference_mode():
            found: FloatArray = network(torch.from_numpy(images)).numpy()
        return found

    return run


def _by_runtime(plan: Plan) -> Session:
    """The program written step by step, markers taken out, on ONNX Runtime."""
    import onnxruntime as ort
    from onnx import numpy_helper

    from quantward.graph.emit_onnx import DOMAIN, emit

    model = emit(plan)
    for node in model.graph.node:
        if node.domain == DOMAIN:
            node.domain, node.op_type = "", "Identity"
            del node.attribute[:]
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name)
        for name, array in plan.weights.items() if np.issubdtype(array.dtype, np.floating)
    )  # fmt: skip
    del model.opset_import[1:]
    model.ir_version = 10
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"input": images})[0])
