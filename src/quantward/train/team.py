"""Several devices that train one network together: who this process is among them, and what they agree on.

After every step all of them hold the same weights and statistics, so the first one's checkpoint is everybody's. The
gradients are summed here and not by a wrapper around the network: a loss may run it several times a step and ask for
gradients within, which such wrappers refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from quantward.core.values import IntArray
from quantward.train.spans import span


@dataclass(frozen=True)
class Team:
    """Process `rank` out of `size`; rank 0 is the one that writes, shows progress and is asked to stop."""

    rank: int = 0
    size: int = 1

    def __bool__(self) -> bool:
        """Whether there is anybody else."""
        return self.size > 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def part(self, images: IntArray) -> IntArray:
        """This process's share of a batch.

        >>> Team(1, 2).part(np.arange(5))
        array([1, 3])
        """
        return images[self.rank :: self.size]

    def seed(self, seed: int, step: int) -> None:
        """Draw what is random in this step from (seed, step, rank): nothing has to be saved, and no two draw alike."""
        if self:
            torch.manual_seed(int(np.random.SeedSequence((seed, step, self.rank)).generate_state(1)[0]))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each."""
        if self:
            torch.distributed.all_reduce(values)
        return values

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace each tensor by sum_r weight_r tensor_r; the weights of all processes sum to 1."""
        if not self or not tensors:
            return
        with span("together"), torch.no_grad():
            whole = self.sum(torch.cat([tensor.reshape(-1).float() for tensor in tensors]).mul_(weight))
            for tensor, mean in zip(tensors, torch.split(whole, [t.numel() for t in tensors]), strict=True):
                tensor.copy_(mean.view(tensor.shape))

    def follow(self, module: nn.Module) -> None:
        """Give every process the first one's weights and statistics."""
        if self:
            with torch.no_grad():
                for tensor in module.state_dict().values():
                    whole = tensor.contiguous()
                    torch.distributed.broadcast(whole, 0)
                    tensor.copy_(whole)

    def wait(self, device: torch.device) -> None:
        """Until all processes have come here."""
        self.sum(torch.zeros(1, device=device))


ALONE = Team()
_team: ContextVar[Team] = ContextVar("team", default=ALONE)


def team() -> Team:
    """The team that this process trains in; of one where nobody said otherwise."""
    return _team.get()


@contextmanager
def member(of: Team) -> Iterator[None]:
    """Whatever trains inside the block does so as one of a team."""
    token = _team.set(of)
    try:
        yield
    finally:
        _team.reset(token)
