"""Every recipe with every target: a file that its runtimes open, that computes what was planned and is as small as it
says, or one sentence that says why not. New recipes and targets join by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from quantward.audit.size import size
from quantward.core.contracts import Batch, Context
from quantward.core.errors import Unsupported
from quantward.core.registry import Registry
from quantward.core.store import write_json
from quantward.core.values import Plan, Variant
from quantward.graph.walk import layers

torch = pytest.importorskip("torch")

RECIPES = Registry("recipe", "quantward.quantize.recipes")
TARGETS = Registry("target", "quantward.targets")
RUNTIMES = Registry("runtime", "quantward.runtimes")

OPTIONS = {"mixed": "table={table}", "qat": "epochs=1,batch=16,augment=none"}
"""What a recipe cannot do without, or would take too long without."""

SPELLED = [f"{name}:{OPTIONS[name]}" if name in OPTIONS else name for name in RECIPES.names()]
FURTHER = [
    "int8-static:reduce_range=true",
    "int8-static:placement=readers",
    "int8-static:placement=joint",
    "int8-static:keep=stem+head",
    "low-bit:weights=3,activations=4",
    "low-bit:weights=2,activations=2,ends=5,depthwise=2",
    "int4-weights:method=hqq,group=5,rounding=nearest",
    "int4-weights:method=rtn,scheme=symmetric,bits=2,ends=6,keep=head",
    "int16x8:keep=stem",
]


@dataclass(frozen=True)
class Taught:
    """How the few steps of `Teacher` went."""

    rows: tuple[Mapping[str, float], ...] = ()
    best_epoch: int = 0
    ended: str = "two steps"


class Teacher:
    """A training of two steps: enough for a recipe that learns to give a Plan of its own."""

    images = 32
    taught: ClassVar[dict[str, Any]] = {}

    def lesson(self) -> None:
        """Plain cross-entropy."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __call__(self, net: Any, loss: Any, *, groups: Any, lr: float, **_: Any) -> Taught:
        shares = [{"params": group["params"], "lr": lr * group.get("share", 1.0)} for group in groups]
        optimizer = torch.optim.SGD([group for group in shares if group["params"]])
        inputs = torch.from_numpy(self.batch)
        batch = type("Labelled", (), {"inputs": inputs, "labels": torch.arange(len(inputs)) % 4})()
        for _ in range(2):
            optimizer.zero_grad()
            sum(loss(net, batch).values()).backward()
            optimizer.step()
        net.eval()
        return Taught()


@pytest.fixture(scope="module")
def plans(small_plan: Plan, images: Batch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Recipe spelling -> Plan of the small network, made once."""
    table = tmp_path_factory.mktemp("mixed") / "bits.json"
    widths = ("w8a8", "w4a8", "w3a4", "w2a2")
    names = [layer.name for layer in layers(small_plan.program)]
    write_json(table, {"layers": {name: widths[i % 4] for i, name in enumerate(names)}})
    context = Context(images=lambda n: iter([images[:32], images[32:]]), fit=Teacher(images[:16]))
    made: dict[str, Plan] = {}

    def plan(text: str) -> Plan:
        if text not in made:
            made[text] = RECIPES.make(text.format(table=table)).plan(small_plan, context)
        return made[text]

    return plan


def written(target: str, plan: Plan, folder: Path) -> Variant | None:
    """The file, or None where the target refused with a sentence."""
    try:
        return TARGETS.make(target).write(plan, folder)
    except Unsupported as refusal:
        text = str(refusal)
        assert text.startswith("Expected ") and "; " in text and text.endswith("."), text
        assert "\n" not in text
        assert not list(folder.iterdir()), "a refusal leaves nothing behind"
        return None


def runtime_of(variant: Variant) -> Any:
    """The first runtime at hand that reads the file."""
    for name in ("onnxruntime", *RUNTIMES.names()):
        runtime = RUNTIMES.make(name)
        if variant.format in runtime.formats and not runtime.missing():
            return runtime
    pytest.skip(f"no runtime for {variant.format} files is installed")


def one_step(plan: Plan) -> float:
    """How far a logit may be off, as a share of their spread: OpenVINO adds in another order, so that a value between
    two integers may become the other one, and with few bits that is a large step."""
    narrowest = min([spec.bits for spec in plan.tensors.values() if spec.kind == "activation"], default=16)
    return 0.3 if narrowest < 4 else 0.1


@pytest.mark.parametrize("target", TARGETS.names())
@pytest.mark.parametrize("recipe", [*SPELLED, *FURTHER])
def test_every_pair_writes_an_honest_file_or_says_why_not(
    recipe: str, target: str, plans: Any, images: Batch, tmp_path: Path
) -> None:
    from quantward.graph.simulate import simulate

    plan = plans(recipe)
    variant = written(target, plan, tmp_path)
    if variant is None:
        return
    runtime = runtime_of(variant)
    got = runtime.open(variant, 1)(images)
    with torch.no_grad():
        expected = simulate(plan)(torch.from_numpy(images)).numpy()
    spread = float(np.ptp(expected))
    floats = all(spec.kind != "activation" for spec in plan.tensors.values())
    assert np.mean(got.argmax(1) == expected.argmax(1)) >= (1.0 if floats else 0.98)
    near = 0.05 if variant.format in ("onnx", "plan") else one_step(plan)
    assert np.abs(got - expected).max() <= (1e-5 if floats else near) * spread
    found = size(plan, variant)
    assert found.honest, f"kept in float32: {found.kept_float}"
    if found.stored is not None and found.stored_as is not None:
        assert sum(found.stored_as.values()) == len(plan.weights)
        assert variant.bytes >= found.stored


@pytest.mark.parametrize("recipe", [text for text in (*SPELLED, *FURTHER) if not text.startswith("int8-dynamic")])
def test_openvino_says_the_same_of_every_onnx_file(recipe: str, plans: Any, images: Batch, tmp_path: Path) -> None:
    from quantward.graph.simulate import simulate
    from quantward.runtimes.openvino import Openvino
    from quantward.targets.onnx_cpu import OnnxCpu

    if missing := Openvino().missing():
        pytest.skip(missing)
    plan = plans(recipe)
    got = Openvino().open(OnnxCpu().write(plan, tmp_path), 1)(images)
    with torch.no_grad():
        expected = simulate(plan)(torch.from_numpy(images)).numpy()
    spread = float(np.ptp(expected))
    assert np.mean(got.argmax(1) == expected.argmax(1)) >= 0.95
    assert np.abs(got - expected).mean() <= 0.01 * spread
    assert np.abs(got - expected).max() <= one_step(plan) * spread


def test_the_target_simulation_takes_every_recipe(plans: Any, tmp_path: Path) -> None:
    for number, recipe in enumerate(SPELLED):
        assert written("simulation", plans(recipe), tmp_path / str(number)) is not None
