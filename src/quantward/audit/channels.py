"""What every channel of every stored activation is like on calibration images, before it is rounded.

A histogram of a whole tensor hides a channel: one that lies wholly beyond the grid, or so close to zero that it is
rounded away, is a few counts among millions. So the network runs once in float and each channel keeps its extremes,
its mass and the part of the mass that its grid cuts off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from quantward.core.contracts import Batch
from quantward.core.store import atomic
from quantward.core.values import Node, Plan, QuantSpec
from quantward.graph.walk import CONV, LAYERS, LINEAR, input_key, inputs_of, readers

if TYPE_CHECKING:
    from torch import Tensor

IMAGES = 32
"""Calibration images that are looked at: a channel has thousands of values in each."""


PARTS = ("low", "high", "mass", "beyond")


@dataclass(frozen=True, eq=False)
class Channels:
    """One tensor's channels: extremes, sum of |x|, and sum of what lies beyond the grid; each of shape (channels,).

    A tensor without a channel axis counts as one channel.
    """

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    mass: npt.NDArray[np.float64]
    beyond: npt.NDArray[np.float64]

    @property
    def clipped(self) -> npt.NDArray[np.float64]:
        """Share of each channel's mass that the grid cuts off, 0 where there is no mass."""
        return np.divide(self.beyond, self.mass, out=np.zeros_like(self.mass), where=self.mass > 0)


def grids(plan: Plan) -> dict[str, QuantSpec]:
    """The stored activations with a fixed integer grid: node name or `LAYER:input` -> spec.

    What only hands its input's grid on (a reshape, a pooling by maximum) is left out: its values are the input's.
    """
    by_name = {node.name: node for node in plan.program}
    found = {}
    for name, spec in plan.tensors.items():
        if spec.kind != "activation" or spec.format != "integer" or spec.dynamic:
            continue
        node = by_name.get(name)
        if node is not None and node.op not in LAYERS:
            sources = inputs_of(node)
            above = plan.tensors.get(sources[0]) if len(sources) == 1 else None
            if above is not None and _same_grid(above, spec):
                continue
        found[name] = spec
    return found


def _same_grid(one: QuantSpec, two: QuantSpec) -> bool:
    return (
        one.bits == two.bits
        and bool(np.array_equal(one.scale, two.scale))
        and bool(np.array_equal(one.zero_point, two.zero_point))
    )


def channel_axis(node: Node, users: Iterable[Node]) -> int | None:
    """Where a step's channels lie: axis 1 for what convolutions write or read, the last for linear layers, else None.

    Attention scores and the like have no channels to speak of.
    """
    if node.op == CONV or node.op == "input":
        return 1
    if node.op == LINEAR:
        return -1
    read_by = {user.op for user in users}
    return -1 if LINEAR in read_by else 1 if CONV in read_by else None


def measure(plan: Plan, batches: Iterable[Batch]) -> dict[str, Channels]:
    """Run the Plan's weights in float arithmetic once; the channels of every tensor in `grids`, by its key there.

    A Plan without such tensors (FP32, FP16, weights alone) gives the extremes of every step as one channel. Values that
    are not finite stay in the extremes.
    """
    import torch

    from quantward.graph.network import Network

    wanted = _wanted(plan)
    sums: dict[str, list[Tensor]] = {}

    def on_output(name: str, tensor: Tensor) -> Tensor:
        for key, spec, axis in wanted.get(name, ()):
            if tensor.is_floating_point():
                _add(sums, key, _measured(tensor, spec, axis))
        return tensor

    network = Network(plan, on_output=on_output).eval()
    with torch.inference_mode():
        for batch in batches:
            network(torch.from_numpy(batch))
    return {key: Channels(*(part.double().numpy() for part in parts)) for key, parts in sums.items()}


def save_channels(channels: Mapping[str, Channels], path: Path) -> None:
    """Keep what was measured, so that a search that goes on need not run the network again."""
    arrays = {f"{part}:{name}": getattr(item, part) for name, item in channels.items() for part in PARTS}
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **{key: np.asarray(a, np.float32) for key, a in arrays.items()})


def load_channels(path: Path) -> dict[str, Channels]:
    """Read what `save_channels` wrote."""
    with np.load(path, allow_pickle=False) as found:
        arrays = {key: np.asarray(found[key], np.float64) for key in found.files}
    names = [key.partition(":")[2] for key in arrays if key.startswith("low:")]
    return {name: Channels(*(arrays[f"{part}:{name}"] for part in PARTS)) for name in names}


def _wanted(plan: Plan) -> dict[str, list[tuple[str, QuantSpec | None, int | None]]]:
    """Node name -> what to measure at its output: (key, grid, channel axis)."""
    read_by, by_name = readers(plan.program), {node.name: node for node in plan.program}
    stored: Mapping[str, QuantSpec] = grids(plan)
    if not stored:
        return {node.name: [(node.name, None, None)] for node in plan.program if node.op != "output"}
    sources = {input_key(node.name): inputs_of(node)[0] for node in plan.program if node.op in LAYERS}
    wanted: dict[str, list[tuple[str, QuantSpec | None, int | None]]] = {}
    for key, spec in stored.items():
        node = by_name[sources.get(key, key)]
        wanted.setdefault(node.name, []).append((key, spec, channel_axis(node, read_by[node.name])))
    return wanted


def _measured(x: Tensor, spec: QuantSpec | None, axis: int | None) -> list[Tensor]:
    """Lowest, highest, sum of |x| and sum beyond the grid of each channel of one batch."""
    dims = [d for d in range(x.dim()) if axis is None or d != axis % x.dim()]
    low, high, mass = x.amin(dims), x.amax(dims), x.abs().sum(dims)
    beyond = mass.new_zeros(mass.shape)
    if spec is not None:
        bottom = float(np.min((spec.low - spec.zero_point) * spec.scale))
        top = float(np.max((spec.high - spec.zero_point) * spec.scale))
        beyond = (x - x.clamp(bottom, top)).abs().sum(dims)
    return [part.reshape(-1) for part in (low, high, mass, beyond)]


def _add(sums: dict[str, list[Tensor]], key: str, new: list[Tensor]) -> None:
    import torch

    if key not in sums:
        sums[key] = new
        return
    low, high, mass, beyond = sums[key]
    sums[key] = [torch.minimum(low, new[0]), torch.maximum(high, new[1]), mass + new[2], beyond + new[3]]
