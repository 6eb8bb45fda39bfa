"""The LiteRT runtime: integers in and out by the file's own grids, one answer at any batch, honest about arithmetic."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.core.contracts import Batch
from quantward.core.errors import Refused
from quantward.core.store import decode, plain, read_json, write_json
from quantward.core.values import Plan, Variant
from quantward.graph.walk import inputs_of
from quantward.runtimes.litert import Litert as Runtime
from quantward.targets.litert import Litert

pytest.importorskip("ai_edge_litert.interpreter")


@pytest.fixture
def whole(planned: Callable[[str], Plan], tmp_path: Path) -> Variant:
    """The small network with int8 at both ends; its logits lie within -8 and 8."""
    plan = planned("int8-static")
    head = inputs_of(plan.program[-1])[0]
    notes = {"activations": {**plan.notes["activations"], head: {"low": -8.0, "high": 8.0}}}
    return Litert(output="int8").write(replace(plan, notes=notes), tmp_path)


def test_images_are_rounded_and_logits_read_back_by_the_files_own_grids(whole: Variant, images: Batch) -> None:
    from ai_edge_litert.interpreter import Interpreter

    plainly = Interpreter(str(whole.path))
    plainly.allocate_tensors()
    entry, exit_ = plainly.get_input_details()[0], plainly.get_output_details()[0]
    assert entry["dtype"] == exit_["dtype"] == np.int8
    scale, zero = entry["quantization"]
    stored = np.clip(np.rint(images[3] / np.float32(scale)) + zero, -128, 127).astype(np.int8)
    plainly.set_tensor(entry["index"], stored.transpose(1, 2, 0)[None])
    plainly.invoke()
    scale, zero = exit_["quantization"]
    expected = (plainly.get_tensor(exit_["index"]).astype(np.float32) - zero) * np.float32(scale)
    assert np.allclose(Runtime().open(whole, 1)(images[3:4]), expected, rtol=0, atol=1e-6)


def test_values_beyond_the_grid_are_cut_off_and_do_not_wrap_around(whole: Variant, images: Batch) -> None:
    session = Runtime().open(whole, 1)
    far = session(1000 * images[:4])
    assert np.array_equal(far, session(2000 * images[:4]))


def test_one_answer_at_any_batch_size_and_thread_count(whole: Variant, images: Batch) -> None:
    session = Runtime().open(whole, 1)
    together = session(images)
    assert together.dtype == np.float32 and together.shape == (64, 4)
    assert np.array_equal(together, np.concatenate([session(images[i : i + 1]) for i in range(64)]))
    assert np.array_equal(together, Runtime().open(whole, 2)(images))
    assert session(images[:0]).shape == (0, 4)


def test_with_and_without_xnnpack_classes_are_the_same(whole: Variant, images: Batch) -> None:
    fast, slow = Runtime().open(whole, 1)(images), Runtime(delegate=False).open(whole, 1)(images)
    step = 1.5 * 16 / 255
    assert np.abs(fast - slow).max() <= 2.01 * step
    assert np.abs(fast - slow).mean() <= 0.5 * step


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "int8-static", "int8-dynamic:convolutions=false"])
def test_xnnpack_takes_the_whole_graph(recipe: str, planned: Callable[[str], Plan], tmp_path: Path) -> None:
    interpreter = Runtime()._interpreter(Litert().write(planned(recipe), tmp_path), 1)
    nodes = interpreter._get_ops_details()
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    output = interpreter.get_output_details()[0]["index"]
    assert len(delegates) == 1
    assert list(delegates[0]["outputs"]) == [output]


def test_executed_tells_what_layers_multiply(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    found = {
        recipe: Runtime().executed(Litert().write(planned(recipe), tmp_path)).layers
        for recipe in ("fp32", "fp16", "int4-weights:method=hqq", "int8-static", "int8-dynamic", "int16x8")
    }
    assert found["fp32"] == found["fp16"] == found["int4-weights:method=hqq"] == {"float32": 8}
    assert found["int8-static"] == found["int8-dynamic"] == {"int8": 8}
    assert found["int16x8"] == {"int16": 7, "float32": 1}


def test_operators_are_counted_by_name(whole: Variant) -> None:
    executed = Runtime().executed(whole)
    assert executed.operators["DEPTHWISE_CONV_2D"] == 2
    assert executed.operators["CONV_2D"] == 5
    assert executed.operators["FULLY_CONNECTED"] == 1
    assert not {"DEQUANTIZE", "RELU6", "RELU", "TRANSPOSE"} & set(executed.operators)


def test_the_library_says_nothing_to_the_user(whole: Variant, images: Batch, capfd: pytest.CaptureFixture[str]) -> None:
    Runtime().open(whole, 1)(images[:1])
    said = capfd.readouterr()
    assert said.out == said.err == ""


@pytest.mark.parametrize("content", [b"", b"this is no network", b"\x1c\x00\x00\x00TFL3" + bytes(200)])
def test_a_broken_file_is_refused_with_a_sentence(content: bytes, whole: Variant, tmp_path: Path) -> None:
    broken = replace(whole, path=tmp_path / "broken.tflite")
    broken.path.write_bytes(content)
    said = r"^Expected a file that LiteRT can load at .*broken[.]tflite; it said: .*[.]$"
    for call in (lambda: Runtime().open(broken, 1), lambda: Runtime().executed(broken)):
        with pytest.raises(Refused, match=said):
            call()


def test_absent_files_are_refused(whole: Variant, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Expected a file that LiteRT can load"):
        Runtime().open(replace(whole, path=tmp_path / "none.tflite"), 1)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Runtime().missing() is None
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    said = Runtime().missing()
    assert said is not None and "pip install ai-edge-litert" in said


def test_the_device_needs_neither_torch_nor_onnx(whole: Variant, images: Batch, tmp_path: Path) -> None:
    write_json(tmp_path / "variant.json", plain(whole))
    np.save(tmp_path / "images.npy", images[:4])
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'litert_torch', 'ai_edge_quantizer', 'jax', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "import numpy as np\n"
        "from quantward.core.store import decode, read_json\n"
        "from quantward.core.values import Variant\n"
        "from quantward.runtimes.litert import Litert\n"
        f"folder = {str(tmp_path)!r}\n"
        "variant = decode(Variant, read_json(folder + '/variant.json'))\n"
        "np.save(folder + '/logits.npy', Litert().open(variant, 1)(np.load(folder + '/images.npy')))\n"
        "assert Litert().executed(variant).layers == {'int8': 8}\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    found = np.load(tmp_path / "logits.npy")
    assert np.array_equal(found, Runtime().open(decode(Variant, read_json(tmp_path / "variant.json")), 1)(images[:4]))
