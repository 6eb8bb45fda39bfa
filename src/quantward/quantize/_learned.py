"""A network that trains with its rounding in place: learned step sizes (LSQ) or learned clipping (PACT).

Everything is plain autograd over the same `Network` that calibration and export use, so second derivatives and
Grad-CAM work. In training mode values are rounded by the functions below; in evaluation mode the network *is* the
simulation of the Plan it would become now (`settled`), so what early stopping judges is what is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from quantward.core.values import FloatArray, Node, Plan, QuantSpec
from quantward.graph.network import Network
from quantward.graph.simulate import simulate
from quantward.graph.walk import LAYER_NORM, LAYERS, bias_of, input_key, inputs_of, layers, weight_of
from quantward.quantize._norm import folding
from quantward.quantize._placement import FUSED, PASSING, quantized_outputs
from quantward.quantize._specs import TINY, bias_specs

Method = Literal["lsq", "pact"]
Range = tuple[float, float]
OPEN: Range = (-math.inf, math.inf)
NORMS = (LAYER_NORM, "aten.batch_norm.default", "aten.group_norm.default")


def lsq(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """Learned step size: s round(clip(x / s, low, high)), differentiable in x and s.

    dy/dx = 1 inside the clip, 0 outside; dy/ds = round(x / s) - x / s inside, low or high outside. Esser et al.,
    "Learned step size quantization", ICLR 2020, eq. 1 to 3. `step` broadcasts against x; the paper's gradient scale
    1 / sqrt(N high), for N values a step, is put on it by the caller (`scaled_gradient`).

    >>> s = torch.tensor(1.0, requires_grad=True)
    >>> y = lsq(torch.tensor([0.4, 1.7, 9.0]), s, -3, 3)
    >>> y.tolist(), round(torch.autograd.grad(y.sum(), s)[0].item(), 4)
    ([0.0, 2.0, 3.0], 2.9)
    """
    ratio = torch.clamp(x / step, low, high)
    return (ratio + (ratio.round() - ratio).detach()) * step


def scaled_gradient(value: Tensor, share: float) -> Tensor:
    """The same value, with its gradient multiplied by `share`."""
    part = value * share
    return (value - part).detach() + part


def rounded(x: Tensor, step: Tensor, now: float, low: int, high: int, method: Method, within: Range = OPEN) -> Tensor:
    """An activation on the grid {low s, ..., high s} with one learned step for the whole tensor; `now` is its value.

    `lsq`: the function `lsq`. `pact`: y = s round(clip(x, low s, high s) / s), straight through, where only clipped
    values move the range: dy/ds = low or high outside, 0 inside; with low = 0 and alpha = high s that is dy/dalpha = 1
    for x > alpha (Choi et al., "PACT", 2018, eq. 3; there z = 0, here the zero point stays where calibration put it).

    x is first clamped to `within`: a ReLU before the quantizer is one pass with its clipping. Activations are where
    time goes, so this makes three new tensors and works in place on them: y is the clipped x, plus a constant, plus a
    term (s - s) c / s that is zero and has the gradient c / s.
    """
    clipped = nn.functional.hardtanh(x, max(low * now, within[0]), min(high * now, within[1]))
    with torch.no_grad():
        error = torch.div(clipped, now).round_().mul_(now).sub_(clipped)
        slope = _edges(clipped, low * now, high * now)
    y = clipped.add_(error)
    if method == "lsq":
        slope = error.add_(slope)
    return y.addcmul_((step - step.detach()) / now, slope)


def _edges(clipped: Tensor, bottom: float, top: float) -> Tensor:
    """`clipped` where it lies on the edge of its range, 0 inside. A threshold is the one pass that does this."""
    top32, bottom32 = np.float32(top), np.float32(bottom)
    edges = nn.functional.threshold(clipped, float(np.nextafter(top32, np.float32(-np.inf))), 0.0)
    if bottom < 0:
        edges.sub_(nn.functional.threshold(-clipped, float(np.nextafter(-bottom32, np.float32(-np.inf))), 0.0))
    return edges


class Learned(nn.Module):
    """A Plan with calibrated specs as a network to train; `norms` are live behind the layers they are named after.

    `freeze_at` is the number of training steps after which their statistics stand still (None: never). Steps are kept
    as logarithms: they stay positive, and one learning rate moves large and small ones by the same share.
    """

    def __init__(
        self,
        plan: Plan,
        method: Method = "lsq",
        norms: Mapping[str, nn.BatchNorm2d] | None = None,
        freeze_at: int | None = None,
    ) -> None:
        super().__init__()
        self.start, self.method, self.freeze_at = plan, method, freeze_at
        self.norms = nn.ModuleDict({_key(name): norm for name, norm in (norms or {}).items()})
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.weight_specs = {name: s for name, s in plan.tensors.items() if s.kind == "weight"}
        self.weight_steps = nn.ParameterDict()
        for name, spec in self.weight_specs.items():
            step = _shaped(torch.from_numpy(np.array(spec.scale, np.float32)), spec, plan.weights[name])
            if method == "pact":
                step = step / _mean_size(torch.from_numpy(plan.weights[name]), spec).clamp(min=TINY)
            self.weight_steps[_key(name)] = nn.Parameter(step.log(), requires_grad=method == "lsq")
        self.groups = grids(plan)
        self.grids = {key: plan.tensors[names[0]] for key, names in self.groups.items()}
        self.place = {name: number for number, names in enumerate(self.groups.values()) for name in names}
        self.idle = _idle(plan, self.place)
        self.clamps = {node.name: _clamp(node) for node in plan.program if node.op in FUSED and node.name in self.place}
        program = tuple(replace(n, op="aten.alias.default", args=n.args[:1]) if n.name in self.clamps else n
                        for n in plan.program)  # fmt: skip
        self.network = Network(replace(plan, program=program), self._on_weight, self._on_output, self._on_input)
        scales = [float(spec.scale) for spec in self.grids.values()]
        self.steps = nn.Parameter(torch.tensor(scales, dtype=torch.float32).log())
        self.shares: dict[str, float] = {}
        self.ranges = [(s.low - int(s.zero_point), s.high - int(s.zero_point)) for s in self.grids.values()]
        self._steps: Tensor | None = None
        self._now: list[float] = []
        self._simulation: list[Network] = []
        self._choose_trainable()

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, size, size) -> logits (n, classes)."""
        if not self.training:
            return self._simulated(images)
        seen: Tensor = self.get_buffer("seen")
        if self.freeze_at is not None and int(seen) >= self.freeze_at:
            self.norms.eval()
        seen += 1
        self._steps = self.steps.exp()
        self._now = self._steps.tolist()
        logits: Tensor = self.network(images)
        return logits

    def train(self, mode: bool = True) -> Learned:
        """Training or evaluation mode; the latter forgets what it simulated, as weights may have moved."""
        self._simulation.clear()
        super().train(mode)
        return self

    def load_state_dict(self, *given: Any, **named: Any) -> Any:
        """As torch does it; what was simulated before is forgotten."""
        self._simulation.clear()
        return super().load_state_dict(*given, **named)

    def tops(self) -> Tensor:
        """The larger end |alpha| of every activation's range, (activations,), for PACT's penalty."""
        reach = [max(high, -low) for low, high in self.ranges]
        return self.steps.exp() * torch.tensor(reach, dtype=torch.float32, device=self.steps.device)

    def parameter_groups(self, share: float) -> list[dict[str, Any]]:
        """Weights (decayed), biases and normalisation (not decayed), and steps at `share` times the rate."""
        steps = {id(p) for p in (self.steps, *self.weight_steps.values())}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in steps]
        learned = [p for p in (self.steps, *self.weight_steps.values()) if p.requires_grad]
        return [
            {"params": [p for p in rest if p.ndim > 1]},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            {"params": learned, "weight_decay": 0.0, "share": share},
        ]

    def settled(self) -> Plan:
        """The Plan that this network is now: weights on their grids, norms folded, learned scales, int32 biases."""
        weights, tensors = self._folded(), dict(self.start.tensors)
        scales = self.steps.detach().cpu().exp().numpy()
        for number, names in enumerate(self.groups.values()):
            for name in names:
                spec = tensors[name]
                tensors[name] = replace(spec, scale=np.asarray(scales[number], np.float32), source=_told(spec))
        for layer in layers(self.start.program):
            name = weight_of(layer)
            if name not in self.weight_specs:
                continue
            spec, latent = self.weight_specs[name], self.network.weight(name).detach()
            step = self._weight_step(name, latent).detach()
            whole = torch.clamp(torch.round(latent / step), spec.low, spec.high).cpu().double().numpy()
            factor = _spread(self._factor(layer.name), whole) if spec.axis is not None else np.ones(())
            scale = np.maximum(step.cpu().double().numpy() * np.abs(factor), TINY).astype(np.float32)
            weights[name] = (whole * np.sign(factor) * scale).astype(np.float32)
            scale = scale.reshape(-1) if spec.axis is not None else scale.reshape(())
            tensors[name] = replace(spec, scale=scale, source=_told(spec))
        plan = replace(self.start, weights=weights, tensors={n: s for n, s in tensors.items() if s.kind != "bias"})
        return replace(plan, tensors={**plan.tensors, **bias_specs(plan, dict(plan.tensors))})

    def latent(self) -> Plan:
        """The float Plan behind the rounding, norms folded: where a training with fewer bits goes on."""
        weights = self._folded()
        for layer in layers(self.start.program):
            name = weight_of(layer)
            weights[name] = (weights[name] * _spread(self._factor(layer.name), weights[name])).astype(np.float32)
        return replace(self.start, weights=weights, tensors={})

    def _folded(self) -> dict[str, FloatArray]:
        """All weights as they are, but biases with the norms behind their layers folded in: b' = f b + t."""
        weights = {name: self.network.weight(name).detach().cpu().numpy().copy() for name in self.start.weights}
        for layer in layers(self.start.program):
            bias = bias_of(layer)
            if bias is not None and _key(layer.name) in self.norms:
                factor, shift = folding(self._norm(layer.name))
                weights[bias] = (weights[bias].astype(np.float64) * factor + shift).astype(np.float32)
        return weights

    def _factor(self, layer: str) -> FloatArray:
        return folding(self._norm(layer))[0] if _key(layer) in self.norms else np.ones(1)

    def _norm(self, layer: str) -> nn.BatchNorm2d:
        norm = self.norms[_key(layer)]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    def _weight_step(self, name: str, tensor: Tensor) -> Tensor:
        """The step of each row: learned under LSQ; under PACT a fixed multiple of the row's mean |w|."""
        step: Tensor = self.weight_steps[_key(name)].exp()
        return step if self.method == "lsq" else step * _mean_size(tensor, self.weight_specs[name]).clamp(min=TINY)

    def _on_weight(self, name: str, tensor: Tensor) -> Tensor:
        spec = self.weight_specs.get(name)
        if spec is None:
            return tensor
        step = self._weight_step(name, tensor.detach())
        if self.method == "pact":
            with torch.no_grad():
                error = torch.clamp(torch.round(tensor / step), spec.low, spec.high) * step - tensor
            return tensor + error
        values = tensor.numel() / step.numel()
        return lsq(tensor, scaled_gradient(step, (values * spec.high) ** -0.5), spec.low, spec.high)

    def _on_output(self, name: str, tensor: Tensor) -> Tensor:
        if _key(name) in self.norms:
            tensor = self.norms[_key(name)](tensor)
        return tensor if name in self.idle else self._on_grid(name, tensor)

    def _on_input(self, name: str, tensor: Tensor) -> Tensor:
        return self._on_grid(input_key(name), tensor)

    def _on_grid(self, name: str, x: Tensor) -> Tensor:
        number = self.place.get(name)
        if number is None:
            return x
        assert self._steps is not None
        (low, high), step = self.ranges[number], self._steps[number]
        if self.method == "lsq":
            step = scaled_gradient(step, (x[0].numel() * max(high, -low)) ** -0.5)
        return rounded(x, step, self._now[number], low, high, self.method, self.clamps.get(name, OPEN))

    def _simulated(self, images: Tensor) -> Tensor:
        if not self._simulation:
            with torch.inference_mode(False):
                self._simulation.append(_on_device(simulate(self.settled()), images.device))
        logits: Tensor = self._simulation[0](images)
        return logits

    def _choose_trainable(self) -> None:
        """Weights and biases of layers and normalisations; masks, tables and statistics in the Plan stay as they are.
        A bias before a live normalisation is taken out again by it."""
        chosen: set[str] = set()
        for node in self.start.program:
            if node.op in LAYERS:
                chosen.add(weight_of(node))
                bias = bias_of(node)
                if bias is not None and _key(node.name) not in self.norms:
                    chosen.add(bias)
            elif node.op in NORMS:
                places = node.args[1:3] if node.op == "aten.batch_norm.default" else node.args[2:4]
                chosen.update(item["weight"] for item in places if isinstance(item, dict) and "weight" in item)
        for name, key in self.network.keys.items():
            tensor = getattr(self.network, key)
            if isinstance(tensor, nn.Parameter):
                tensor.requires_grad_(name in chosen)


