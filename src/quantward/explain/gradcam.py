"""Grad-CAM of any traced network: which places of its last feature map spoke for a class.

The map is found in the program, not by the name of an architecture: the last value with places on a grid, as a
convolution's (n, channels, h, w), a windowed transformer's (n, h, w, channels), or tokens (n, h w [+ 1], channels).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from quantward.core.contracts import Batch
from quantward.core.errors import Unsupported
from quantward.core.values import FloatArray, IntArray, Plan
from quantward.graph.network import Hook, Network
from quantward.graph.simulate import simulate
from quantward.graph.walk import LAYER_NORM, inputs_of

Layout = Literal["nchw", "nhwc", "tokens", "class token first"]


class Place(NamedTuple):
    """A node whose output lies on a grid, and how."""

    node: str
    layout: Layout


def gradcam(plan: Plan, images: Batch, classes: IntArray, place: Place | None = None) -> FloatArray:
    """relu(sum_k a_k A_k), a_k the mean over places of d z_c / d A_k, A the feature map: (n, 3, s, s) -> (n, s, s).

    Enlarged to the image bilinearly. A quantized Plan is simulated. Selvaraju et al., "Grad-CAM", ICCV 2017, eq. 1 and
    2. `place` defaults to `feature_map(plan)`: give the float Plan's to compare two Plans in one place.

    Raises Unsupported for a network without a feature map.
    """
    chosen = place or feature_map(plan)
    kept: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> Tensor:
        if name == chosen.node:
            kept[name] = value
        return value

    network = simulate(plan).eval().requires_grad_(False)
    network.on_output = _after(network.on_output, keep)
    with torch.enable_grad():
        logits = network(torch.from_numpy(np.ascontiguousarray(images)).requires_grad_())
        wanted = logits.gather(1, torch.from_numpy(np.asarray(classes, np.int64))[:, None]).sum()
        (gradient,) = torch.autograd.grad(wanted, kept[chosen.node])
    features, slopes = (_on_grid(t, chosen.layout) for t in (kept[chosen.node].detach(), gradient))
    cam = (slopes.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
    side = (images.shape[2], images.shape[3])
    return np.asarray(interpolate(cam, side, mode="bilinear", align_corners=False)[:, 0].numpy())


def feature_map(plan: Plan) -> Place:
    """The last value with more than one place that the logits depend on: behind the last convolution or block.

    Raises Unsupported where there is none.
    """
    size = plan.preprocess.size
    shapes: dict[str, tuple[int, ...]] = {}

    def look(name: str, value: Tensor) -> Tensor:
        shapes[name] = tuple(value.shape)
        return value

    with torch.inference_mode():
        Network(plan, on_output=look)(torch.zeros(1, 3, size, size))
    ops = {node.name: node.op for node in plan.program}
    tokens = LAYER_NORM in ops.values()
    for node in reversed(plan.program):
        for name in reversed(inputs_of(node)):
            layout = _layout(shapes.get(name, ()), tokens)
            if layout is not None and ops[name] != "input":
                return Place(_last_mixing(plan) if layout == "class token first" else name, layout)
    raise Unsupported(
        "Expected a network with a feature map (convolutions or tokens); found none. Use occlusion, which needs none."
    )


def _last_mixing(plan: Plan) -> str:
    """The tokens that the last attention reads, its normalised input: the last place where all of them matter.

    Behind it only the class token goes on to the logits, so all other gradients are zero.
    """
    norms = [node.name for node in plan.program if node.op == LAYER_NORM]
    if len(norms) < 3:  # before attention, before the perceptron, before the head
        raise Unsupported("Expected a transformer of at least one block; found none. Use occlusion.")
    return norms[-3]


def _layout(shape: tuple[int, ...], tokens: bool) -> Layout | None:
    """How a value of this shape lies on a grid; None where it does not, or has one place."""
    if len(shape) == 4:
        if shape[1] == shape[2] > 1 and shape[3] != shape[2]:
            return "nhwc"
        return "nchw" if min(shape[2:]) > 1 else None
    if len(shape) == 3 and tokens:
        if shape[1] > 1 and isqrt(shape[1]) ** 2 == shape[1]:
            return "tokens"
        if shape[1] > 2 and isqrt(shape[1] - 1) ** 2 == shape[1] - 1:
            return "class token first"
    return None


def _on_grid(value: Tensor, layout: Layout) -> Tensor:
    """Any layout as (n, channels, h, w)."""
    if layout == "nchw":
        return value
    if layout == "nhwc":
        return value.permute(0, 3, 1, 2)
    places = value[:, 1:] if layout == "class token first" else value
    side = isqrt(places.shape[1])
    return places.transpose(1, 2).reshape(len(places), -1, side, side)


def _after(first: Hook | None, then: Callable[[str, Tensor], Tensor]) -> Hook:
    """Both hooks, one after the other."""
    return then if first is None else lambda name, value: then(name, first(name, value))
