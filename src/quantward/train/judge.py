"""How good a net is after an epoch, in numbers and in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from quantward.train.batches import Batches
from quantward.train.team import ALONE, Team


@torch.inference_mode()
def evaluate(net: Any, batches: Batches, device: torch.device | str = "cpu", team: Team = ALONE) -> dict[str, float]:
    """Cross-entropy, accuracy and balanced accuracy (mean of the classes' sensitivities) of a net in eval mode.

    Classes without an image are left out of the mean. Each process of a `team` runs its share of every batch.
    """
    classes = int(np.max(batches.labels)) + 1
    loss = torch.zeros(1, dtype=torch.float64, device=device)
    right, count = torch.zeros(classes, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)
    for batch in batches.epoch(device=device, part=team.part):
        if not len(batch.labels):
            continue
        logits = net(batch.inputs).float()
        loss += nn.functional.cross_entropy(logits, batch.labels, reduction="sum")
        labels, hits = batch.labels.cpu(), (logits.argmax(1) == batch.labels).double().cpu()
        right.index_add_(0, labels, hits)
        count.index_add_(0, labels, torch.ones_like(hits))
    told = team.sum(torch.cat((loss, right.to(device), count.to(device)))).cpu()
    loss, right, count = told[:1], told[1 : 1 + classes], told[1 + classes :]
    seen = count > 0
    return {
        "loss": float(loss) / float(count.sum()),
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
