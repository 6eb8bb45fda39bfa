"""The TFLite file: the Plan's own integers and scales lie in it, from input to output, and it computes the Plan."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quantward.core.contracts import Batch, Context
from quantward.core.errors import Unsupported
from quantward.core.registry import Registry
from quantward.core.values import Model, Plan, Preprocess, QuantSpec
from quantward.graph.capture import capture
from quantward.graph.simulate import simulate
from quantward.graph.stored import to_integers
from quantward.graph.walk import LINEAR, bias_of, inputs_of, layers, weight_of
from quantward.targets.litert import Litert

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

from quantward.runtimes.litert import Litert as Runtime  # noqa: E402
from quantward.targets._litert_values import carried_order  # noqa: E402

RECIPES = Registry("recipe", "quantward.quantize.recipes")
NUMPY = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "INT8": np.int8, "INT64": np.int64,
         "INT16": np.int16}  # fmt: skip
TYPES = {number: name for name, number in vars(schema.TensorType).items() if isinstance(number, int)}


class File:
    """A TFLite file read with nothing but the schema: name -> tensor, its type, its integers, its scales."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        assert self.data[4:8] == b"TFL3"
        self.model = schema.ModelT.InitFromPackedBuf(bytearray(self.data), 0)
        self.graph = self.model.subgraphs[0]
        self.tensors = {tensor.name.decode(): tensor for tensor in self.graph.tensors}

    def kind(self, name: str) -> str:
        return TYPES[self.tensors[name].type]

    def ends(self) -> list[str]:
        return [TYPES[self.graph.tensors[i].type] for i in (*self.graph.inputs, *self.graph.outputs)]

    def grid(self, number: int) -> tuple[float, int]:
        steps = self.graph.tensors[number].quantization
        return float(steps.scale[0]), int(steps.zeroPoint[0])

    def array(self, name: str) -> np.ndarray[Any, Any]:
        tensor, kind = self.tensors[name], self.kind(name)
        data = np.asarray(self.model.buffers[tensor.buffer].data, np.uint8)
        if kind == "INT4":
            halves = np.stack([data & 15, data >> 4], 1).ravel()[: math.prod(tensor.shape)].astype(np.int8)
            return np.where(halves > 7, halves - 16, halves).reshape(tensor.shape)
        return data.view(NUMPY[kind]).reshape(tensor.shape)

    def scale(self, name: str) -> np.ndarray[Any, Any]:
        return np.asarray(self.tensors[name].quantization.scale, np.float32)


def knowing(plan: Plan, images: Batch) -> Plan:
    """The Plan with the range of its logits among its notes, as calibration observes it."""
    with torch.no_grad():
        logits = simulate(plan).eval()(torch.from_numpy(images)).numpy()
    seen = {"low": float(logits.min()), "high": float(logits.max())}
    activations = {**plan.notes.get("activations", {}), inputs_of(plan.program[-1])[0]: seen}
    return replace(plan, notes={**plan.notes, "activations": activations})


def differences(plan: Plan, images: Batch, folder: Path) -> tuple[float, float]:
    """File against simulation: the largest difference of a logit as a share of their spread, and top-1 agreement."""
    got = Runtime().open(Litert().write(plan, folder), 1)(images)
    with torch.no_grad():
        expected = simulate(plan).eval()(torch.from_numpy(images)).numpy()
    agree = float(np.mean(got.argmax(1) == expected.argmax(1)))
    return float(np.abs(got - expected).max() / np.ptp(expected)), agree


def planned_for(net: nn.Module, recipe: str, images: Batch, size: int = 32) -> Plan:
    """A Plan of any network, calibrated on the images."""
    parent = capture(Model("net", net.eval(), Preprocess(size=size, resize=size), tuple("abcd")))
    made: Plan = RECIPES.make(recipe).plan(parent, Context(images=lambda n: iter([images])))
    return made


LIMITS = {"fp32": 1e-5, "fp16": 1e-5, "int4-weights": 1e-5, "int16x8": 1e-3}
CHOSEN = [
    "fp32",
    "fp16",
    "int8-static",
    "int8-static:per_channel=false",
    "int8-static:keep=stem+blocks.0*",
    "int8-dynamic",
    "int8-dynamic:convolutions=false",
    "int16x8",
    "int4-weights:method=hqq",
    "low-bit:weights=4,activations=8",
    "low-bit:weights=3,activations=4,rounding=nearest",
]


