"""Gradients with respect to the image as maps, of a float network or a simulation (which rounds straight through)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from quantward.core.contracts import Batch
from quantward.core.values import FloatArray, IntArray

Net = Callable[[Tensor], Tensor]


def input_gradients(network: Net, images: Batch, classes: IntArray) -> FloatArray:
    """sum over colours of |d z_c / d x|, z_c the logit of each image's class c: (n, 3, s, s), (n,) -> (n, s, s).

    Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", 2014, section 3 (there the maximum over
    colours).

    >>> net = lambda x: torch.stack([x[:, 0, 0, 0], 3 * x[:, 1, 0, 1]], dim=1)
    >>> input_gradients(net, np.ones((1, 3, 2, 2), np.float32), np.array([1])).tolist()
    [[[0.0, 3.0], [0.0, 0.0]]]
    """
    return np.asarray(np.abs(_gradients(network, images, classes)).sum(axis=1))


def integrated_gradients(network: Net, images: Batch, classes: IntArray, steps: int = 32) -> FloatArray:
    """|sum over colours of (x - x0) mean over a of dz_c(x0 + a (x - x0))/dx|, a at `steps` midpoints of [0, 1].

    x0 is the image that is zero after normalisation (the mean colour). The signed parts sum to z_c(x) - z_c(x0) as
    `steps` grows. Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017, eq. 1 and 3.
    """
    return np.asarray(np.abs(attributions(network, images, classes, steps).sum(axis=1)))


def attributions(network: Net, images: Batch, classes: IntArray, steps: int = 32) -> FloatArray:
    """The signed parts of integrated gradients, (n, 3, s, s)."""
    total = np.zeros(images.shape, np.float64)
    for k in range(steps):
        total += _gradients(network, (images * ((k + 0.5) / steps)).astype(np.float32), classes)
    return np.asarray(images * total / steps)


def _gradients(network: Net, images: Batch, classes: IntArray) -> FloatArray:
    """d z_c / d x of each image, (n, 3, s, s); images do not see each other, so one backward pass serves all."""
    x = torch.from_numpy(np.ascontiguousarray(images)).requires_grad_()
    with torch.enable_grad():
        logits = network(x)
        chosen = logits.gather(1, torch.from_numpy(np.asarray(classes, np.int64))[:, None])
        (gradient,) = torch.autograd.grad(chosen.sum(), x)
    return np.asarray(gradient.numpy())
