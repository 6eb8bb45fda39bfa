"""Streaming histograms: one pass over the images serves every calibrator and bit width, in memory that does not grow.

A tensor's histogram has a fixed number of bins over [-reach, reach]. When a value falls outside, reach doubles and
neighbouring bins merge in pairs, which moves no count across an edge: the result is the one that a single pass with
the final reach would have given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quantward.core.contracts import Batch
from quantward.core.errors import Refused
from quantward.core.values import Plan
from quantward.graph.network import Network

BINS = 8192
SMALLEST = 2.0**-60
"""Reach of a tensor that has only held zeros so far."""


@dataclass
class Histogram:
    """Counts over `BINS` equal bins on [-reach, reach], with the exact extremes and the number of images seen."""

    counts: npt.NDArray[np.float64]
    reach: float
    low: float
    high: float
    images: int = 0

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """Middle of each bin."""
        width = 2 * self.reach / BINS
        return np.asarray(-self.reach + width * (np.arange(BINS) + 0.5), np.float64)

    def add(self, x: Tensor) -> None:
        """Count all values of x, shape (images, ...).

        Raises Refused for NaN or infinity: no range could hold it.
        """
        low, high = (float(v) for v in torch.aminmax(x))
        if not np.isfinite(low) or not np.isfinite(high):
            raise Refused(
                "Expected finite activations; got NaN or infinity. Check the weights and the calibration images."
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        if self.reach == 0.0:
            self.reach = max(largest, SMALLEST)
        while largest > self.reach:
            self._double()
        self.counts += torch.histc(x.float(), BINS, -self.reach, self.reach).double().numpy()
        self.images += len(x)

    def _double(self) -> None:
        pairs = self.counts.reshape(-1, 2).sum(1)
        self.counts = np.concatenate([np.zeros(BINS // 4), pairs, np.zeros(BINS // 4)])
        self.reach *= 2


def observe(plan: Plan, batches: Iterable[Batch], names: Iterable[str]) -> dict[str, Histogram]:
    """Run the float network over `batches` once and return the histogram of each named node's output.

    Raises Refused when there is no image at all, or when an activation is not finite.
    """
    wanted = {name: Histogram(np.zeros(BINS), 0.0, np.inf, -np.inf) for name in names}

    def on_output(name: str, tensor: Tensor) -> Tensor:
        if name in wanted:
            wanted[name].add(tensor)
        return tensor

    network = Network(plan, on_output=on_output).eval()
    seen = 0
    with torch.inference_mode():
        for batch in batches:
            network(torch.from_numpy(batch))
            seen += len(batch)
    if seen == 0:
        raise Refused("Expected images to calibrate on; got none. Give the calibrate role some images.")
    return wanted


def summary(histograms: Mapping[str, Histogram]) -> dict[str, dict[str, float]]:
    """Exact extremes of each tensor and the range that holds 99.9 % of its values: what outliers cost, at a look."""
    result = {}
    for name, histogram in histograms.items():
        share = np.cumsum(histogram.counts) / max(histogram.counts.sum(), 1)
        centres = histogram.centres
        inner = [float(centres[min(int(np.searchsorted(share, q)), BINS - 1)]) for q in (0.0005, 0.9995)]
        result[name] = {"low": histogram.low, "high": histogram.high, "inner_low": inner[0], "inner_high": inner[1]}
    return result
