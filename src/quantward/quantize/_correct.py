"""Bias correction: rounding shifts the mean of every channel a little; the shift is measured and taken out of the bias.

Nagel et al., "Data-free quantization", ICCV 2019, section 4.2, in its empirical form. Layers are corrected in order
within a single pass over one large batch: each sees inputs whose own shift has already been taken out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from quantward.core.contracts import Batch
from quantward.core.values import FloatArray, Plan, QuantSpec
from quantward.graph.network import Network
from quantward.graph.simulate import simulate
from quantward.graph.walk import bias_of, layers, output_axis
from quantward.quantize._subset import evenly

IMAGES = 96
"""Images in the one large batch; the mean of a channel is over these times its positions."""


def correct_biases(reference: Plan, plan: Plan, tensors: Mapping[str, QuantSpec], batches: Iterable[Batch]) -> Plan:
    """`plan` with biases changed so that, under `tensors`, each layer's mean output is that of the float `reference`.

    E[y_float] - E[y_quantized] per output channel is added to the bias of every layer that has one.
    """
    images = torch.from_numpy(evenly(batches, IMAGES))
    biased = {layer.name: bias for layer in layers(plan.program) if (bias := bias_of(layer)) is not None}
    axes = {layer.name: output_axis(layer) for layer in layers(plan.program)}
    means: dict[str, Tensor] = {}

    def remember(name: str, tensor: Tensor) -> Tensor:
        if name in biased:
            means[name] = _channel_mean(tensor, axes[name])
        return tensor

    shifts: dict[str, Tensor] = {}
    without_biases = {name: spec for name, spec in tensors.items() if spec.kind != "bias"}
    rounded = simulate(replace(plan, tensors=without_biases))
    round_output = rounded.on_output
    assert round_output is not None

    def take_out(name: str, tensor: Tensor) -> Tensor:
        if name in biased:
            shifts[name] = means[name] - _channel_mean(tensor, axes[name])
            tensor = tensor + shifts[name].reshape(-1, *([1] * (tensor.dim() - 2 if axes[name] == 1 else 0)))
        return round_output(name, tensor)

    rounded.on_output = take_out
    with torch.inference_mode():
        Network(reference, on_output=remember).eval()(images)
        rounded.eval()(images)
    changed: dict[str, FloatArray] = {
        bias: (plan.weights[bias] + shifts[name].numpy()).astype(np.float32) for name, bias in biased.items()
    }
    return replace(plan, weights={**plan.weights, **changed})


def _channel_mean(tensor: Tensor, axis: int) -> Tensor:
    """Mean over everything but the channel, which is axis 1 of a convolution's output, the last of a linear layer's."""
    return tensor.mean([d for d in range(tensor.dim()) if d != axis % tensor.dim()])
