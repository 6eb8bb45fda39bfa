"""Weights and activations on grids that are fixed beforehand, with any number of bits for each layer.

What every recipe with calibrated ranges shares: equalise, observe, choose ranges, round, correct. A recipe says how
many bits each layer multiplies with (`Bits`); which tensors that concerns follows from the program.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from quantward.core.contracts import Context
from quantward.core.errors import UsageError
from quantward.core.values import Node, Plan, QuantSpec
from quantward.graph.walk import CONV, input_key, inputs_of, layers, readers, weight_of
from quantward.quantize._calibrators import CALIBRATORS, THROUGH, Calibrator, squared_error
from quantward.quantize._centred import centred, settled, shifted
from quantward.quantize._correct import correct_biases
from quantward.quantize._dense import from_zero, joined
from quantward.quantize._dense_blocks import shared_grids
from quantward.quantize._equalise import equalise
from quantward.quantize._observers import Histogram, observe, summary
from quantward.quantize._placement import POOLS, SUMS, quantized_outputs
from quantward.quantize._sequential import adapt
from quantward.quantize._signed import middle, signed_spec, stored_for_readers
from quantward.quantize._specs import activation_spec, bias_specs, weight_spec, with_room

Rounding = Literal["nearest", "adaptive"]
STREAM_BITS = 8
"""Bits of what sums and pools read and write: the residual stream is not narrowed with the layers beside it."""


@dataclass(frozen=True)
class Bits:
    """How many bits a layer's weights have, and the activations that it reads."""

    weights: int = 8
    activations: int = 8


@dataclass(frozen=True)
class Static:
    """How ranges are found and values rounded; the fields are the options of the recipes that use it.

    `placement` says which activations are stored: `every` one between integer layers, or only those that integer
    `readers` read: float between a layer and its SiLU or sum, fewer roundings, faster on OpenVINO and slower on ONNX
    Runtime; or `joint`, the same but for dense blocks, which are rewritten so that one grid holds all of a block.
    `signed` puts activations on signed grids with zero point 0, as the target onnx-tensorrt wants them, and
    stores only what is read; a ReLU's output then uses half of its grid.
    """

    calibrator: Calibrator = "mse"
    samples: int | None = None
    equalise: float = 0.5
    rounding: Rounding = "nearest"
    correct: bool = True
    per_channel: bool = True
    placement: Literal["every", "readers", "joint"] = "every"
    signed: bool = False


def uniform(program: tuple[Node, ...], bits: Bits, ends: Bits | None = None, depthwise: Bits | None = None,
            kept: Iterable[str] = ()) -> dict[str, Bits]:  # fmt: skip
    """The same bits for every layer that is not `kept` in float, other ones for the first and the last layer (`ends`)
    and for depthwise convolutions, whose few weights have nothing to average over."""
    every = layers(program)
    table = {}
    for layer in every:
        own = bits
        if depthwise is not None and is_depthwise(layer):
            own = depthwise
        if ends is not None and layer in (every[0], every[-1]):
            own = ends
        table[layer.name] = own
    left = set(kept)
    return {name: own for name, own in table.items() if name not in left}


def require_bits(recipe: Any, *names: str) -> None:
    """Raises UsageError where one of a recipe's options of these names is not a number of bits from 2 to 8."""
    for name in names:
        value = getattr(recipe, name)
        if not 2 <= value <= 8:
            raise UsageError(f"Expected {name} of 2 to 8 bits; got {value}. Choose another number.")


def is_depthwise(layer: Node) -> bool:
    """Whether a layer is a convolution in which each filter reads one channel (or few)."""
    return layer.op == CONV and len(layer.args) > 6 and int(layer.args[6]) > 1


def static_plan(parent: Plan, context: Context, table: Mapping[str, Bits], how: Static, recipe: str) -> Plan:
    """The float Plan `parent` with specs for the layers in `table` (layer name -> Bits) and all that they read.

    Equalise, then one pass over the calibration images for all ranges, then weights, then bias correction. The
    histograms are made once for all recipes that share the Context, the samples and the equalisation.
    """
    if how.signed and how.placement == "joint":
        raise UsageError("Expected grids that begin at 0 for placement=joint; got signed=true. Leave one of them out.")
    shared = quantized_outputs(parent.program)
    plan, histograms = observed(parent, context, shared, how)
    shifts: dict[str, float] = {}
    if how.signed:
        plan, shifts = centred(plan, table, lambda name: middle(histograms[name], STREAM_BITS, how.calibrator))
    tensors = activations(plan, histograms, shared, table, how, shifts)
    for layer in layers(plan.program):
        if layer.name in table:
            weight = weight_of(layer)
            tensors[weight] = weight_spec(plan.weights[weight], table[layer.name].weights, how.per_channel)
    tensors.update(with_room(plan, tensors))
    equalised = plan
    if how.rounding == "adaptive":
        plan, tensors = adapt(plan, tensors, context.images(how.samples), how.correct, context.progress)
    plan = settled(plan, equalised, tensors, shifts)
    if how.correct and (how.rounding == "nearest" or shifts):
        plan = correct_biases(equalised, plan, tensors, context.images(how.samples))
    tensors.update(bias_specs(plan, tensors))
    notes = {**parent.notes, "activations": shifted(summary(histograms), shifts)}
    return replace(plan, recipe=recipe, tensors=tensors, notes=notes)


