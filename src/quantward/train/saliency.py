"""Saliency-guided training: the network must not need what it does not look at, and should look at little.

Each step asks the gradient of the true class's logit by the image which pixels matter, hides those that matter least,
and wants the same answer. Ismail et al., "Improving deep learning interpretability by saliency guided training", 2021;
with the L1 penalty on saliency and the adaptive threshold of the endoscopy study that joins it to PACT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from quantward.train.batches import Batch
from quantward.train.losses import Criterion, divergence, wide
from quantward.train.spans import span

Threshold = Literal["fixed", "adaptive"]
Fill = Literal["noise", "mean"]


class SaliencyLoss(nn.Module):
    """(net, batch) -> `loss` + `consistency` + `sparsity`.

    With z the logits of the images x, y their classes, and the map s_p = mean over channels |dz_y / dx_p|:

    - `loss`: the criterion on z;
    - `consistency`: its weight times KL(softmax(z) || softmax(z')), z' the logits of x with the least salient pixels
      hidden. `fixed` hides the share `masked` of every image; `adaptive` those with s_p / mean(s) below a threshold
      that all images share and that follows the `masked` quantile of each batch (running mean, `momentum`): so an
      image that is decided by one spot loses more than one that is decided everywhere. `noise` replaces a pixel by
      uniform noise in the image's own range of each channel, `mean` by the image's mean colour;
    - `sparsity`: its weight times the mean over images of sum_p s_p. Its gradient is a second derivative.

    A part of weight 0 is not computed. The hidden images move no batch statistics: the network is judged on whole ones.
    `passes` is how often a step runs the network forward.
    """

    def __init__(
        self,
        judge: Criterion,
        *,
        masked: float = 0.5,
        consistency: float = 1.0,
        sparsity: float = 0.0,
        threshold: Threshold = "fixed",
        fill: Fill = "noise",
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.judge, self.masked, self.consistency, self.sparsity = judge, masked, consistency, sparsity
        self.how, self.fill, self.momentum = threshold, fill, momentum
        # Saved with the run: a resumed one must hide the same pixels.
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def hides(self) -> bool:
        """Whether images are hidden at all."""
        return self.masked > 0 and self.consistency > 0

    @property
    def passes(self) -> int:
        """Forward passes of one step."""
        return 2 if self.hides else 1

    def forward(self, net: Any, batch: Batch) -> Mapping[str, Tensor]:
        """The terms of one batch."""
        twice = self.sparsity > 0
        inputs = batch.inputs.requires_grad_(twice or self.hides)
        with differentiable_attention() if twice else nullcontext():
            logits = wide(net(inputs))
            terms = {"loss": self.judge(logits, batch.labels)}
            if not inputs.requires_grad:
                return terms
            saliency = saliency_map(logits, batch.labels, inputs, create_graph=twice)
        if self.hides:
            image = inputs.detach()
            hidden = hide(image, self.mask(saliency.detach()), self.fill)
            with still_statistics(net):
                terms["consistency"] = self.consistency * divergence(logits, net(hidden))
        if twice:
            terms["sparsity"] = self.sparsity * saliency.sum((1, 2)).mean()
        return terms

    def mask(self, saliency: Tensor) -> Tensor:
        """Which pixels to hide, (b, h, w) bool; moves the adaptive threshold."""
        if self.how == "fixed":
            return least(saliency, self.masked)
        share = saliency / saliency.mean((1, 2), keepdim=True).clamp(min=torch.finfo(saliency.dtype).tiny)
        now = quantile(share, self.masked)
        threshold, steps = self.get_buffer("threshold"), self.get_buffer("steps")
        threshold.add_((now - threshold) * (1.0 if steps == 0 else self.momentum))
        steps += 1
        return share < threshold


def saliency_map(logits: Tensor, labels: Tensor, inputs: Tensor, *, create_graph: bool = False) -> Tensor:
    """Mean over channels of |d logit of the label / d input|: (b, h, w), for inputs (b, c, h, w) that logits come from.

    The sum over the batch is differentiated at once; where batch statistics tie images together, so do they here.
    """
    wanted = logits.gather(1, labels[:, None]).sum()
    with span("saliency"):
        (slope,) = torch.autograd.grad(wanted, inputs, create_graph=create_graph, retain_graph=True)
    return slope.abs().mean(1)


def least(saliency: Tensor, share: float) -> Tensor:
    """The least salient pixels of every image, round(`share` h w) of them: (b, h, w) -> the same shape, bool.

    >>> least(torch.tensor([[[3.0, 1.0], [2.0, 9.0]]]), 0.5).tolist()
    [[[False, True], [True, False]]]
    """
    flat = saliency.flatten(1)
    places = flat.topk(round(share * flat.shape[1]), dim=1, largest=False, sorted=False).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, places, True).view_as(saliency)


def quantile(values: Tensor, share: float) -> Tensor:
    """The smallest value that at least `share` of all values do not exceed (torch's own stops at 16 million values).

    >>> quantile(torch.tensor([4.0, 1.0, 3.0, 2.0]), 0.5).item()
    2.0
    """
    flat = values.flatten()
    return flat.kthvalue(min(len(flat), max(1, round(share * len(flat))))).values


def hide(images: Tensor, mask: Tensor, fill: Fill) -> Tensor:
    """Images (b, c, h, w) with the pixels of `mask` (b, h, w) replaced, in all channels."""
    if fill == "mean":
        instead = images.mean((2, 3), keepdim=True).expand_as(images)
    else:
        low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
        instead = low + (high - low) * torch.rand_like(images)
    return torch.where(mask[:, None], instead, images)


@contextmanager
def still_statistics(net: Any) -> Iterator[None]:
    """While the block runs, batch normalisations use their batch but leave running means and variances alone."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm, norm.momentum) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in before:
            norm.momentum = momentum


def differentiable_attention() -> Any:
    """While the block runs, attention is computed in plain steps: its fused kernels have no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)