def grids(plan: Plan) -> dict[str, list[str]]:
    """The activation specs that are one grid in the deployed file: behind operators that only move values, and what
    several layers read of one tensor in the same bits. Name of the first -> all names."""
    origin = quantized_outputs(plan.program)
    by_key: dict[tuple[str, int], list[str]] = {}
    reads = {input_key(layer.name): layer.args[0]["node"] for layer in layers(plan.program)}
    for name, spec in plan.tensors.items():
        if spec.kind == "activation" and not spec.dynamic and spec.format == "integer":
            tensor = reads.get(name, name)
            by_key.setdefault((origin.get(tensor, tensor), spec.bits), []).append(name)
    return {names[0]: names for names in by_key.values()}


def _idle(plan: Plan, place: Mapping[str, int]) -> set[str]:
    """Quantizers that would find their input already on their own grid."""
    return {
        node.name
        for node in plan.program
        if node.op in PASSING and node.name in place and place[node.name] == place.get(inputs_of(node)[0])
    }


def _clamp(node: Node) -> Range:
    """What a ReLU, ReLU6 or hardtanh keeps of its input."""
    if node.op == "aten.hardtanh.default":
        given = [float(item) for item in node.args[1:]]
        return given[0] if given else -1.0, given[1] if len(given) > 1 else 1.0
    return 0.0, 6.0 if node.op == "aten.relu6.default" else math.inf


def _key(name: str) -> str:
    return name.replace(".", "/")


def _told(spec: QuantSpec) -> str:
    return f"learned from {spec.source}"


def _shaped(step: Tensor, spec: QuantSpec, weight: FloatArray) -> Tensor:
    return step if spec.axis is None else step.reshape(-1, *([1] * (weight.ndim - 1)))


def _mean_size(weight: Tensor, spec: QuantSpec) -> Tensor:
    """Mean |w|, of each row or of the whole."""
    sizes = weight.abs()
    return sizes.mean() if spec.axis is None else sizes.mean(tuple(range(1, weight.dim())), keepdim=True)


def _spread(factor: FloatArray, weight: Any) -> FloatArray:
    return factor.reshape(-1, *([1] * (weight.ndim - 1)))


def _on_device(network: Network, device: torch.device) -> Network:
    """A simulation on another device: its stored weights come from its hook and not from its parameters."""
    if device.type == "cpu":
        return network.eval()
    stored, moved = network.on_weight, dict[str, Tensor]()
    assert stored is not None

    def on_weight(name: str, tensor: Tensor) -> Tensor:
        if name not in moved:
            moved[name] = stored(name, tensor).to(device)
        return moved[name]

    network.on_weight = on_weight
    return network.to(device).eval()
