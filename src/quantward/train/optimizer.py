"""What moves the weights, and what must be set in a net for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from quantward.train.course import Course


def default_groups(net: nn.Module, course: Course) -> list[dict[str, Any]]:
    """All trainable parameters; under AdamW, biases and normalisation scales are not decayed, under Adam all are."""
    trainable = [p for p in net.parameters() if p.requires_grad]
    if course.optimizer != "adamw":
        return [{"params": trainable}]
    return [
        {"params": [p for p in trainable if p.ndim > 1]},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(course: Course, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer of a Course, in its fused form, which is one pass over the parameters."""
    named = [dict(group) for group in groups if group["params"]]
    if course.optimizer == "sgd":
        decay = course.weight_decay
        return torch.optim.SGD(named, course.lr, momentum=0.9, nesterov=True, weight_decay=decay, fused=True)
    kind = torch.optim.AdamW if course.optimizer == "adamw" else torch.optim.Adam
    return kind(named, course.lr, weight_decay=course.weight_decay, fused=True)


def keep_inputs(net: nn.Module) -> None:
    """Let clipped activations (ReLU6, hard-swish, SiLU) write to a new tensor instead of over their input.

    Their backward pass needs the input, so in place autograd copies it first: one pass over every activation more.
    """
    for module in net.modules():
        if isinstance(module, nn.Hardtanh | nn.Hardswish | nn.SiLU | nn.Hardsigmoid):
            module.inplace = False


def rest_frozen(net: nn.Module) -> None:
    """Keep the statistics of normalisations whose scale and shift are not trained: frozen means frozen."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            own = list(module.parameters())
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()


def freeze_norm(net: nn.Module) -> None:
    """Keep running means and variances as they are."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
