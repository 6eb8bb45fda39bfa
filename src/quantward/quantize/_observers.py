"""Streaming histograms: one pass over the images serves every calibrator and bit width, in memory that does not grow.

A tensor's histogram has a fixed number of bins over [-reach, reach]. When a value falls outside, reach doubles and
neighbouring bins merge in pairs, which moves no count across an edge: the result is the one that a single pass with
the final reach would have given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quantward.core.contracts import Batch
from quantward.core.errors import Refused
from quantward.core.values import Plan
from quantward.graph.network import Network

BINS = 8192
SHARES = 48
"""Bins of the coarse histogram that goes into the Plan's notes: enough for a picture."""

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
        place = x.flatten().float().mul(BINS / 2 / self.reach).floor_().to(torch.int16).add_(BINS // 2)
        counts = torch.bincount(place, minlength=BINS + 1).double().numpy()
        counts[BINS - 1] += counts[BINS]  # the upper edge itself
        self.counts += counts[:BINS]
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


def summary(histograms: Mapping[str, Histogram]) -> dict[str, dict[str, Any]]:
    """Exact extremes of each tensor, the range that holds 99.9 % of its values, and `shares` of the values in
    `SHARES` equal bins between the extremes: what outliers cost, at a look."""
    result: dict[str, dict[str, Any]] = {}
    for name, histogram in histograms.items():
        share = np.cumsum(histogram.counts) / max(histogram.counts.sum(), 1)
        centres = histogram.centres
        inner = [float(centres[min(int(np.searchsorted(share, q)), BINS - 1)]) for q in (0.0005, 0.9995)]
        span = max(histogram.high - histogram.low, SMALLEST)
        place = np.clip((centres - histogram.low) / span * SHARES, 0, SHARES - 1).astype(np.int64)
        coarse = np.bincount(place, histogram.counts, SHARES) / max(histogram.counts.sum(), 1)
        result[name] = {
            "low": histogram.low,
            "high": histogram.high,
            "inner_low": inner[0],
            "inner_high": inner[1],
            "shares": [float(f"{share:.3g}") for share in coarse],
        }
    return result
