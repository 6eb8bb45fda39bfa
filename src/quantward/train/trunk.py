"""What a frozen trunk says of every image, asked once: while only the head learns, nothing below it changes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from quantward.train.batches import Images
from quantward.train.head import head_names
from quantward.train.optimizer import keep_inputs


@torch.no_grad()
def asked_once(net: nn.Module, images: Images, size: int = 64) -> Tensor | None:
    """What the head of `net` reads of each training and tuning image as it is: (n, f), one row for every image of the
    cache, 0 for the others.

    None where it cannot stand for the network: where the trunk draws (dropout) or learns statistics while it trains,
    where the head is not one layer on vectors, or not the last one.
    """
    names = head_names(net)
    if len(names) != 1 or not _still(net, names[0]):
        return None
    head, seen = net.get_submodule(names[0]), list[Tensor]()
    place = "cuda" if torch.cuda.is_available() else "cpu"
    net.to(place).to(memory_format=torch.channels_last).eval()
    keep_inputs(net)
    handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    table: Tensor | None = None
    try:
        everything, batches = np.concatenate([images.train, images.tune]), images.to_tune(size)
        for start in range(0, len(everything), size):
            numbers = np.asarray(everything[start : start + size], np.int64)
            logits = net(batches.batch(numbers, device=place).inputs)
            if len(seen) != 1 or seen[0].ndim != 2 or not torch.equal(head.forward(seen[0]), logits):
                return None
            read = seen[0]
            if table is None:
                table = torch.zeros(len(images.labels), read.shape[1])
            table[torch.from_numpy(numbers)] = read.float().cpu()
            seen.clear()
    finally:
        handle.remove()
        net.to("cpu")
    return table


def _still(net: nn.Module, head: str) -> bool:
    """Whether everything but the head does the same in every pass of a training that leaves its parameters alone."""
    for name, module in net.named_modules():
        draws = max(getattr(module, "p", 0) or 0, getattr(module, "drop_prob", 0) or 0) > 0
        follows = isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(True for _ in module.parameters())
        if not name.startswith(head) and (draws or follows):
            return False
    return True
