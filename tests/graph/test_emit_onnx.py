"""Every operator that is written as ONNX, against torch's own arithmetic, with one image and with several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from quantward.core.errors import Unsupported  # noqa: E402
from quantward.core.values import Model, Node, Plan, Preprocess  # noqa: E402
from quantward.graph._onnx_emitters import EMITTERS  # noqa: E402
from quantward.graph.capture import capture  # noqa: E402
from quantward.graph.emit_onnx import DOMAIN, emit, emits  # noqa: E402
from quantward.graph.from_onnx import _by_runtime  # noqa: E402
from quantward.graph.network import Network  # noqa: E402

SIDE = 8
Step = Callable[[Tensor, dict[str, Tensor]], Tensor]


class Around(nn.Module):
    """A step on 6 x 8 x 8 features, and the mean of what it makes as four logits."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)
        self.step = step
        for name, shape in {"table": (5, 6), "rows": (6, 6), "line": (6, 6, 1), "gain": (6,), "mask": (64, 64)}.items():
            self.register_parameter(name, nn.Parameter(torch.randn(*shape, generator=draw)))
        self.register_buffer("places", torch.randint(0, 5, (8, 8), generator=draw))
        self.register_buffer("open", torch.rand(64, 64, generator=draw) > 0.3)
        self.register_buffer("chosen", torch.rand(8, 8, generator=draw) > 0.5)
        self.register_buffer("spread", torch.rand(6, generator=draw) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        names = ("table", "rows", "line", "gain", "mask", "places", "open", "chosen", "spread")
        made = self.step(self.stem(x), {name: getattr(self, name) for name in names})
        return self.head(made.reshape(made.shape[0], 6, -1).mean(2))  # type: ignore[no-any-return]


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _back(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


def _attention(x: Tensor, **options: Any) -> Tensor:
    q, k, v = torch.stack([_tokens(x) * factor for factor in (0.5, 2.0, 1.0)]).reshape(3, -1, 64, 2, 3).unbind(0)
    made = F.scaled_dot_product_attention(*(item.transpose(1, 2) for item in (q, k, v)), **options)
    return _back(made.transpose(1, 2).reshape(-1, 64, 6))


def _positions(x: Tensor) -> Tensor:
    """Sine positions as EdgeNeXt and XCiT draw them."""
    inside = ~torch.zeros(x.shape[0], 8, 8).to(torch.bool)
    rows = inside.cumsum(1, dtype=torch.float32)
    steps = 100.0 ** (2 * torch.div(torch.arange(6, dtype=torch.float32), 2, rounding_mode="floor") / 6)
    angle = rows[:, :, :, None] / steps
    waves = torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), 4).flatten(3)
    return x + waves.permute(0, 3, 1, 2)


# fmt: off
STEPS: dict[str, Step] = {
    "batch norm alone": lambda x, w: F.relu(F.batch_norm(F.relu(x), w["gain"] * 0.1, w["spread"], w["gain"])),
    "batch norm of rows": lambda x, w: _back(F.batch_norm((t := _tokens(x)).flatten(0, 1), w["gain"], w["spread"])
                                             .reshape_as(t)),
    "layer norm, gelu": lambda x, w: _back(F.gelu(F.layer_norm(_tokens(x), (6,), w["gain"]), approximate="tanh")),
    "layer norm, bare": lambda x, w: _back(F.gelu(F.layer_norm(_tokens(x), (6,)))),
    "group norm": lambda x, w: F.group_norm(x, 3) + F.group_norm(x, 2, w["gain"], w["gain"]),
    "linear over tokens": lambda x, w: _back(F.linear(_tokens(x), w["rows"], w["gain"])),
    "conv1d": lambda x, w: F.conv1d(x.flatten(2), w["line"], w["gain"]),
    "attention": lambda x, w: _attention(x),
    "attention, scaled": lambda x, w: _attention(x, scale=0.3),
    "attention, masked": lambda x, w: _attention(x, attn_mask=w["mask"]),
    "attention, closed": lambda x, w: _attention(x, attn_mask=w["open"]),
    "windows": lambda x, w: x.reshape(-1, 6, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 6, 16).softmax(-1)
    .reshape(x.shape[0], 2, 2, 6, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(-1, 6, 8, 8) * x,
    "roll": lambda x, w: x * x.roll((-3, 2), (2, 3)) + x.roll(8, 2),
    "position table": lambda x, w:
    x + w["table"][w["places"].reshape(-1)].reshape(8, 8, 6).permute(2, 0, 1).unsqueeze(0),
    "position columns": lambda x, w: x * w["table"].t()[:, w["places"]],
    "class token": lambda x, w:
    _back(torch.cat((w["gain"][None, None].expand(x.shape[0], -1, -1), _tokens(x)), 1))[:, :, :1],
    "repeated token": lambda x, w: _back(torch.cat((w["table"][None].repeat(x.shape[0], 1, 1), _tokens(x)), 1)),
    "positions": lambda x, w: _positions(x),
    "normalised": lambda x, w: F.normalize(x, dim=1) + F.normalize(x.flatten(2), p=1.0, dim=-1).reshape_as(x),
    "expanded alone": lambda x, w: x.mean((2, 3), keepdim=True).expand_as(x).flatten(2) * x.flatten(2),
    "chunk": lambda x, w: torch.cat(x.flatten(1).reshape(x.shape[0], 6, 64).chunk(5, 2)[1:], 2),
    "split": lambda x, w: torch.cat([part.relu() for part in x.split((1, 3, 2), 1)][::-1], 1),
    "split evenly": lambda x, w: torch.cat([part.tanh() for part in x.split(4, 1)], 1),
    "upsampled": lambda x, w: F.interpolate(x, size=(16, 24), mode="bilinear"),
    "upsampled oddly": lambda x, w: F.interpolate(x, size=(11, 5), mode="bilinear", align_corners=True),
    "upsampled by bicubic": lambda x, w: F.interpolate(x, size=(16, 16), mode="bicubic"),
    "upsampled by factor": lambda x, w: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "pooled to many": lambda x, w: F.adaptive_avg_pool2d(x, (4, 2)),
    "pads": lambda x, w:
    F.pad(F.pad(x, (0, 0, 0, 0)), (1, 2, 0, 1), value=0.5) + F.pad(x, (1, 2, 1, 0), mode="reflect"),
    "clamps": lambda x, w: x.clamp(min=-0.5) + x.clamp(max=0.5) + x.clamp_min(0.1) + F.hardtanh(x),
    "arithmetic": lambda x, w:
    torch.add(x, x.abs(), alpha=2) + (1 - x) + torch.sub(x, 2.0, alpha=0.5) + x.square().add(1)
    .rsqrt(),
    "shapes": lambda x, w:
    x.mean(3, keepdim=True).squeeze(3).unflatten(1, (2, -1)).flatten(1, 2) + x.squeeze(1).amax(2),
    "einsum": lambda x, w: torch.einsum("nchw,cd->ndhw", x, w["rows"]) + x.select(2, -1).unsqueeze(2),
    "where": lambda x, w: torch.where(w["chosen"][None, None], x, x * 0.5),
    "every other": lambda x, w: x[:, :, ::2, 1:7:3],
    "bmm": lambda x, w: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)),
}
# fmt: on


