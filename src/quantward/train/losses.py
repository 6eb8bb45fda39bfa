"""Losses as the loop wants them: a function of the net and a batch that gives its terms by name.

A criterion judges logits, a loss says which logits to ask for. So whatever is done about rare classes is written once
and works under distillation, saliency and quantization alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quantward.core.errors import UsageError
from quantward.train.batches import Batch

Loss = Callable[[Any, Batch], Mapping[str, Tensor]]
"""(net, batch) -> the terms of the loss by name, already weighted; the loop minimises their sum and logs each.

The first call of `net` is with the batch's own inputs, so that a caller can take up those logits. A loss that remembers
something between steps is an `nn.Module`, whose buffers are saved and read with the run."""

Criterion = Callable[[Tensor, Tensor], Tensor]
"""(logits (b, K), labels (b,)) -> one number."""


def criterion(smoothing: float = 0.0, weights: Sequence[float] | None = None, focal: float = 0.0) -> Criterion:
    """Cross-entropy with what helps rare classes: -sum_i (1 - p_iy)^g sum_k t_ik w_k log p_ik / sum_i w_y.

    y is the class of image i, w_k the weight of class k, t_ik = (1 - `smoothing`) [k = y] + `smoothing` / K, and g is
    `focal` (Lin et al., "Focal loss for dense object detection", 2017, eq. 4; there w is alpha). Without options it is
    the mean of -log p_iy. For two classes this is binary cross-entropy on the difference of the two logits, as the
    softmax of (a, b) is the sigmoid of b - a.

    Raises UsageError for a smoothing outside [0, 1) or a focal below 0.

    >>> logits, labels = torch.tensor([[0.0, 0.0], [2.0, -2.0]]), torch.tensor([0, 0])
    >>> round(criterion()(logits, labels).item(), 4), round(criterion(focal=2.0)(logits, labels).item(), 4)
    (0.3556, 0.0866)
    """
    if not 0 <= smoothing < 1 or focal < 0:
        raise UsageError(
            f"Expected smoothing of at least 0 and below 1, and focal of at least 0; got {smoothing:g} and {focal:g}. "
            "Choose other values."
        )

    def judge(logits: Tensor, labels: Tensor) -> Tensor:
        logits = wide(logits)
        scales = None if weights is None else torch.tensor(weights, dtype=logits.dtype, device=logits.device)
        if not focal:
            return nn.functional.cross_entropy(logits, labels, weight=scales, label_smoothing=smoothing)
        each = nn.functional.cross_entropy(logits, labels, scales, label_smoothing=smoothing, reduction="none")
        right = logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1).exp()
        # Where p is 1 in float32, a power below 1 has no finite slope.
        each = each * (1.0 - right).clamp(min=torch.finfo(right.dtype).tiny) ** focal
        return each.mean() if scales is None else each.sum() / scales[labels].sum()

    return judge


def classify(judge: Criterion) -> Loss:
    """The plain loss: the criterion on the net's logits, as the term `loss`."""

    def loss(net: Any, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": judge(net(batch.inputs), batch.labels)}

    return loss


def cross_entropy(smoothing: float = 0.0, weights: Sequence[float] | None = None) -> Loss:
    """The usual loss: cross-entropy with label smoothing and class weights."""
    return classify(criterion(smoothing, weights))


def divergence(wanted: Tensor, said: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over images of T^2 KL(softmax(wanted / T) || softmax(said / T)), both given as logits (b, K).

    T^2 keeps the gradient's size while T softens the answer (Hinton et al., 2015, section 2).

    >>> divergence(torch.zeros(1, 2), torch.zeros(1, 2)).item()
    0.0
    """
    log_p, log_q = (wide(logits / temperature).log_softmax(1) for logits in (wanted, said))
    return temperature**2 * nn.functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def wide(logits: Tensor) -> Tensor:
    """Logits in at least float32: half precision has too few digits for a logarithm."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
