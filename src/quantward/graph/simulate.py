"""Fake quantization: a Plan run in float arithmetic with every stored tensor rounded as the deployed file rounds it.

Integer runtimes add exact integers and rescale once; float32 reproduces that up to the rounding of ties, so the
simulation and the file agree on nearly every stored integer. What is left is measured by the audit, not assumed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from quantward.core.values import Plan, QuantSpec
from quantward.graph.network import Network
from quantward.graph.stored import stored_weight
from quantward.graph.walk import input_key


def round_to_grid(x: Tensor, spec: QuantSpec) -> Tensor:
    """The nearest stored value: (clip(round(x / s) + z, low, high) - z) s, ties to even (ONNX QuantizeLinear).

    Float16 specs round to half precision. Gradients pass straight through where x is inside the grid's range.
    """
    if spec.format == "float16":
        return x + (x.half().to(x.dtype) - x).detach()
    if spec.dynamic:
        scale, zero = dynamic_grid(x, spec)
    else:
        scale, zero = grid(spec, x)
    inside = torch.clamp(x, (spec.low - zero) * scale, (spec.high - zero) * scale)
    stored = torch.clamp(torch.round(x / scale) + zero, spec.low, spec.high)
    return inside + ((stored - zero) * scale - inside).detach()


def grid(spec: QuantSpec, like: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point as float tensors that broadcast against `like`."""
    scale = torch.as_tensor(np.asarray(spec.scale, np.float32), device=like.device)
    zero = torch.as_tensor(np.asarray(spec.zero_point, np.float32), device=like.device)
    if spec.axis is None:
        return scale, zero
    shape = [1] * like.dim()
    shape[spec.axis] = -1
    return scale.reshape(shape), zero.reshape(shape)


def dynamic_grid(x: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """The affine grid of ONNX DynamicQuantizeLinear, one for each image: range of x including 0, over 255 steps."""
    dims = tuple(range(1, x.dim()))
    low = x.amin(dims, keepdim=True).clamp(max=0.0)
    high = x.amax(dims, keepdim=True).clamp(min=0.0)
    scale = (high - low) / (spec.high - spec.low)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.clamp(torch.round(spec.low - low / scale), spec.low, spec.high)
    return scale, zero


def simulate(plan: Plan) -> Network:
    """The Plan as a network that rounds weights, biases and activations as its specs say."""
    specs = plan.tensors
    stored = {
        name: torch.from_numpy(stored_weight(plan.weights[name], spec))
        for name, spec in specs.items()
        if spec.kind != "activation"
    }

    def on_weight(name: str, tensor: Tensor) -> Tensor:
        return stored.get(name, tensor)

    def on_output(name: str, tensor: Tensor) -> Tensor:
        spec = specs.get(name)
        return tensor if spec is None or spec.kind != "activation" else round_to_grid(tensor, spec)

    def on_input(name: str, tensor: Tensor) -> Tensor:
        spec = specs.get(input_key(name))
        return tensor if spec is None else round_to_grid(tensor, spec)

    return Network(plan, on_weight, on_output, on_input)
