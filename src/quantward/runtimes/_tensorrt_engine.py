"""From an ONNX file to a running TensorRT engine: build once a device, keep it beside the file, feed it.

An engine belongs to one file, one release of TensorRT, one GPU and one largest batch, and all four stand in its name;
the timing cache beside it (which kernel was fastest) makes the next build a matter of seconds.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantward.core.contracts import Batch, Executed
from quantward.core.errors import Refused
from quantward.core.store import atomic
from quantward.core.values import Variant
from quantward.runtimes._cuda import Buffers, called, runtime

USUAL = 1
"""The batch for which kernels are chosen: a clinic asks for one image at a time."""


class Engine:
    """An engine with its context and buffers: (n, 3, size, size) float32 -> logits (n, classes) float32."""

    def __init__(self, variant: Variant, batch: int, workspace: int) -> None:
        import tensorrt

        self.trt, self.cuda = tensorrt, runtime()
        self.batch = min(batch, variant.max_batch or batch)
        self.logger = _logger(tensorrt)
        self.path = engine_path(variant, self.batch, str(tensorrt.__version__), _device(self.cuda))
        self.engine = self._loaded(variant, workspace)
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise Refused(f"Expected an engine that fits the device; {_said(self.logger)}. Use a smaller batch=.")
        self.input, self.output = _ends(self.trt, self.engine, variant.path)
        self.buffers = Buffers(self.cuda)

    def __call__(self, batch: Batch) -> Batch:
        """Run any number of images, at most `batch` at a time."""
        parts = [self._run(batch[i : i + self.batch]) for i in range(0, len(batch), self.batch)]
        return np.concatenate(parts)

    def described(self) -> Executed:
        """Layers by arithmetic and all steps by kind, from the engine inspector."""
        inspector = self.engine.create_engine_inspector()
        return read_description(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))

    def _run(self, images: Batch) -> Batch:
        kind = self.trt.nptype(self.engine.get_tensor_dtype(self.input))
        given = np.ascontiguousarray(images, dtype=kind)
        self.context.set_input_shape(self.input, given.shape)
        shape = tuple(int(n) for n in self.context.get_tensor_shape(self.output))
        wanted = np.dtype(self.trt.nptype(self.engine.get_tensor_dtype(self.output)))
        self.context.set_tensor_address(self.input, self.buffers.send(self.input, given))
        size = int(np.prod(shape)) * wanted.itemsize
        self.context.set_tensor_address(self.output, self.buffers.room(self.output, size))
        if not self.context.execute_async_v3(int(self.buffers.stream)):
            raise Refused(f"Expected the engine to run; {_said(self.logger)}. Remove {self.path.name} and try again.")
        return self.buffers.fetch(self.output, shape, wanted).astype(np.float32, copy=False)

    def _loaded(self, variant: Variant, workspace: int) -> Any:
        """The engine beside the file, or a new one where there is none that this library still reads."""
        reader = self.trt.Runtime(self.logger)
        if self.path.exists():
            found = reader.deserialize_cuda_engine(self.path.read_bytes())
            if found is not None:
                return found
            self.logger.clear()
        built = self._build(variant, workspace)
        with atomic(self.path) as temporary:
            temporary.write_bytes(built)
        found = reader.deserialize_cuda_engine(built)
        if found is None:
            raise Refused(f"Expected TensorRT to load the engine that it built; {_said(self.logger)}.")
        return found

    def _build(self, variant: Variant, workspace: int) -> bytes:
        """Parse strongly typed, choose kernels for batch 1 within a profile of 1 to `batch`, with the timing cache."""
        trt, side = self.trt, variant.preprocess.size
        builder = trt.Builder(self.logger)
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(flags)
        parser = trt.OnnxParser(network, self.logger)
        if not parser.parse_from_file(str(variant.path)):
            told = "; ".join(str(parser.get_error(i).desc()) for i in range(min(parser.num_errors, 3)))
            told = told or _said(self.logger)
            raise Refused(
                f"Expected an ONNX file that TensorRT can read at {variant.path}; it said: {told}. "
                "Write it with the target onnx-tensorrt."
            )
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            entry = network.get_input(i)
            shapes = [(n, 3, side, side) for n in (1, min(USUAL, self.batch), self.batch)]
            profile.set_shape(entry.name, *shapes)
        config.add_optimization_profile(profile)
        timings = self.path.with_name(f"{_tag(str(trt.__version__), _device(self.cuda))}.timings")
        cache = config.create_timing_cache(timings.read_bytes() if timings.exists() else b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
        built = builder.build_serialized_network(network, config)
        if built is None:
            raise Refused(
                f"Expected TensorRT to build an engine from {variant.path}; it said: {_said(self.logger)}. "
                "Check the file with quantward.audit.tensorrt, or give more workspace=."
            )
        with atomic(timings) as temporary:
            temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
        return bytes(built)


def engine_path(variant: Variant, batch: int, version: str, device: str) -> Path:
    """Where the engine of a file lies: beside it, named after the file's hash, TensorRT, the GPU and the batch."""
    name = f"{variant.path.stem}.{variant.sha256[:16]}.{_tag(version, device)}.b{batch}.engine"
    return variant.path.with_name(name)


