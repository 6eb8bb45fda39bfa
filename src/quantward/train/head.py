"""Where a network ends: its head, the blocks below it, and one logit instead of two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quantward.core.errors import UsageError
from quantward.graph.network import Network
from quantward.graph.walk import layers


def head_names(net: nn.Module) -> tuple[str, ...]:
    """The modules that make logits: as timm names them, else the last linear layer; empty where there is none."""
    named = (getattr(net, "pretrained_cfg", None) or {}).get("classifier") or ()
    if named:
        return (named,) if isinstance(named, str) else tuple(named)
    linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    return tuple(linear[-1:])


def head_of(net: nn.Module) -> nn.Module:
    """The (last) module that makes logits, also of a network inside another module.

    Raises UsageError where the network has no such module of its own.
    """
    timm = (module for module in net.modules() if getattr(module, "pretrained_cfg", None))
    whole = next(timm, net)
    names = head_names(whole)
    if not names:
        raise UsageError(
            "Expected a network with a linear head for features; this one has none that can be told apart. "
            "Leave features at 0."
        )
    return whole.get_submodule(names[-1])


@contextmanager
def reads(module: nn.Module) -> Iterator[list[Tensor]]:
    """What a module is given while the block runs, one tensor (b, features) a call."""
    seen: list[Tensor] = []

    def note(_: nn.Module, given: tuple[Any, ...]) -> None:
        seen.append(given[0].flatten(1))

    handle = module.register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def reads_of_head(net: nn.Module) -> Iterator[list[Tensor]]:
    """What the (last) layer that makes logits is given while the block runs, one tensor (b, features) a call; also of
    a Plan's program, as quantization-aware training runs it, whose layers are no modules: there, rounded as the file
    will round it.

    Raises UsageError where the network has no such layer of its own.
    """
    program = next((module for module in net.modules() if isinstance(module, Network)), None)
    if program is None:
        with reads(head_of(net)) as seen:
            yield seen
        return
    head, before, noted = list(layers(program.program))[-1].name, program.on_input, list[Tensor]()

    def note(name: str, given: Tensor) -> Tensor:
        given = given if before is None else before(name, given)
        if name == head:
            noted.append(given.flatten(1))
        return given

    program.on_input = note
    try:
        yield noted
    finally:
        program.on_input = before


def blocks(net: nn.Module) -> list[list[str]]:
    """Names of all parameters but the head's, block by block from the input to the head.

    timm knows the blocks of its networks; elsewhere every child of the network that has parameters is one.
    """
    heads = tuple(f"{name}." for name in head_names(net))
    matcher = getattr(net, "group_matcher", None)
    if matcher is not None:
        from timm.models import group_parameters

        groups = list(group_parameters(net, matcher(coarse=False)).values())
    else:
        children: dict[str, list[str]] = {}
        for name, _ in net.named_parameters():
            children.setdefault(name.partition(".")[0], []).append(name)
        groups = list(children.values())
    bare = ([name for name in group if not name.startswith(heads)] for group in groups)
    return [group for group in bare if group]


class _Mirrored(nn.Module):
    """One row w as the two rows (-w / 2, w / 2), so that their difference is w."""

    def forward(self, row: Tensor) -> Tensor:
        return torch.cat((-0.5 * row, 0.5 * row))

    def right_inverse(self, rows: Tensor) -> Tensor:
        return rows[1:] - rows[:1]


@contextmanager
def one_logit(net: nn.Module) -> Iterator[None]:
    """While the block runs, a head with two outputs has one row of weights to train, and its logits are (-z/2, z/2).

    softmax gives sigmoid(z) to the second class, so cross-entropy is binary cross-entropy on z. Afterwards the head is
    an ordinary one with two rows again, with the same logits.

    Raises UsageError where the head is not one linear layer with two outputs.
    """
    names = head_names(net)
    module = net.get_submodule(names[0]) if len(names) == 1 else None
    if not isinstance(module, nn.Linear) or module.out_features != 2:
        raise UsageError(
            f"Expected a network with one linear head and two classes for head=sigmoid; got heads "
            f"{', '.join(names) or 'none'}{'' if module is None else f', {module}'}. Use head=softmax."
        )
    tensors = [name for name in ("weight", "bias") if getattr(module, name) is not None]
    for name in tensors:
        parametrize.register_parametrization(module, name, _Mirrored())
    try:
        yield
    finally:
        for name in tensors:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
