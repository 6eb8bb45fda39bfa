"""Batch normalisation for training behind convolutions that have it folded in, and folded exactly back afterwards.

A low-bit network drifts: each rounding changes mean and variance of every channel, and with folded weights only the
slow road through all weights brings them back. A live normalisation does it in every step. It begins as the identity
(its statistics and its affine part are the same measured numbers), and it costs nothing in the file: a per-channel
symmetric grid takes any factor a channel into its scale, and its sign into the integers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from quantward.core.contracts import Batch
from quantward.core.values import FloatArray, Node, Plan
from quantward.graph.network import Network
from quantward.graph.walk import CONV, LAYER_NORM, bias_of, layers


def live_norms(plan: Plan, batches: Iterable[Batch]) -> dict[str, nn.BatchNorm2d]:
    """Layer name -> an identity in evaluation mode, with the statistics of the float network on some images.

    gamma = sqrt(v + eps) and beta = m for mean m and (biased) variance v of each output channel. Convolutions get one
    where they have a bias to fold it into and an output with more than one position: the gates of squeeze-and-excite
    never had one, and a batch is too few values to normalise by. Networks with LayerNorm get none at all.
    """
    places = _places(plan.program)
    found: dict[str, nn.BatchNorm2d] = {}
    for name, (mean, variance) in (_statistics(plan, batches, places) if places else {}).items():
        norm = nn.BatchNorm2d(len(mean))
        assert norm.running_mean is not None and norm.running_var is not None
        with torch.no_grad():
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((norm.running_var + norm.eps).sqrt())
            norm.bias.copy_(norm.running_mean)
        found[name] = norm
    return found


def folding(norm: nn.BatchNorm2d) -> tuple[FloatArray, FloatArray]:
    """What a normalisation does to each channel, y -> f y + t, float64: f = gamma / sqrt(v + eps), t = beta - m f."""
    assert norm.running_mean is not None and norm.running_var is not None
    gamma, beta, mean, variance = (
        tensor.detach().cpu().double().numpy()
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    factor = gamma / np.sqrt(variance + norm.eps)
    return factor, beta - mean * factor


def _places(program: tuple[Node, ...]) -> set[str]:
    if any(node.op == LAYER_NORM for node in program):
        return set()
    return {layer.name for layer in layers(program) if layer.op == CONV and bias_of(layer) is not None}


def _statistics(plan: Plan, batches: Iterable[Batch], places: set[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each channel over images and positions, summed in float64 around the first batch's mean:
    squares of values far from zero would cancel."""
    centres: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def on_output(name: str, tensor: Tensor) -> Tensor:
        if name in places and tensor.dim() == 4 and tensor.shape[2] * tensor.shape[3] > 1:
            rows = tensor.transpose(0, 1).flatten(1).double()
            gap = rows - centres.setdefault(name, rows.mean(1))[:, None]
            sums[name] = sums.get(name, torch.zeros(())) + gap.sum(1)
            squares[name] = squares.get(name, torch.zeros(())) + gap.square().sum(1)
            counts[name] = counts.get(name, 0) + rows.shape[1]
        return tensor

    network = Network(plan, on_output=on_output).eval()
    with torch.inference_mode():
        for batch in batches:
            network(torch.from_numpy(batch))
    shift = {name: total / counts[name] for name, total in sums.items()}
    return {
        name: (centres[name] + shift[name], (squares[name] / counts[name] - shift[name].square()).clamp(min=0.0))
        for name in sums
    }
