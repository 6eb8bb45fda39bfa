"""How good a net is after an epoch, in numbers and in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from quantward.train.batches import Batches


@torch.inference_mode()
def evaluate(net: Any, batches: Batches, device: torch.device | str = "cpu") -> dict[str, float]:
    """Cross-entropy, accuracy and balanced accuracy (mean of the classes' sensitivities) of a net in eval mode.

    Classes without an image are left out of the mean.
    """
    loss, right, count = 0.0, torch.zeros(0), torch.zeros(0)
    for batch in batches.epoch(device=device):
        logits = net(batch.inputs).float()
        if not len(count):
            right, count = torch.zeros(logits.shape[1]), torch.zeros(logits.shape[1])
        loss += float(nn.functional.cross_entropy(logits, batch.labels, reduction="sum"))
        labels, hits = batch.labels.cpu(), (logits.argmax(1) == batch.labels).float().cpu()
        right.index_add_(0, labels, hits)
        count.index_add_(0, labels, torch.ones_like(hits))
    seen = count > 0
    return {
        "loss": loss / float(count.sum()),
        "accuracy": float(right.sum() / count.sum()),
        "balanced_accuracy": float((right[seen] / count[seen]).mean()),
    }


def describe(row: Mapping[str, float], epochs: int) -> str:
    """One epoch in one line.

    >>> describe({"epoch": 2, "train_loss": 0.5, "tune_accuracy": 0.914, "rate": 1e-3, "seconds": 90.0}, 8)
    'epoch 2/8: train loss 0.500, tune accuracy 0.914, rate 0.001, 1 min 30 s'
    """
    figures = [f"{key.replace('_', ' ')} {value:.3f}" for key, value in row.items() if key[:5] in ("train", "tune_")]
    return f"epoch {row['epoch']:.0f}/{epochs}: {', '.join(figures)}, rate {row['rate']:.2g}, {minutes(row['seconds'])}"


def minutes(seconds: float) -> str:
    """A duration for people.

    >>> minutes(42), minutes(90), minutes(4000)
    ('42 s', '1 min 30 s', '1 h 7 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {round(whole % 3600 / 60)} min"