def read_description(text: str) -> Executed:
    """Counts from the engine inspector's JSON, whose layers carry the format of what they read.

    TensorRT 10 tells type and layout in one field (`Format/Datatype`), 11 in two (`DataType`, `Format`).

    >>> layer = {"LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Row major Int8 format"}]}
    >>> read_description(json.dumps({"Layers": [layer]})).layers
    {'int8': 1}
    """
    layers: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    for layer in json.loads(text).get("Layers", []):
        if not isinstance(layer, Mapping):  # without details the inspector tells names alone
            continue
        kinds = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
        operators[str(layer.get("LayerType", ""))] += 1
        if re.search(r"conv|gemm|matrix|fully", kinds, re.IGNORECASE):
            layers[_arithmetic(layer.get("Inputs") or [{}])] += 1
    return Executed(dict(layers), dict(operators))


def _arithmetic(inputs: Any) -> str:
    first = inputs[0] if isinstance(inputs[0], Mapping) else {}
    told = " ".join(str(first.get(key, "")) for key in ("Format/Datatype", "DataType", "Format"))
    for pattern, name in ((r"int8", "int8"), (r"fp8", "float8"), (r"bf16|bfloat", "bfloat16"),
                          (r"half|fp16", "float16"), (r"float|fp32", "float32")):  # fmt: skip
        if re.search(pattern, told, re.IGNORECASE):
            return name
    return told or "untold"


def _ends(trt: Any, engine: Any, path: Path) -> tuple[str, str]:
    """The names of the one input and the one output."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise Refused(f"Expected one input and one output in {path}; got {len(inputs)} and {len(outputs)}. "
                      "Export the classifier alone.")  # fmt: skip
    return inputs[0], outputs[0]


def _device(cuda: Any) -> str:
    """The GPU as a word for file names: its name and compute capability."""
    number = called(cuda, "cudaGetDevice")
    facts = called(cuda, "cudaGetDeviceProperties", number)
    name = facts.name.decode() if isinstance(facts.name, bytes) else str(facts.name)
    return f"{name.rstrip(chr(0))}-sm{facts.major}{facts.minor}"


def _tag(version: str, device: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", f"trt{version}.{device}")


def _logger(trt: Any) -> Any:
    """A logger that keeps errors for our own sentences and lets nothing reach the user."""

    class Keeping(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.kept: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.kept.append(str(message).strip().partition("\n")[0])

        def clear(self) -> None:
            self.kept.clear()

    return Keeping()


def _said(logger: Any) -> str:
    return logger.kept[-1].rstrip(".") if logger.kept else "TensorRT gave no reason"
