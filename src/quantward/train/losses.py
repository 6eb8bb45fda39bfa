"""Losses as the loop wants them: a function of the net and a batch that gives its terms by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from quantward.train.batches import Batch

Loss = Callable[[Any, Batch], Mapping[str, torch.Tensor]]
"""(net, batch) -> the terms of the loss by name, already weighted; the loop minimises their sum and logs each."""


def cross_entropy(smoothing: float = 0.0, weights: Sequence[float] | None = None) -> Loss:
    """The usual loss: cross-entropy with label smoothing and class weights."""

    def loss(net: Any, batch: Batch) -> Mapping[str, torch.Tensor]:
        logits = net(batch.inputs).float()
        scales = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=logits.device)
        value = nn.functional.cross_entropy(logits, batch.labels, weight=scales, label_smoothing=smoothing)
        return {"loss": value}

    return loss
