"""What quantization-aware training minimises: a lesson, the FP32 network's answers, and PACT's pull on its clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from quantward.graph.network import Network
from quantward.quantize._learned import Learned

Lesson = Callable[[Any, Any], Mapping[str, Tensor]]
"""(net, batch) -> terms by name; its first call of the net is with the batch's own inputs."""


def plain(net: Any, batch: Any) -> Mapping[str, Tensor]:
    """The lesson where nobody asks for another: cross-entropy."""
    return {"loss": cross_entropy(net(batch.inputs).float(), batch.labels)}


def passes(lesson: Lesson) -> int:
    """How often one step of a lesson runs the network; it says so where that is not once."""
    return int(getattr(lesson, "passes", 1))


class Objective(nn.Module):
    """(net, batch) -> (1 - d) `lesson` + d T^2 KL(teacher at T || student at T) + c / 2 sum alpha^2.

    Hinton et al., 2015, with d = `distill` and T = `temperature`; Choi et al., 2018, section 3, with c = `clip_decay`
    and alpha the ends of all activations of `clipped` (None: no such term). A part of weight 0 is not computed. The
    teacher is held against the lesson's own first answer, so that a step runs the network no more often than the lesson
    does. A module, so that what a lesson remembers is saved with the run and read back.
    """

    def __init__(
        self,
        lesson: Lesson,
        teacher: Network,
        *,
        distill: float,
        temperature: float,
        clipped: Learned | None = None,
        clip_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.lesson, self.distill, self.temperature, self.clip_decay = lesson, distill, temperature, clip_decay
        self.others = (teacher, clipped)  # in a tuple: neither belongs to this module's state

    def forward(self, net: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """The terms of one batch."""
        answers: list[Tensor] = []
        hook = net.register_forward_hook(lambda _, __, answer: answers.append(answer))
        try:
            taught = self.lesson(net, batch) if self.distill < 1 else {}
            if not answers:
                net(batch.inputs)
        finally:
            hook.remove()
        terms = {name: (1 - self.distill) * term for name, term in taught.items()}
        if self.distill > 0:
            # A lesson may have a teacher, and a term, of its own.
            name = "distill_fp32" if "distill" in terms else "distill"
            terms[name] = self.distill * self._apart(answers[0].float(), batch.inputs.detach())
        clipped = self.others[1]
        if clipped is not None and self.clip_decay > 0:
            terms["clip"] = 0.5 * self.clip_decay * clipped.tops().square().sum()
        return terms

    def _apart(self, logits: Tensor, inputs: Tensor) -> Tensor:
        """T^2 KL between the softened answers of teacher and student, mean over the batch."""
        with torch.no_grad():
            wanted = softmax(self.others[0].to(inputs.device)(inputs) / self.temperature, 1)
        said = log_softmax(logits / self.temperature, 1)
        return self.temperature**2 * kl_div(said, wanted, reduction="batchmean")
