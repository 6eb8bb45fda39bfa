"""Signed activation grids whose zero point is 0, and the fewer tensors that are stored on them.

Accelerators that multiply signed by signed know no zero point (TensorRT's scheme is x = s q with q in -128 ... 127),
and they round only what a kernel reads: a convolution hands its sums in float to the addition, the clamp or the SiLU
behind it, which run in the same kernel. A grid in between would split that kernel and round once more than needed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np

from quantward.core.values import Node, QuantSpec
from quantward.graph.walk import LAYERS, readers
from quantward.quantize._calibrators import CALIBRATORS, Calibrator
from quantward.quantize._dense_blocks import clamps_channels
from quantward.quantize._observers import Histogram
from quantward.quantize._placement import PASSING, POOLS, PRODUCTS
from quantward.quantize._specs import TINY

ADD, CAT = "aten.add.Tensor", "aten.cat.default"

SHARES = np.linspace(0.01, 1.0, 200)
"""Shares of the largest |x| that are tried as the end of the grid."""


def signed_spec(histogram: Histogram, bits: int, calibrator: Calibrator, centred: bool = False) -> QuantSpec:
    """Signed grid with z = 0: s = t / (2^(b-1) - 1), q in -2^(b-1) ... 2^(b-1) - 1.

    t is the larger end of the calibrator's range; for `mse` the t of least expected squared error on this very grid,
    of `SHARES` of the largest |x|. For values moved around the middle of that range (`centred`) t is half its width.
    The most negative integer is kept, as QuantizeLinear keeps it; in this house's words such a grid is affine with a
    zero point that happens to be 0.
    """
    top = (1 << (bits - 1)) - 1
    if centred:
        low, high = CALIBRATORS[calibrator](histogram, bits)
        reach = (max(high, 0.0) - min(low, 0.0)) / 2
    elif calibrator == "mse":
        reach = _least_error(histogram, top)
    else:
        low, high = CALIBRATORS[calibrator](histogram, bits)
        reach = max(-low, high)
    scale = np.float32(max(reach / top, TINY))
    return QuantSpec("activation", bits, True, scheme="affine", scale=np.asarray(scale),
                     zero_point=np.zeros((), np.int32),
                     source=f"{calibrator} over {histogram.images} images")  # fmt: skip


def middle(histogram: Histogram, bits: int, calibrator: Calibrator) -> float:
    """The middle of the calibrator's range, widened to hold 0 as all ranges are."""
    low, high = CALIBRATORS[calibrator](histogram, bits)
    return (max(high, 0.0) + min(low, 0.0)) / 2


def _least_error(histogram: Histogram, top: int) -> float:
    """The end t with the least sum_i p_i (x_i - q(x_i))^2 over the bins."""
    used = histogram.counts > 0
    x, p = histogram.centres[used], histogram.counts[used]
    reaches = SHARES * max(-histogram.low, histogram.high, 1e-12)
    errors = []
    for reach in reaches:
        step = reach / top
        errors.append(float(p @ (x - np.clip(np.rint(x / step), -top - 1, top) * step) ** 2))
    return float(reaches[int(np.argmin(errors))])


def stored_for_readers(program: tuple[Node, ...], shared: Mapping[str, str], integer: Container[str]) -> dict[str, str]:
    """Of the tensors that could be stored (node -> the node whose range it shares), those that an integer kernel reads.

    Readers are the layers in `integer`, matrix products, and what hands values on to them: moves, pools, `cat`, clamps
    of channels. Of the two sides of a sum only the residual is stored; the side that a layer computes for this sum
    alone goes straight from its accumulator into the addition (of two such sides, the first). Beside a layer in float
    neither is.
    """
    read_by = readers(program)
    accumulated = {node.name: accumulates(node, read_by, program) for node in program if node.op == ADD}
    wanted: dict[str, bool] = {}
    for node in reversed(program):
        users = read_by[node.name]
        wanted[node.name] = any(_wants(user, node, wanted, integer, accumulated) for user in users)
    origins = {shared[name] for name in shared if wanted[name]}
    return {name: origin for name, origin in shared.items() if origin in origins}


def _wants(
    user: Node,
    node: Node,
    wanted: Mapping[str, bool],
    integer: Container[str],
    accumulated: Mapping[str, str | None],
) -> bool:
    """Whether `user` reads integers of `node`; `wanted` knows this of everything behind."""
    if user.op in LAYERS:
        return user.name in integer and bool(user.args[0].get("node") == node.name)
    if user.op in PRODUCTS:
        return True
    if user.op == ADD:
        own = accumulated[user.name]
        return own != node.name and (own is None or own in integer)
    passes = user.op in PASSING or user.op in POOLS or user.op == CAT or clamps_channels(user)
    return passes and wanted[user.name]


def accumulates(total: Node, read_by: Mapping[str, list[Node]], program: tuple[Node, ...]) -> str | None:
    """The side of a sum that is the output of a layer which nothing else reads: it is added inside that layer."""
    made = {node.name for node in program if node.op in LAYERS}
    sides = [side["node"] for side in total.args[:2] if isinstance(side, Mapping) and "node" in side]
    return next((side for side in sides if side in made and len(read_by[side]) == 1), None)
