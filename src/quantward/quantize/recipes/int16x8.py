"""INT8 weights with 16-bit activations: for networks whose activations, not weights, break 8 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from quantward.core.contracts import Context
from quantward.core.registry import spelling
from quantward.core.values import Plan, QuantSpec
from quantward.graph.walk import layers, weight_of
from quantward.quantize._calibrators import CALIBRATORS, Calibrator
from quantward.quantize._correct import correct_biases
from quantward.quantize._observers import Histogram
from quantward.quantize._patterns import kept_layers
from quantward.quantize._placement import quantized_outputs
from quantward.quantize._specs import TINY, weight_spec
from quantward.quantize._static import Bits, Static, activations, observed, uniform

BITS = 16


@dataclass(frozen=True)
class Int16x8:
    """Symmetric INT8 weights, one scale a row, and symmetric signed 16-bit activations, as LiteRT's 16x8 mode has them.

    Biases stay in float32: on the grid input scale x weight scale they need up to 40 bits, and LiteRT gives them 64.
    65,535 levels hide no small value behind a large one, so `calibrator` is the exact extremes by default and
    equalisation has nothing to mend. `correct` takes the mean shift of weight rounding out of the biases. ONNX
    Runtime and OpenVINO round activations as told and multiply in float32: a file to be judged, not to be fast.
    """

    needs: ClassVar[Literal["images"]] = "images"
    calibrator: Calibrator = "max"
    samples: int | None = None
    correct: bool = True
    keep: tuple[str, ...] = ()

    def plan(self, parent: Plan, context: Context) -> Plan:
        """Specs for all layers that are not kept and for what they read and write."""
        how = Static(calibrator="max", samples=self.samples, equalise=0.0)
        shared = quantized_outputs(parent.program)
        plan, histograms = observed(parent, context, shared, how)
        table = uniform(parent.program, Bits(8, 8), kept=kept_layers(parent.program, self.keep))
        tensors = {
            name: symmetric(histograms[shared[name]], self.calibrator)
            for name in activations(plan, histograms, shared, table, how)
        }
        for layer in layers(plan.program):
            if layer.name in table:
                weight = weight_of(layer)
                tensors[weight] = weight_spec(plan.weights[weight], 8)
        if self.correct:
            plan = correct_biases(parent, plan, tensors, context.images(self.samples))
        return replace(plan, recipe=spelling(self), tensors=tensors)


def symmetric(histogram: Histogram, calibrator: Calibrator) -> QuantSpec:
    """Signed grid around zero, s = max(|low|, |high|) / 32767 with the calibrator's range."""
    low, high = CALIBRATORS[calibrator](histogram, BITS)
    scale = np.float32(max(-low, high, TINY) / ((1 << (BITS - 1)) - 1))
    return QuantSpec("activation", BITS, True, "integer", "symmetric", scale=np.asarray(scale),
                     zero_point=np.zeros((), np.int32),
                     source=f"{calibrator} over {histogram.images} images")  # fmt: skip
