"""The marked ONNX of a traced network (`graph.to_onnx`), by torch's exporter: what torch can trace, it can write."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from functools import lru_cache

import onnx
import torch
from torch import Tensor

from quantward.core.errors import Unsupported
from quantward.core.values import Plan
from quantward.graph.emit_onnx import DOMAIN, OPSET
from quantward.graph.network import Network


def tap(x: Tensor, name: str) -> Tensor:
    """In an export: x through a `Tap` node of that name. Integers (shapes, indices) pass unmarked."""
    if not x.is_floating_point():
        return x
    marked: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::Tap", (x,), {"name": name}, dtype=x.dtype, shape=x.shape, version=1
    )
    return marked


def exported(plan: Plan) -> onnx.ModelProto:
    """`graph.to_onnx.tapped` by torch's exporter. The structure is exported once per program; the weights are the
    Plan's. Raises Unsupported with the exporter's reason for an operator ONNX cannot express.
    """
    model = onnx.ModelProto()
    model.CopyFrom(_export(_Structure(plan)))
    return model


class _Structure:
    """Hashes by what decides the exported structure: the program, the weights' shapes and the image size."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.key = (
            repr(plan.program),
            plan.preprocess.size,
            tuple(sorted((name, array.shape) for name, array in plan.weights.items())),
        )

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Structure) and self.key == other.key


@contextlib.contextmanager
def _quiet_loggers(*names: str) -> Iterator[None]:
    """The exporter's libraries tell every renaming; only their errors matter to a user."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@lru_cache(maxsize=4)
def _export(structure: _Structure) -> onnx.ModelProto:
    plan = structure.plan
    network = Network(
        plan,
        lambda name, tensor: tap(tensor, f"weight:{name}"),
        lambda name, tensor: tap(tensor, f"output:{name}"),
        lambda name, tensor: tap(tensor, f"input:{name}"),
    ).eval()
    size = plan.preprocess.size
    try:
        with (
            _quiet_loggers("torch.onnx", "onnx_ir", "onnxscript"),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (torch.zeros(2, 3, size, size),),
                input_names=["input"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                opset_version=OPSET,
                dynamo=True,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many types; its first line says which operator
        told = [line for line in str(error).splitlines() if line.startswith("<class")] or [str(error)]
        first = told[0].strip().partition("\n")[0]
        raise Unsupported(
            f"Expected a program that ONNX opset {OPSET} can express; torch.onnx.export said: {first}. "
            "Report the architecture."
        ) from None
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model
