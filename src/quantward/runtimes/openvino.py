"""OpenVINO on the CPU: reads the same ONNX file; often the fastest integer runtime on Intel processors.

Left alone it changes the arithmetic it was given: float32 becomes bf16 where the processor has it, and the activations
of weight-only linear layers are rounded to 8 bits. A measurement must say what was run, so both are set here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quantward.core.contracts import Batch, Executed, Session
from quantward.core.errors import Refused, UsageError
from quantward.core.values import Variant
from quantward.runtimes._feeding import fed

_LAYERS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_NO_WORK = {"Const", "Input", "Output", "Parameter", "Result"}
_INTEGER = {"u8", "i8"}
_WEIGHTS = {"u4", "i4", "u2"}
_NAMES = {"u8": "int8", "i8": "int8", "f32": "float32", "f16": "float16"}


@dataclass(frozen=True)
class Openvino:
    """Runs `.onnx` files on the CPU.

    `precision` is the arithmetic of what is not quantized: f32, or bf16 where the processor has it, which needs neither
    calibration nor a file of its own (with the file of the recipe `fp16` it is also half as large). `emulate` gives the
    answers of bf16 on a processor without, at no speed worth measuring. `hint=throughput` runs the images of a batch as
    `streams` requests side by side (0: OpenVINO chooses, at most one a thread); `hint=latency` runs each batch as one.
    `pinning` ties threads to cores: faster on an idle machine, slower when another process is tied to the same ones.
    """

    precision: Literal["f32", "bf16"] = "f32"
    hint: Literal["latency", "throughput"] = "latency"
    streams: int = 0
    pinning: bool = False
    emulate: bool = False
    formats: tuple[str, ...] = ("onnx",)

    def __post_init__(self) -> None:
        if self.streams < 0:
            raise UsageError(f"Expected 0 or more streams; got {self.streams}. 0 lets OpenVINO choose.")
        if self.streams > 1 and self.hint == "latency":
            raise UsageError(f"Expected one stream with hint=latency; got {self.streams}. Add hint=throughput.")

    def missing(self) -> str | None:
        """What to install, or why this processor cannot run the precision; None where all is there."""
        try:
            import openvino as ov
        except ImportError:
            return "openvino is not installed; run: pip install 'quantward[openvino]'"
        if self.precision == "bf16" and not self.emulate and "BF16" not in _capabilities(ov):
            return (
                "this processor has no bf16 arithmetic; use precision=f32, or precision=bf16,emulate=true for the "
                "answers without the speed"
            )
        return None

    def open(self, variant: Variant, threads: int = 1) -> Session:
        """Compile the file for this processor; a batch is shared out over the requests that run side by side. A file
        that compiles only for one image gets the images of a batch one after the other.

        Raises Refused for a file that OpenVINO cannot compile, and for bf16 on a processor that has none.
        """
        compiled = self._compile(variant, threads)
        side_by_side = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") if self.hint == "throughput" else 1
        requests = [compiled.create_infer_request() for _ in range(1 if variant.batch else side_by_side)]
        alone = variant.batch is None and compiled.input(0).partial_shape[0].is_static

        def call(batch: Batch) -> Batch:
            parts = np.array_split(batch, len(batch) if alone else min(len(requests), len(batch)))
            answers = []
            for at in range(0, len(parts), len(requests)):
                started = list(zip(requests, parts[at : at + len(requests)], strict=False))
                for request, part in started:
                    request.start_async({0: part})
                for request, _ in started:
                    request.wait()
                    answers.append(np.array(request.get_output_tensor(0).data, np.float32))
            return np.concatenate(answers)

        return fed(variant, call)

    def executed(self, variant: Variant) -> Executed:
        """Read OpenVINO's own description of the compiled graph: the kind and the arithmetic of each step.

        Operators are named with their arithmetic, `Eltwise (f32)`, because what keeps an integer file from being fast
        are float steps between its layers. A step that was fused into a layer is no step any more.
        """
        layers: Counter[str] = Counter()
        operators: Counter[str] = Counter()
        for step in self._compile(variant, 1).get_runtime_model().get_ordered_ops():
            facts = step.get_rt_info()
            kind, precision = (facts[key].value if key in facts else "" for key in ("layerType", "runtimePrecision"))
            if kind in _NO_WORK:
                continue
            ran = precision
            if kind in _LAYERS:  # of weight-only layers the precision is that of the weights: what is read decides
                read = step.input_value(0).get_element_type().to_string()
                if precision in _INTEGER | _WEIGHTS and read not in _INTEGER:
                    ran = read
                layers[_NAMES.get(ran, ran)] += 1
            operators[f"{kind} ({ran})" if ran == precision else f"{kind} ({ran}, weights {precision})"] += 1
        return Executed(dict(layers), dict(operators))

    def _compile(self, variant: Variant, threads: int) -> Any:
        absent = self.missing()
        if absent:
            raise Refused(f"Expected a processor and an OpenVINO that can run {self.precision}; {absent}.")
        import openvino as ov

        core, settings = ov.Core(), self._settings(threads)
        try:
            compiled = core.compile_model(str(variant.path), "CPU", settings)
        except RuntimeError as error:
            compiled = _one_at_a_time(core, variant, settings)
            if compiled is None:
                raise Refused(
                    f"Expected a file that OpenVINO can compile at {variant.path}; it said: {_said(error)}."
                ) from None
        taken = compiled.get_property("INFERENCE_PRECISION_HINT")
        if taken != getattr(ov.Type, self.precision):
            raise Refused(
                f"Expected OpenVINO to run in {self.precision}; it took {taken.to_string()}. Use precision=f32."
            )
        return compiled

    def _settings(self, threads: int) -> dict[str, Any]:
        streams = "1" if self.hint == "latency" else str(self.streams) if self.streams else "AUTO"
        return {
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": self.hint.upper(),
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": self.pinning,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }


def _one_at_a_time(core: Any, variant: Variant, settings: dict[str, Any]) -> Any:
    """The file compiled for one image a call, None where that fails as well or is what it is anyway.

    OpenVINO 2026.4 moves scales through a Reshape by the sizes that it knows, and falls over an open batch (LeViT).
    """
    try:
        model = core.read_model(str(variant.path))
        shape = model.input(0).partial_shape
        if shape[0].is_static:
            return None
        shape[0] = 1
        model.reshape(shape)
        return core.compile_model(model, "CPU", settings)
    except RuntimeError:
        return None


def _capabilities(ov: Any) -> list[str]:
    """What the processor computes in by itself, in OpenVINO's words: FP32, BF16, INT8, ..."""
    found: list[str] = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


def _said(error: RuntimeError) -> str:
    """The line of OpenVINO's message that tells something: the first ones name its own source files, and of several
    faults the summary has the first cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = lines[lines.index("Summary:") + 1 :] if "Summary:" in lines else []
    telling = [line for line in lines if not line.startswith(("Exception from ", "Check ")) and not line.endswith(":")]
    return (causes or telling or lines or ["nothing"])[0].removeprefix("-- ").rstrip(".")
