"""Which kinds of layers a training step spends its time in, forward and backward, from torch's own profiler.

A layer's forward pass is marked with its kind. Each operation in it has a number that its derivative bears too, so
that the backward pass, which knows no layers, is shared out to them as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd import profiler

_LAYER, _SPAN, _BACKWARD = "layer::", "span::", "autograd::engine::evaluate_function: "
_FORWARD = tuple(_SPAN + name for name in ("forward", "loss", "teacher", "saliency"))
REST = "no layer's own"


@dataclass(eq=False)
class LayerTimes:
    """Seconds by kind of layer, over `steps` steps. What no layer does is named by its operation (`add`, `softmax`);
    `loss`, `teacher` and `saliency` are what a loss does besides asking the network."""

    forward: dict[str, float] = field(default_factory=dict)
    backward: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    steps: int = 0


def kind_of(module: nn.Module) -> str:
    """What a layer is called in a table: its class, and for convolutions what decides how fast they are.

    >>> kind_of(nn.Conv2d(8, 8, 3, groups=8)), kind_of(nn.Conv2d(8, 8, 1)), kind_of(nn.ReLU6())
    ('Conv2d depthwise', 'Conv2d 1x1', 'ReLU6')
    """
    name = type(module).__name__
    if not isinstance(module, nn.Conv2d):
        return name
    if module.groups == module.in_channels > 1:
        return f"{name} depthwise"
    return f"{name} 1x1" if module.kernel_size == (1, 1) else name


@contextmanager
def look_into(net: nn.Module, times: LayerTimes) -> Iterator[None]:
    """Profile the block, one training step of `net`, and add what it spends to `times`."""
    cuda = torch.cuda.is_available()
    # The collector below torch would write to the terminal when it starts, when it stops, and that there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with _marked(net), profiler.profile(use_device="cuda" if cuda else None) as seen:
        yield
    events: Any = seen.function_events
    _add(events or (), times, cuda)


@contextmanager
def _marked(net: nn.Module) -> Iterator[None]:
    """While the block runs, every layer that holds parameters, or no other layer, names itself to the profiler."""
    open_now: list[Any] = []

    def begin(module: nn.Module, _: object) -> None:
        mark: Any = profiler.record_function(_LAYER + kind_of(module))
        open_now.append(mark)
        mark.__enter__()

    def end(_module: nn.Module, _given: object, _made: object) -> None:
        open_now.pop().__exit__(None, None, None)

    handles = []
    for module in net.modules():
        own = any(True for _ in module.parameters(recurse=False)) or not any(True for _ in module.children())
        if own and not isinstance(module, nn.Identity):
            handles.append(module.register_forward_pre_hook(begin, prepend=True))
            handles.append(module.register_forward_hook(end))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add(events: Iterable[Any], times: LayerTimes, cuda: bool) -> None:
    events = sorted(events, key=lambda event: event.time_range.start)
    owners: dict[int, str] = {}
    for event in events:
        name = _owner(event, owners)
        if name is None:
            continue
        if event.sequence_nr >= 0:
            # What needs no gradient bears the number of the next operation that does: the last to bear it has it.
            owners[event.sequence_nr] = name
        if _is_top(event):
            times.forward[name] = times.forward.get(name, 0.0) + _seconds(event, cuda)
            times.calls[name] = times.calls.get(name, 0) + 1
            if (outer := _outer(event)) is not None:
                times.forward[outer] = times.forward.get(outer, 0.0) - _seconds(event, cuda)
    for event in events:
        if event.name.startswith(_BACKWARD):
            name = owners.get(event.sequence_nr, REST)
            times.backward[name] = times.backward.get(name, 0.0) + _seconds(event, cuda)
    times.steps += 1


def _owner(event: Any, owners: dict[int, str]) -> str | None:
    """The kind of layer whose forward pass an event belongs to; the operation itself where there is no layer; the
    layer whose derivative it is a step of; None for what is no part of the network or its loss."""
    top = event
    while event is not None:
        if event.name.startswith(_LAYER):
            return str(event.name.removeprefix(_LAYER))
        if event.name.startswith(_BACKWARD):
            return owners.get(event.sequence_nr)
        if event.name in _FORWARD:
            if top is event:
                return None
            span = str(event.name.removeprefix(_SPAN))
            return str(top.name.removeprefix("aten::")) if span == "forward" else span
        top, event = event, event.cpu_parent
    return None


def _is_top(event: Any) -> bool:
    """Whether an event is a layer as a whole, or an operation of the forward pass outside of any."""
    if event.name.startswith(_LAYER):
        return True
    parent = event.cpu_parent
    return parent is not None and parent.name in _FORWARD and not event.name.startswith((_SPAN, _BACKWARD))


def _outer(event: Any) -> str | None:
    """The kind of layer that a layer is inside of."""
    event = event.cpu_parent
    while event is not None and not event.name.startswith(_LAYER):
        event = event.cpu_parent
    return None if event is None else str(event.name.removeprefix(_LAYER))


def _seconds(event: Any, cuda: bool) -> float:
    return float(event.device_time_total if cuda else event.cpu_time_total) / 1e6
