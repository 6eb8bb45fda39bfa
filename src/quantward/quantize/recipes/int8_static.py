"""INT8 weights and activations with ranges fixed beforehand on calibration images: the fast and small one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from quantward.core.contracts import Context
from quantward.core.registry import spelling
from quantward.core.values import Plan, QuantSpec
from quantward.graph.walk import inputs_of, layers, readers, weight_of
from quantward.quantize._calibrators import CALIBRATORS, Calibrator
from quantward.quantize._correct import correct_biases
from quantward.quantize._equalise import equalise
from quantward.quantize._observers import Histogram, observe, summary
from quantward.quantize._patterns import kept_layers
from quantward.quantize._placement import quantized_outputs
from quantward.quantize._specs import activation_spec, bias_specs, weight_spec


@dataclass(frozen=True)
class Int8Static:
    """Symmetric INT8 weights, unsigned affine 8-bit activations, int32 biases.

    `calibrator` chooses each activation's range from its histogram over `samples` images; `equalise` (0 to 1) is how
    far channels are first brought to one range; `correct` takes the mean shift of rounding out of the biases;
    `per_channel=false` gives each weight tensor one scale, as the oldest tools did; `keep` leaves matching layers in
    float. The naive baseline of most toolkits is `int8-static:calibrator=max,equalise=0,correct=false`.
    """

    needs: ClassVar[Literal["images"]] = "images"
    calibrator: Calibrator = "mse"
    samples: int | None = None
    equalise: float = 0.5
    correct: bool = True
    per_channel: bool = True
    keep: tuple[str, ...] = ()

    def plan(self, parent: Plan, context: Context) -> Plan:
        """Equalise, then one pass over the calibration images for all ranges, then specs, then bias correction."""
        kept = kept_layers(parent.program, self.keep)
        shared = quantized_outputs(parent.program)
        key = ("int8-static", parent.parent, self.samples, self.equalise)
        float_plan, histograms = context.once(key, lambda: self._observed(parent, context, shared))
        seen = next(iter(histograms.values())).images
        source = f"{self.calibrator} over {seen} images"
        ranges = {name: CALIBRATORS[self.calibrator](histogram, 8) for name, histogram in histograms.items()}
        tensors: dict[str, QuantSpec] = {
            name: activation_spec(*ranges[origin], 8, source) for name, origin in shared.items()
        }
        for layer in layers(float_plan.program):
            if layer.name not in kept:
                weight = weight_of(layer)
                tensors[weight] = weight_spec(float_plan.weights[weight], 8, self.per_channel, "max |w|")
        tensors = _without_kept(float_plan, tensors, kept)
        if self.correct:
            float_plan = correct_biases(float_plan, tensors, context.images(self.samples))
        tensors.update(bias_specs(float_plan, tensors))
        notes = {**parent.notes, "activations": summary(histograms)}
        return replace(float_plan, recipe=spelling(self), tensors=tensors, notes=notes)

    def _observed(self, parent: Plan, context: Context, shared: Mapping[str, str]) -> tuple[Plan, dict[str, Histogram]]:
        """The equalised float Plan and its histograms, which do not depend on the calibrator."""
        plan = parent
        if self.equalise > 0:
            plan = equalise(parent, context.images(self.samples), shared, self.equalise)
        return plan, observe(plan, context.images(self.samples), set(shared.values()))


def _without_kept(plan: Plan, tensors: dict[str, QuantSpec], kept: set[str]) -> dict[str, QuantSpec]:
    """Drop the quantizers that only kept layers would read or write."""
    if not kept:
        return tensors
    read_by = readers(plan.program)
    by_name = {node.name: node for node in plan.program}
    dropped = set()
    for name in tensors:
        node = by_name.get(name)
        if node is None:
            continue
        writers = {name, *inputs_of(node)}
        users = read_by[name]
        if users and all(user.name in kept for user in users) and (writers & kept or node.op == "input"):
            dropped.add(name)
    return {name: spec for name, spec in tensors.items() if name not in dropped}
