"""LiteRT on the CPU: runs .tflite files with XNNPACK, needs nothing but its own package and NumPy."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.contracts import Batch, Executed, Session
from quantward.core.errors import Refused
from quantward.core.values import Variant
from quantward.runtimes._feeding import fed

_LAYERS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "TRANSPOSE_CONV": 1, "FULLY_CONNECTED": 1, "BATCH_MATMUL": 1}
"""Operators that multiply by a second input, and where that input stands."""


@dataclass(frozen=True)
class Litert:
    """Runs `.tflite` files, one image at a time. `delegate=false` leaves XNNPACK out, for comparison."""

    delegate: bool = True
    formats: tuple[str, ...] = ("tflite",)

    def missing(self) -> str | None:
        """What to install, or None."""
        try:
            import ai_edge_litert.interpreter  # noqa: F401
        except ImportError:
            return "ai-edge-litert is not installed; run: pip install ai-edge-litert"
        return None

    def open(self, variant: Variant, threads: int = 1) -> Session:
        """Load the file. Where its input or output are integers, they are rounded and read back here, by the file's own
        scale and zero point."""
        interpreter = self._interpreter(variant, threads)
        entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

        def call(images: Batch) -> Batch:
            interpreter.set_tensor(entry["index"], _stored(images, entry))
            interpreter.invoke()
            return _read_back(interpreter.get_tensor(exit_["index"]), exit_)

        shape = tuple(int(size) for size in entry["shape"])
        return fed(replace(variant, batch=shape[0], layout="NHWC" if shape[-1] == 3 else "NCHW"), call)

    def executed(self, variant: Variant) -> Executed | None:
        """Read the operators from the file itself: what a layer multiplies is decided by the types of its tensors."""
        from ai_edge_litert import schema_py_generated as schema

        self._interpreter(variant, 1)  # refuses what is no whole file, which the reader of the schema takes on trust
        model = schema.Model.GetRootAsModel(variant.path.read_bytes(), 0)
        names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
        graph = model.Subgraphs(0)
        layers: Counter[str] = Counter()
        operators: Counter[str] = Counter()
        for i in range(graph.OperatorsLength()):
            step = graph.Operators(i)
            code = model.OperatorCodes(step.OpcodeIndex())
            name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            operators[name] += 1
            if name in _LAYERS:
                kinds = [types[graph.Tensors(step.Inputs(k)).Type()] for k in (0, _LAYERS[name])]
                layers[_arithmetic(*kinds)] += 1
        return Executed(dict(layers), dict(operators))

    def _interpreter(self, variant: Variant, threads: int) -> Any:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kind = OpResolverType.AUTO if self.delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            with _silence():
                interpreter = Interpreter(str(variant.path), num_threads=threads, experimental_op_resolver_type=kind)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            first = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")[:200]
            raise Refused(f"Expected a file that LiteRT can load at {variant.path}; it said: {first}.") from None
        return interpreter


def _arithmetic(first: str, second: str) -> str:
    """What a layer multiplies in, given the types of its two factors; floats against stored integers are rounded to
    8 bits, image by image, by the kernel itself."""
    if first in ("INT8", "UINT8") or (first == "FLOAT32" and second in ("INT8", "INT4")):
        return "int8"
    return first.lower()


def _stored(images: Batch, details: Any) -> npt.NDArray[Any]:
    """Images on the grid of the file's input, ties to even as in the Plan."""
    kind = np.dtype(details["dtype"])
    if kind == np.float32:
        return images
    scale, zero = details["quantization"]
    info = np.iinfo(kind)
    stored: npt.NDArray[Any] = np.clip(np.rint(images / np.float32(scale)) + zero, info.min, info.max).astype(kind)
    return stored


def _read_back(stored: npt.NDArray[Any], details: Any) -> Batch:
    if stored.dtype == np.float32:
        return stored
    scale, zero = details["quantization"]
    return np.asarray((stored.astype(np.int32) - zero) * np.float32(scale), np.float32)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing on stderr: the library greets from C++, where no logger of Python's reaches it."""
    sys.stderr.flush()
    with Path(os.devnull).open("wb") as nowhere:
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
