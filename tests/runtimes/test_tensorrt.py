"""The TensorRT runtime against a stand-in for the library: what it calls in which order, what it keeps, what it says.

The stand-in answers as the documentation of TensorRT 10 and 11 says and computes logits of its own; that real engines
build and agree can only be seen on a device.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quantward.core.errors import Refused, UsageError
from quantward.core.store import digest_file
from quantward.core.values import Preprocess, Variant
from quantward.runtimes._tensorrt_engine import engine_path, read_description
from quantward.runtimes.tensorrt import Tensorrt

CLASSES = 4


@dataclass
class World:
    """What the stand-in saw, and how it is to behave."""

    calls: list[str] = field(default_factory=list)
    parses: bool = True
    builds: bool = True
    reads: bool = True
    runs: bool = True
    cuda_error: int = 0
    profile: Any = None
    flags: int = 0
    cache: bytes | None = None
    memory: dict[int, Any] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)


def fake_tensorrt(world: World, version: str = "10.3.0") -> ModuleType:
    """As much of `tensorrt` as the runtime asks for; arguments that the library would refuse are refused."""
    trt = ModuleType("tensorrt")
    severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

    class ILogger:
        Severity = severity

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> Any:
            world.calls.append("deserialize")
            if not world.reads or not data.startswith(b"engine"):
                self.logger.log(severity.ERROR, "serialization assertion failed")
                return None
            return Engine(self.logger)

    class Engine:
        num_io_tensors = 2

        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def get_tensor_name(self, i: int) -> str:
            return ("input", "logits")[i]

        def get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode.INPUT if name == "input" else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return "FLOAT"

        def create_execution_context(self) -> Any:
            world.calls.append("context")
            return Context(self.logger)

        def create_engine_inspector(self) -> Any:
            layers = [
                {"LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Thirty-two wide Int8 format"}]},
                {"LayerType": "CaskConvolution", "Inputs": [{"Format": "NHWC8", "DataType": "Half"}]},
                {"LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Row major linear FP32"}]},
            ]
            return SimpleNamespace(get_engine_information=lambda kind: json.dumps({"Layers": layers}))

    class Context:
        def __init__(self, logger: Any) -> None:
            self.logger, self.shape = logger, (0,)

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            assert name == "input"
            self.shape = shape
            return True

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return (self.shape[0], CLASSES)

        def set_tensor_address(self, name: str, address: int) -> bool:
            world.addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            world.calls.append(f"execute {self.shape[0]}")
            if not world.runs:
                self.logger.log(severity.ERROR, "an illegal memory access")
                return False
            given = (ctypes.c_float * int(np.prod(self.shape))).from_address(world.addresses["input"])
            images = np.frombuffer(given, np.float32).reshape(self.shape)
            result = (ctypes.c_float * (self.shape[0] * CLASSES)).from_address(world.addresses["logits"])
            np.frombuffer(result, np.float32)[:] = logits_of(images).ravel()
            return True

    class Config:
        profiling_verbosity = None

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            world.calls.append(f"workspace {size >> 20}")

        def add_optimization_profile(self, profile: Any) -> int:
            world.profile = profile
            return 0

        def create_timing_cache(self, data: bytes) -> Any:
            assert isinstance(data, bytes)
            world.cache = data
            return SimpleNamespace(serialize=lambda: b"timings")

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            self.cache = cache
            return True

        def get_timing_cache(self) -> Any:
            return self.cache

    class Profile:
        shapes: dict[str, Any]

        def __init__(self) -> None:
            self.shapes = {}

        def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
            self.shapes[name] = (least, usual, most)

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> Any:
            world.calls.append("network")
            world.flags = flags
            return SimpleNamespace(num_inputs=1, get_input=lambda i: SimpleNamespace(name="input"))

        def create_builder_config(self) -> Any:
            return Config()

        def create_optimization_profile(self) -> Any:
            return Profile()

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            world.calls.append("build")
            if not world.builds:
                self.logger.log(severity.WARNING, "no words about this")
                self.logger.log(severity.ERROR, "could not find any implementation for node Conv\nmore")
                return None
            assert config.profiling_verbosity == "DETAILED"
            return b"engine of the file"

    class OnnxParser:
        num_errors = 1

        def __init__(self, network: Any, logger: Any) -> None:
            pass

        def parse_from_file(self, path: str) -> bool:
            world.calls.append("parse")
            assert Path(path).exists()
            return world.parses

        def get_error(self, i: int) -> Any:
            return SimpleNamespace(desc=lambda: "Non-zero zero point is not supported")

    trt.__version__ = version  # type: ignore[attr-defined]
    for kind in (ILogger, Runtime, Builder, OnnxParser):
        setattr(trt, kind.__name__, kind)
    flags = enum.IntEnum("NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1})
    trt.NetworkDefinitionCreationFlag = flags  # type: ignore[attr-defined]
    trt.TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")  # type: ignore[attr-defined]
    trt.MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE")  # type: ignore[attr-defined]
    trt.ProfilingVerbosity = SimpleNamespace(DETAILED="DETAILED")  # type: ignore[attr-defined]
    trt.LayerInformationFormat = SimpleNamespace(JSON="JSON")  # type: ignore[attr-defined]
    trt.nptype = lambda kind: np.float32  # type: ignore[attr-defined]
    return trt


def fake_cuda(world: World) -> ModuleType:
    """The CUDA runtime over the host's own memory: addresses are real, so copies are."""
    cuda = ModuleType("cuda.bindings.runtime")

    def malloc(size: int) -> tuple[int, int]:
        if world.cuda_error:
            return world.cuda_error, 0
        held = np.empty(size, np.uint8)
        world.memory[held.ctypes.data] = held
        return 0, held.ctypes.data

    def free(address: int) -> tuple[int]:
        del world.memory[address]
        return (0,)

    def copy(to: int, source: int, size: int, kind: Any, stream: Any) -> tuple[int]:
        ctypes.memmove(to, source, size)
        return (0,)

    properties = SimpleNamespace(name=b"Orin (nvgpu)\x00", major=8, minor=7)
    answers: dict[str, Callable[..., Any]] = {
        "cudaGetDeviceCount": lambda: (0, 1),
        "cudaGetDevice": lambda: (0, 0),
        "cudaGetDeviceProperties": lambda number: (0, properties),
        "cudaStreamCreate": lambda: (0, 77),
        "cudaStreamDestroy": lambda stream: (0,),
        "cudaStreamSynchronize": lambda stream: (world.calls.append("wait"), (0,))[1],
        "cudaMalloc": malloc,
        "cudaFree": free,
        "cudaMemcpyAsync": copy,
    }
    for name, answer in answers.items():
        setattr(cuda, name, answer)
    kinds = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cuda.cudaMemcpyKind = kinds  # type: ignore[attr-defined]
    return cuda