def traced(step: Step) -> Plan:
    torch.manual_seed(0)
    preprocess = Preprocess(size=SIDE, resize=SIDE)
    return capture(Model("step", Around(step).eval(), preprocess, tuple("abcd")))


@pytest.mark.parametrize("name", STEPS)
def test_the_file_computes_what_torch_computes(name: str) -> None:
    plan = traced(STEPS[name])
    run = _by_runtime(plan)
    for count in (1, 3):
        images = np.random.default_rng(count).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)
        with torch.no_grad():
            expected = Network(plan).eval()(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(run(images), expected, rtol=1e-4, atol=1e-5)


def test_no_arithmetic_on_shapes_is_left_for_the_runtime() -> None:
    model = emit(traced(STEPS["windows"]))
    assert {node.op_type for node in model.graph.node} & {"Shape", "Expand", "Unsqueeze"} == set()
    assert sum(node.op_type == "Reshape" for node in model.graph.node) <= 6


def test_what_moves_nothing_is_left_out() -> None:
    model = emit(traced(lambda x, w: F.pad(x, (0, 0)).roll(8, 2).expand(-1, -1, -1, 8).reshape(-1, 6, 8, 8)[:, 0:]))
    done = [node.op_type for node in model.graph.node if node.domain != DOMAIN]
    assert done == ["Conv", "Reshape", "ReduceMean", "Gemm"]


def test_normalisation_of_vectors_repeats_nothing() -> None:
    model = emit(traced(STEPS["normalised"]))
    assert "Expand" not in {node.op_type for node in model.graph.node}


def test_steps_of_floats_are_marked_and_steps_of_integers_are_not() -> None:
    plan = traced(STEPS["position table"])
    marks = {a.s.decode() for node in emit(plan).graph.node if node.domain == DOMAIN for a in node.attribute}
    floats = {mark.removeprefix("output:") for mark in marks if mark.startswith("output:")}
    looked_up = next(node for node in plan.program if node.op == "aten.index.Tensor")
    assert looked_up.name in floats
    assert looked_up.args[1][0]["node"] not in floats
    assert {"weight:table", "input:stem", "input:head", "output:input"} <= marks


def test_an_unknown_operator_is_refused_by_name(small_plan: Plan) -> None:
    at = next(place for place, node in enumerate(small_plan.program) if node.op == "aten.relu.default")
    known = small_plan.program[at]
    strange = Node(known.name, "aten.cholesky.default", known.args)
    plan = replace(small_plan, program=(*small_plan.program[:at], strange, *small_plan.program[at + 1 :]))
    assert emits(small_plan) and not emits(plan)
    with pytest.raises(Unsupported, match=r"got aten\.cholesky\.default \('act'\)"):
        emit(plan)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda x, w: _attention(x, is_causal=True), "attention between all tokens"),
        (lambda x, w: F.adaptive_avg_pool2d(x, (3, 3)), "windows divide the image"),
        (lambda x, w: torch.div(x, 2.0, rounding_mode="trunc"), "division that rounds down"),
        (lambda x, w: F.normalize(x, p=3.0), "norm of order 1 or 2"),
    ],
)
def test_a_use_that_onnx_lacks_is_refused_in_one_sentence(step: Step, said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        emit(traced(step))


def test_shapes_that_do_not_fit_are_refused(small_plan: Plan) -> None:
    weights = {**small_plan.weights, "head.weight": np.zeros((4, 9), np.float32)}
    with pytest.raises(Unsupported, match="shapes fit each other"):
        emit(replace(small_plan, weights=weights))


def test_the_table_knows_every_operator_that_a_network_may_name() -> None:
    from quantward.graph.network import function

    for op in EMITTERS:
        assert callable(function(op)), op


def test_a_file_with_its_markers_taken_out_is_valid(small_plan: Plan) -> None:
    model = emit(small_plan)
    assert [entry.domain for entry in model.opset_import] == ["", DOMAIN]
    assert {node.op_type for node in model.graph.node} <= {
        "Tap",
        *(schema.name for schema in onnx.defs.get_all_schemas()),
    }
