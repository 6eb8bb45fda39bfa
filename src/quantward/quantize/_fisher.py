"""How much each layer's rounding will move the probabilities, from gradients of the float network alone.

Near the float network the divergence is a quadratic form, KL(p || p') ~ 1/2 d' F d, with d the change of a layer's
output and F = E[g g'] the Fisher matrix of that output (g = d log p_c / d y, c drawn from p). One forward pass and one
backward pass a class serve every layer and every width at once.

HAWQ (Dong et al., ICCV 2019; trace form in NeurIPS 2020) and FIT (Zandonati et al., 2022) keep the diagonal of F,
sum g^2 d^2, since they know only the size of d. Here d itself is at hand, so the product (g . d)^2 is taken instead,
which costs the same: errors that make up for each other, as adaptive rounding makes them, then count as little as they
cost. The gradient of the divergence itself would not do: it is zero at the float network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quantward.core.contracts import Batch
from quantward.core.progress import Track, silent
from quantward.graph.network import Network
from quantward.graph.walk import weight_of
from quantward.quantize._static import Bits
from quantward.quantize._trials import Ground, Trial, channel_sums, corrected, corrects, output_error

CLASSES = 10
"""Up to so many classes the expectation over c is exact; beyond, so many labels are drawn for each image."""

CHUNK = 4
"""Images whose layer outputs, gradients and errors are held at once."""

Key = tuple[str, Bits]


def fisher(
    ground: Ground, trials: Sequence[Trial], batches: Sequence[Batch], seed: int = 0, track: Track = silent
) -> dict[Key, float]:
    """(layer, width) -> 1/2 E_n E_c (g_nc . d_n)^2, the expected KL divergence in nats to second order.

    `trials` hold one entry for each layer and width; `batches` are the images, (b, 3, size, size). Errors are taken
    after bias correction wherever the recipe corrects.
    """
    by_layer: dict[str, list[Trial]] = {}
    for trial in trials:
        by_layer.setdefault(trial.layer.name, []).append(trial)
    means = _mean_errors(ground, by_layer, batches, track)
    chunks = [batch[start : start + CHUNK] for batch in batches for start in range(0, len(batch), CHUNK)]
    total = {(t.layer.name, t.bits): 0.0 for t in trials}
    draw = torch.Generator().manual_seed(seed)
    watched = _Watched(ground, by_layer)
    for chunk in track(chunks, "Fisher"):
        logs = torch.log_softmax(watched(torch.from_numpy(chunk).requires_grad_()).double(), dim=1)
        names = list(watched.outputs)
        errors = {
            (name, trial.bits): _by_image(
                corrected(trial.layer, watched.error(trial), means.get((name, trial.bits))), len(chunk)
            )
            for name in names
            for trial in by_layer[name]
        }
        labels, shares = _labels(logs.detach().exp(), draw)
        for k in range(labels.shape[1]):
            told = logs.gather(1, labels[:, k : k + 1]).sum()
            gradients = torch.autograd.grad(told, list(watched.outputs.values()), retain_graph=True)
            for name, gradient in zip(names, gradients, strict=True):
                flat = _by_image(gradient, len(chunk))
                for trial in by_layer[name]:
                    along = (flat * errors[name, trial.bits]).sum(1).double()
                    total[name, trial.bits] += 0.5 * float(shares[:, k] @ along.square())
        watched.forget()
    n = sum(len(batch) for batch in batches)
    return {key: value / n for key, value in total.items()}


def _by_image(y: Tensor, images: int) -> Tensor:
    """A layer's outputs as one row an image: windows and patches that a network moved into the batch lie together.

    >>> _by_image(torch.zeros(8, 3, 2), 2).shape
    torch.Size([2, 24])
    """
    return y.reshape(images, -1)


class _Watched:
    """The float network with the input and the output of every layer that is on trial at hand."""

    def __init__(self, ground: Ground, by_layer: dict[str, list[Trial]]) -> None:
        self.wanted = by_layer
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.network = Network(ground.plan, on_output=self._output, on_input=self._input).eval().requires_grad_(False)

    def _input(self, name: str, x: Tensor) -> Tensor:
        if name in self.wanted:
            self.inputs[name] = x.detach()
        return x

    def _output(self, name: str, y: Tensor) -> Tensor:
        if name in self.wanted:
            self.outputs[name] = y
        return y

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def error(self, trial: Trial) -> Tensor:
        """What a trial changes in its layer's output on the images of the last call."""
        with torch.no_grad():
            weight = self.network.weight(weight_of(trial.layer))
            return output_error(trial, weight, self.inputs[trial.layer.name])

    def forget(self) -> None:
        """Let go of the last call's tensors, and with them of its graph."""
        self.inputs, self.outputs = {}, {}


def _mean_errors(
    ground: Ground, by_layer: dict[str, list[Trial]], batches: Sequence[Batch], track: Track
) -> dict[Key, Tensor]:
    """(layer, width) -> mean output error a channel over all images, where bias correction will take it out."""
    sums: dict[Key, Tensor] = {}
    counts: dict[str, int] = {}
    watched = _Watched(ground, by_layer)
    with torch.no_grad():
        for batch in track(batches, "mean errors"):
            watched(torch.from_numpy(batch))
            for name, own in by_layer.items():
                if not corrects(ground, own[0].layer):
                    continue
                for trial in own:
                    added, count = channel_sums(trial.layer, watched.error(trial))
                    sums[name, trial.bits] = sums.get((name, trial.bits), torch.zeros(())) + added
                counts[name] = counts.get(name, 0) + count
            watched.forget()
    return {key: total / counts[key[0]] for key, total in sums.items()}


def _labels(probabilities: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Classes to differentiate for each image, (n, k), and their weights: all with p, or draws with equal ones."""
    n, classes = probabilities.shape
    if classes <= CLASSES:
        return torch.arange(classes).expand(n, classes), probabilities
    drawn = torch.multinomial(probabilities, CLASSES, replacement=True, generator=draw)
    return drawn, torch.full((n, CLASSES), 1.0 / CLASSES, dtype=probabilities.dtype)