def logits_of(images: Any) -> Any:
    """What the stand-in computes: sums of the quarters of each image."""
    return images.reshape(len(images), CLASSES, -1).sum(2)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    packages = {name: ModuleType(name) for name in ("cuda", "cuda.bindings")}
    cuda = fake_cuda(made)
    packages["cuda.bindings"].runtime = cuda  # type: ignore[attr-defined]
    for name, module in {**packages, "cuda.bindings.runtime": cuda, "tensorrt": fake_tensorrt(made)}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    path = tmp_path / "int8.tensorrt.onnx"
    path.write_bytes(b"a network")
    how = Preprocess(size=8)
    return Variant("int8", "onnx", path, digest_file(path), 9, "int8-static:signed=true", "", how, tuple("abcd"))


@pytest.fixture
def images() -> Any:
    return np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)


def test_nothing_is_missing_where_all_is_there(world: World) -> None:
    assert Tensorrt().missing() is None


def test_builds_strongly_typed_keeps_the_engine_and_runs_in_pieces(world: World, variant: Variant, images: Any) -> None:
    session = Tensorrt(batch=2, workspace=64).open(variant)
    assert world.calls == ["network", "parse", "workspace 64", "build", "deserialize", "context"]
    assert world.flags == 1 << 1
    assert world.profile.shapes == {"input": ((1, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8))}
    got = session(images)
    assert got.dtype == np.float32 and np.array_equal(got, logits_of(images))
    assert [call for call in world.calls if call.startswith("execute")] == ["execute 2", "execute 2", "execute 1"]
    assert world.calls.count("wait") == 3
    engine = engine_path(variant, 2, "10.3.0", "Orin (nvgpu)-sm87")
    assert engine.exists() and engine.name.endswith(".trt10.3.0.Orin-nvgpu--sm87.b2.engine")


def test_a_second_session_loads_the_engine(world: World, variant: Variant) -> None:
    Tensorrt().open(variant)
    world.calls.clear()
    Tensorrt().open(variant)
    assert world.calls == ["deserialize", "context"]


def test_another_file_gets_an_engine_of_its_own_and_reuses_the_timings(world: World, variant: Variant) -> None:
    Tensorrt().open(variant)
    assert world.cache == b""
    Tensorrt().open(replace(variant, sha256="0" * 64))
    assert world.calls.count("build") == 2
    assert world.cache == b"timings"