@pytest.mark.parametrize("recipe", CHOSEN)
def test_file_agrees_with_the_simulation(
    recipe: str, planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    worst, agree = differences(planned(recipe), images, tmp_path)
    assert worst <= LIMITS.get(recipe.partition(":")[0], 0.02)
    assert agree == 1.0


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "int8-static", "int8-dynamic", "int16x8", "int4-weights:group=0"])
def test_transformers_agree_with_the_simulation(
    recipe: str, small_transformer: Plan, images: Batch, tmp_path: Path
) -> None:
    plan = RECIPES.make(recipe).plan(small_transformer, Context(images=lambda n: iter([images])))
    worst, agree = differences(plan, images, tmp_path)
    assert worst <= LIMITS.get(recipe.partition(":")[0], 0.03)
    assert agree >= 0.98


@pytest.mark.parametrize("recipe", ["int8-static", "qat:epochs=1,batch=8,augment=none", "low-bit"])
def test_int8_files_have_int8_at_both_ends_on_the_grids_of_the_plan(
    recipe: str, planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    plan = knowing(planned(recipe), images)
    variant = Litert().write(plan, tmp_path)
    file = File(variant.path)
    assert file.ends() == ["INT8", "INT8"]
    assert {TYPES[t.type] for t in file.graph.tensors} <= {"INT8", "INT4", "INT32"}, "no float anywhere"
    spec = plan.tensors["input"]
    assert file.grid(file.graph.inputs[0]) == (float(spec.scale), int(spec.zero_point) - 128)
    worst, agree = differences(plan, images, tmp_path)
    assert worst <= 0.02
    assert agree >= 0.98
    assert Runtime().executed(variant).layers == {"int8": 8}


@pytest.mark.parametrize(
    "recipe", ["int8-static", "int8-static:rounding=adaptive", "qat:epochs=1,batch=8,augment=none", "low-bit"]
)
def test_the_integers_in_the_file_are_those_of_the_plan(
    recipe: str, planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    plan = knowing(planned(recipe), images)
    file = File(Litert().write(plan, tmp_path).path)
    seen = set()
    for layer in layers(plan.program):
        name, spec = weight_of(layer), plan.tensors[weight_of(layer)]
        expected = to_integers(plan.weights[name], spec)
        if layer.op != LINEAR:
            depthwise = expected.shape[1] == 1
            expected = expected.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
        assert file.kind(name) == ("INT4" if spec.bits <= 4 else "INT8")
        assert np.array_equal(file.array(name), expected)
        assert np.array_equal(file.scale(name), np.atleast_1d(spec.scale))
        bias = bias_of(layer)
        assert bias is not None
        assert file.kind(bias) == "INT32"
        assert np.array_equal(file.array(bias), to_integers(plan.weights[bias], plan.tensors[bias]))
        seen.add(file.kind(name))
    assert "INT4" in seen if recipe == "low-bit" else seen == {"INT8"}


def test_every_activation_of_the_plan_lies_on_its_own_grid(
    planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    plan = knowing(planned("int8-static"), images)
    file = File(Litert().write(plan, tmp_path).path)
    in_file = {file.grid(i) for step in file.graph.operators for i in step.outputs}
    wanted = {(float(s.scale), int(s.zero_point) - 128) for s in plan.tensors.values() if s.kind == "activation"}
    assert wanted - in_file <= {file.grid(file.graph.inputs[0])}


def test_half_precision_stores_half(small_transformer: Plan, tmp_path: Path) -> None:
    context = Context(images=lambda n: iter(()))
    whole = Litert().write(RECIPES.make("fp32").plan(small_transformer, context), tmp_path)
    half = Litert().write(RECIPES.make("fp16").plan(small_transformer, context), tmp_path)
    stored = sum(array.nbytes for array in small_transformer.weights.values())
    assert whole.bytes - half.bytes >= 0.45 * stored
    file = File(half.path)
    assert file.kind("blocks.0.mlp.fc1.weight") == "FLOAT16"
    large = [t.name for t in file.graph.tensors if t.buffer and TYPES[t.type] == "FLOAT32" and math.prod(t.shape) > 1]
    assert not large


def test_narrow_weights_can_take_a_byte_each_without_a_change_of_the_integers(
    planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    plan = planned("low-bit:weights=4,activations=8")
    packed, wide = Litert().write(plan, tmp_path / "a"), Litert(pack=False).write(plan, tmp_path / "b")
    one, two = File(packed.path), File(wide.path)
    narrow = [name for name, spec in plan.tensors.items() if spec.kind == "weight" and spec.bits == 4]
    assert narrow
    for name in narrow:
        assert (one.kind(name), two.kind(name)) == ("INT4", "INT8")
        assert np.array_equal(one.array(name), two.array(name))
    assert packed.bytes < wide.bytes
    got, expected = (Runtime().open(variant, 1)(images) for variant in (packed, wide))
    assert np.abs(got - expected).max() <= 0.02 * np.ptp(expected)


def test_sixteen_bit_activations_come_with_biases_of_64(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    variant = Litert().write(planned("int16x8"), tmp_path)
    file = File(variant.path)
    assert file.ends() == ["INT16", "FLOAT32"]
    assert file.kind("stem.weight") == "INT8" and file.kind("stem.bias") == "INT64"
    assert Runtime().executed(variant).layers == {"int16": 7, "float32": 1}


def test_logits_stay_in_float_where_their_range_is_unknown_or_asked_for(
    planned: Callable[[str], Plan], images: Batch, tmp_path: Path
) -> None:
    head = inputs_of(planned("fp32").program[-1])[0]
    plan = knowing(planned("int8-static"), images)
    known = {name: seen for name, seen in plan.notes["activations"].items() if name != head}
    unknown = replace(plan, notes={"activations": known})
    assert File(Litert().write(unknown, tmp_path).path).ends() == ["INT8", "FLOAT32"]
    assert File(Litert(output="float32").write(plan, tmp_path).path).ends() == ["INT8", "FLOAT32"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(Unsupported, match="knows the range of its logits for output=int8"):
        Litert(output="int8").write(unknown, empty)
    assert not list(empty.iterdir())


def test_constants_begin_where_kernels_expect_them(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    data = Litert().write(planned("int8-static"), tmp_path).path.read_bytes()
    model = schema.Model.GetRootAsModel(data, 0)
    starts = []
    for i in range(1, model.BuffersLength()):
        buffer = model.Buffers(i)
        starts.append(buffer._tab.Vector(buffer._tab.Offset(4)))
    assert starts and all(start % 16 == 0 for start in starts)


def test_the_same_plan_gives_the_same_bytes(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = planned("int8-static")
    assert Litert().write(plan, tmp_path / "a").sha256 == Litert().write(plan, tmp_path / "b").sha256


def changed(plan: Plan, kind: str, **fields: object) -> Plan:
    """The Plan with some fields of all specs of one kind replaced."""
    odd = {name: replace(spec, **fields) for name, spec in plan.tensors.items() if spec.kind == kind}
    return replace(plan, tensors={**plan.tensors, **odd})


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("activation", {"bits": 12}, "activations of 2 to 8 bits, or of 16 around zero"),
        ("activation", {"scale": np.ones(8, np.float32)}, "integer activations with one scale"),
        ("weight", {"bits": 9}, "weights of 2 to 8 bits"),
        ("weight", {"zero_point": np.int32(3)}, "weights around zero where a layer multiplies integers"),
    ],
)
def test_specs_without_a_type_are_refused(
    kind: str, fields: dict[str, Any], said: str, planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match=f"^Expected {said} for litert; .*[.]$"):
        Litert().write(changed(planned("int8-static:per_channel=false"), kind, **fields), tmp_path)
    assert not list(tmp_path.iterdir())


def test_scales_for_blocks_of_a_row_are_refused(small_transformer: Plan, images: Batch, tmp_path: Path) -> None:
    plan = RECIPES.make("int4-weights:method=hqq,group=12").plan(small_transformer, Context(lambda n: iter([images])))
    with pytest.raises(Unsupported, match=r"one scale a row .* \(group=0 has one a row\)"):
        Litert().write(plan, tmp_path)


def test_an_unknown_operator_is_refused(small_plan: Plan, tmp_path: Path) -> None:
    odd = [replace(n, op="aten.softplus.default") if n.op == "aten.relu.default" else n for n in small_plan.program]
    with pytest.raises(Unsupported, match=r"'act' is aten\.softplus\.default"):
        Litert().write(replace(small_plan, program=tuple(odd)), tmp_path)


def test_without_its_library_the_target_says_what_to_install(
    small_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith(("ai_edge_litert", "quantward.targets._litert"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(Unsupported, match=r"pip install 'quantward\[litert\]'"):
        Litert().write(small_plan, tmp_path)


class Dense(nn.Module):
    """Grows by concatenation with normalisations that no convolution can take in; pools with and without padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(7))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1, bias=False) for i in range(6))
        self.last = nn.Conv2d(32, 16, 1)
        self.smaller = nn.AvgPool2d(2)
        self.head = nn.Linear(16, 4)
        for norm in self.norms:
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.3, 2.0)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.pool(self.stem(x))]
        for norm, conv in zip(self.norms, self.convs, strict=False):
            parts.append(conv(norm(torch.cat(parts, 1)).relu()))
        x = self.smaller(self.last(self.norms[-1](torch.cat(parts, 1)).relu()))
        return self.head(x.mean((2, 3)))


class Gated(nn.Module):
    """SiLU and a channel gate, sizes that no stride divides, a clamp of its own behind a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.act, self.clamp, self.pool = nn.SiLU(), nn.ReLU6(), nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.deep(self.act(self.stem(x))))
        gate = self.excite(self.act(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        x = x * gate
        x = self.clamp(self.wide(x) + x)
        return self.head(self.pool(x).flatten(1))


class Windowed(nn.Module):
    """A large depthwise window, channels-last LayerNorm, GELU, a layer scale, rolled windows, attention with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, stride=4)
        self.deep = nn.Conv2d(12, 12, 7, padding=3, groups=12)
        self.norm = nn.LayerNorm(12)
        self.one, self.two = nn.Linear(12, 24), nn.Linear(24, 12)
        self.gamma = nn.Parameter(torch.randn(12))
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.register_buffer("bias", torch.randn(1, 2, 16, 16))
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        y = self.two(nn.functional.gelu(self.one(y))).permute(0, 3, 1, 2)
        x = (x + y * self.gamma.reshape(1, -1, 1, 1)).permute(0, 2, 3, 1)
        x = torch.roll(x, (-2, -2), (1, 2))
        x = x.reshape(-1, 2, 4, 2, 4, 12).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 12)
        q, k, v = self.qkv(x).reshape(-1, 16, 3, 2, 6).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * 0.4) @ k.transpose(-2, -1) + self.bias
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, 12))
        x = x.reshape(-1, 2, 2, 4, 4, 12).permute(0, 1, 3, 2, 4, 5).reshape(-1, 8, 8, 12)
        return self.head(x.mean((1, 2)))


@pytest.mark.parametrize("kind", [Dense, Gated, Windowed])
@pytest.mark.parametrize("recipe", ["fp32", "int8-static"])
def test_other_families_agree_with_the_simulation(
    kind: type[nn.Module], recipe: str, images: Batch, tmp_path: Path
) -> None:
    size = 31 if kind is Gated else 32
    seen = np.ascontiguousarray(images[:, :, :size, :size])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = kind()
    worst, agree = differences(planned_for(net, recipe, seen, size), seen, tmp_path)
    assert worst <= (1e-5 if recipe == "fp32" else 0.06)
    assert agree >= (1.0 if recipe == "fp32" else 0.95)


def test_axes_move_only_where_a_reader_needs_it(images: Batch, tmp_path: Path) -> None:
    file = File(Litert().write(planned_for(Windowed(), "fp32", images), tmp_path).path)
    codes = [file.model.operatorCodes[step.opcodeIndex].builtinCode for step in file.graph.operators]
    assert codes.count(schema.BuiltinOperator.TRANSPOSE) == 6, "windows there and back; q, k, v; heads together"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=5), st.randoms(use_true_random=False), st.data())
def test_reshaping_as_it_lies_is_reshaping(shape: list[int], draw: Any, data: Any) -> None:
    order = tuple(draw.sample(range(len(shape)), len(shape)))
    into, rest = [], math.prod(shape)
    while rest > 1:
        size = data.draw(st.sampled_from([n for n in range(1, rest + 1) if rest % n == 0]))
        into.append(size)
        rest //= size
        if len(into) > 6:
            into.append(rest)
            break
    found = carried_order(shape, order, into)
    if found is None:
        return
    values = np.arange(math.prod(shape)).reshape(shape)
    lying = values.transpose(order).reshape([into[axis] for axis in found])
    assert sorted(found) == list(range(len(into)))
    assert np.array_equal(lying, values.reshape(into).transpose(found))


def test_grids_of_the_plan_move_by_half_their_type() -> None:
    from quantward.targets._litert_file import Grid

    spec = QuantSpec("activation", 4, False, scheme="affine", scale=np.float32(0.1), zero_point=np.int32(5))
    grid = Grid.of(spec)
    assert (grid.zero, grid.low, grid.top) == (-123, -128, -113)
    assert grid.top - grid.low == spec.high - spec.low