def observed(
    parent: Plan, context: Context, shared: Mapping[str, str], how: Static
) -> tuple[Plan, dict[str, Histogram]]:
    """The equalised float Plan and its histograms: all that calibrators and bit widths have in common, so made once."""

    def make() -> tuple[Plan, dict[str, Histogram]]:
        plan = parent
        if how.placement == "joint":
            plan = joined(plan, context.images(how.samples), how.equalise)
        if how.equalise > 0:
            plan = equalise(plan, context.images(how.samples), shared, how.equalise)
        logits = inputs_of(plan.program[-1])  # no layer reads them, but files that put out integers need their range
        return plan, observe(plan, context.images(how.samples), {*shared.values(), *logits})

    return context.once(("static", parent.parent, how.samples, how.equalise, how.placement == "joint"), make)


def activations(
    plan: Plan,
    histograms: Mapping[str, Histogram],
    shared: Mapping[str, str],
    table: Mapping[str, Bits],
    how: Static,
    centres: Container[str] = (),
) -> dict[str, QuantSpec]:
    """A spec for every activation that an integer layer reads or writes.

    A tensor has the bits of the layers that read it, but what a sum or a pool touches keeps `STREAM_BITS`: a layer
    that wants it narrower gets a spec of its own for what it reads (`LAYER:input`). Histograms are those from before
    the tensors in `centres` were moved.
    """
    source = f"{how.calibrator} over {next(iter(histograms.values())).images} images"
    joint: Container[str] = ()
    if how.placement == "joint":
        shared, joint = quantized_outputs(plan.program), set(shared_grids(plan.program).values())
    if how.signed or how.placement != "every":
        shared = stored_for_readers(plan.program, shared, table)
    read_by, stream = readers(plan.program), _stream(plan.program, shared)
    specs: dict[tuple[str, int], QuantSpec] = {}

    def spec(origin: str, bits: int) -> QuantSpec:
        if (origin, bits) not in specs:
            if how.signed:
                specs[origin, bits] = signed_spec(histograms[origin], bits, how.calibrator, origin in centres)
                return specs[origin, bits]
            histogram = from_zero(histograms[origin]) if origin in joint else histograms[origin]
            if how.calibrator == "mse":
                ops = {user.op for user in read_by[origin]}
                ends = squared_error(histogram, bits, THROUGH.get(ops.pop()) if len(ops) == 1 else None)
            else:
                ends = CALIBRATORS[how.calibrator](histogram, bits)
            specs[origin, bits] = activation_spec(*ends, bits, source)
        return specs[origin, bits]

    found: dict[str, QuantSpec] = {}
    for name, origin in shared.items():
        users = [user for user in read_by[name] if user.name in table]
        wanted = {table[user.name].activations for user in users if user.args[0].get("node") == name}
        if origin in stream or not wanted:
            wanted.add(STREAM_BITS)
        bits = max(wanted)
        found[name] = spec(origin, bits)
        for user in users:
            own = table[user.name].activations
            if own < bits:
                found[input_key(user.name)] = spec(origin, own)
    return _without_kept(plan, found, {layer.name for layer in layers(plan.program)} - set(table))


def _stream(program: tuple[Node, ...], shared: Mapping[str, str]) -> set[str]:
    """The origins of all tensors that a sum or a pool reads or writes."""
    touched: set[str] = set()
    for node in program:
        if node.op in SUMS | POOLS:
            touched.update({node.name, *inputs_of(node)})
    return {shared[name] for name in touched if name in shared}


def _without_kept(plan: Plan, tensors: dict[str, QuantSpec], kept: set[str]) -> dict[str, QuantSpec]:
    """Drop the quantizers that only float layers would read or write."""
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