def test_an_engine_that_the_library_no_longer_reads_is_built_anew(world: World, variant: Variant, images: Any) -> None:
    engine_path(variant, 32, "10.3.0", "Orin (nvgpu)-sm87").write_bytes(b"of another time")
    session = Tensorrt().open(variant)
    assert world.calls.count("build") == 1
    assert np.array_equal(session(images), logits_of(images))


def test_buffers_grow_once_and_stay(world: World, variant: Variant, images: Any) -> None:
    session = Tensorrt().open(variant)
    for count in (1, 5, 2, 5):
        assert np.array_equal(session(images[:count]), logits_of(images[:count]))
    assert len(world.memory) == 2


def test_files_that_answer_one_image_at_a_time_get_one(world: World, variant: Variant, images: Any) -> None:
    session = Tensorrt().open(replace(variant, max_batch=1))
    session(images)
    assert world.calls.count("execute 1") == 5


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"parses": False}, r"it said: Non-zero zero point is not supported\. Write it with the target"),
        ({"builds": False}, r"it said: could not find any implementation for node Conv\. Check the file with"),
        ({"reads": False}, r"Expected TensorRT to load the engine that it built; serialization assertion failed\."),
        ({"runs": False}, r"Expected the engine to run; an illegal memory access\. Remove"),
        ({"cuda_error": 2}, r"Expected cudaMalloc to succeed on the device; CUDA said 2\."),
    ],
)
def test_faults_are_sentences_with_the_librarys_own_words(
    fault: dict[str, Any], sentence: str, world: World, variant: Variant, images: Any
) -> None:
    for name, value in fault.items():
        setattr(world, name, value)
    with pytest.raises(Refused, match=sentence):
        Tensorrt().open(variant)(images)
    if fault.keys() & {"parses", "builds"}:
        assert not list(variant.path.parent.glob("*.engine"))


def test_the_engine_tells_its_layers(world: World, variant: Variant) -> None:
    executed = Tensorrt().executed(variant)
    assert executed is not None
    assert executed.layers == {"int8": 1, "float16": 1}
    assert executed.operators == {"CaskConvolution": 2, "Reformat": 1}
    assert read_description(json.dumps({"Layers": ["conv1", "conv2"]})).layers == {}


def test_an_older_release_is_not_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(world, "8.5.2.2"))
    assert "10 or newer is needed" in (Tensorrt().missing() or "")


@pytest.mark.parametrize(("answer", "sentence"), [((100, 0), "no NVIDIA device"), ((0, 0), "no NVIDIA device")])
def test_a_machine_without_a_device_is_said(answer: Any, sentence: str, world: World) -> None:
    sys.modules["cuda.bindings.runtime"].cudaGetDeviceCount = lambda: answer  # type: ignore[attr-defined]
    assert sentence in (Tensorrt().missing() or "")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "nvidia-jetpack" in (Tensorrt().missing() or "")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "no TensorRT provider" in (Tensorrt(via="onnxruntime").missing() or "")


@pytest.mark.parametrize("option", ["batch", "workspace"])
def test_sizes_below_one_are_usage_errors(option: str) -> None:
    with pytest.raises(UsageError, match=f"Expected {option} of at least 1"):
        Tensorrt(**{option: 0})  # type: ignore[arg-type]


class Provided:
    """ONNX Runtime with the TensorRT provider, as far as the runtime looks."""

    def __init__(self, path: str, options: Any, providers: Any) -> None:
        self.asked, self.left = providers, ["TensorrtExecutionProvider", "CPUExecutionProvider"]
        self.options = options
        Provided.last = self

    last: Provided

    def get_providers(self) -> list[str]:
        return self.left

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="input")]

    def run(self, outputs: Any, fed: dict[str, Any]) -> list[Any]:
        return [logits_of(fed["input"])]


def test_the_provider_comes_first_with_its_caches(
    monkeypatch: pytest.MonkeyPatch, variant: Variant, images: Any
) -> None:
    import onnxruntime as ort

    monkeypatch.setattr(ort, "InferenceSession", Provided)
    session = Tensorrt(via="onnxruntime", workspace=8).open(variant)
    assert np.array_equal(session(images), logits_of(images))
    (name, options), *others = Provided.last.asked
    assert name == "TensorrtExecutionProvider" and others == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
    assert variant.sha256[:16] in options["trt_engine_cache_path"]
    assert options["trt_max_workspace_size"] == str(8 << 20)
    assert Provided.last.options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL


def test_a_quiet_fall_back_is_refused(monkeypatch: pytest.MonkeyPatch, variant: Variant) -> None:
    import onnxruntime as ort

    class Fallen(Provided):
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort, "InferenceSession", Fallen)
    with pytest.raises(Refused, match="it fell back to CPUExecutionProvider"):
        Tensorrt(via="onnxruntime").open(variant)
