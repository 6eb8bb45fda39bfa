"""Which layers mind fewer bits: measured one layer at a time, and estimated for all at once, side by side.

One at a time, all other layers stay in float: then nothing but the layer in question moves the probabilities, zero
means exactly "as FP32", and the divergences of several layers add up to first order. With the others in INT8 the
common noise would drown the small ones, and their order would change with the calibrator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quantward import __version__
from quantward.core.contracts import Batch, Context
from quantward.core.errors import QuantwardError, Refused
from quantward.core.progress import Track, silent
from quantward.core.store import decode, digest_arrays, digest_text, read_json, write_json
from quantward.core.values import IntArray, Node, Plan
from quantward.graph.walk import layers, weight_of
from quantward.quantize._fisher import fisher
from quantward.quantize._knapsack import Front, Option, front
from quantward.quantize._static import Bits, Static
from quantward.quantize._stretch import Stretch
from quantward.quantize._trials import (
    Ground,
    channel_sums,
    corrected,
    corrects,
    other_bytes,
    output_error,
    prepare,
    spelled,
    try_layer,
)

By = Literal["fisher", "one-at-a-time"]


@dataclass(frozen=True)
class Cost:
    """One layer at one width, everything else in float.

    `fisher` is the estimated, `divergence` the measured mean KL divergence from FP32 in nats; `changed` the share of
    images whose top class changes, `accuracy` the change of accuracy as a share. None: not measured.
    """

    layer: str
    bits: Bits
    bytes: int
    fisher: float
    divergence: float | None = None
    changed: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of the two rankings over `n` layers at one width, with a 95 % interval; None where
    it is undefined."""

    bits: Bits
    n: int
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """What every layer costs and loses at every width on offer, over `images` images. `other_bytes` are those that no
    width changes, `float_bytes` the bytes of all weights in FP32."""

    images: int
    offer: tuple[Bits, ...]
    costs: tuple[Cost, ...]
    correlations: tuple[Correlation, ...]
    other_bytes: int
    float_bytes: int

    def at(self, bits: Bits) -> list[Cost]:
        """All layers at one width, in the order of the program."""
        return [cost for cost in self.costs if cost.bits == bits]


def sensitivity(
    parent: Plan,
    context: Context,
    offer: tuple[Bits, ...],
    how: Static,
    batches: Sequence[Batch],
    *,
    measure: bool = True,
    labels: IntArray | None = None,
    folder: Path | None = None,
    track: Track = silent,
) -> Sensitivity:
    """Both rankings of all layers of the float Plan `parent`; without `measure` the estimated one alone.

    `context` gives the images that calibrate, `batches` those that are judged, with `labels` if accuracy is wanted.
    What is done is kept below `folder` and taken up again when the same is asked for.
    """
    ground = prepare(parent, context, offer, how)
    kept = None if folder is None else folder / _key(parent, offer, how, batches, labels, context.seed)
    every = layers(ground.plan.program)
    estimated = _estimate(ground, every, offer, batches, context.seed, kept, track)
    measured = dict(_one_at_a_time(ground, every, offer, batches, labels, kept, track)) if measure else {}
    costs = tuple(replace(cost, **measured.get((cost.layer, cost.bits), {})) for cost in estimated)
    return Sensitivity(
        images=sum(len(batch) for batch in batches),
        offer=offer,
        costs=costs,
        correlations=tuple(_correlation(bits, [c for c in costs if c.bits == bits]) for bits in offer)
        if measure
        else (),
        other_bytes=other_bytes(parent),
        float_bytes=sum(int(array.nbytes) for array in parent.weights.values()),
    )


def _key(
    parent: Plan, offer: tuple[Bits, ...], how: Static, batches: Sequence[Batch], labels: IntArray | None, seed: int
) -> str:
    """A name for everything that decides the figures, so that old ones are never taken for new ones."""
    images = digest_arrays({str(k): batch for k, batch in enumerate(batches)})
    asked = {name: getattr(how, name) for name in Static.__dataclass_fields__}
    truth = "" if labels is None else str(np.asarray(labels).tolist())
    return digest_text(digest_arrays(parent.weights), images, str(asked), str(offer), truth, str(seed), __version__)[
        :16
    ]


def _estimate(
    ground: Ground,
    every: list[Node],
    offer: tuple[Bits, ...],
    batches: Sequence[Batch],
    seed: int,
    kept: Path | None,
    track: Track,
) -> tuple[Cost, ...]:
    path = None if kept is None else kept / "fisher.json"
    found = _read(path)
    if found is not None:
        return decode(tuple[Cost, ...], found, path or "")
    trials = [try_layer(ground, layer, bits) for layer in track(every, "round") for bits in offer]
    values = fisher(ground, trials, batches, seed, track)
    costs = tuple(Cost(t.layer.name, t.bits, t.bytes, values[t.layer.name, t.bits]) for t in trials)
    if path is not None:
        write_json(path, costs)
    return costs


def _read(path: Path | None) -> Any:
    """What a stopped run has left, or None; a broken file is simply made again."""
    if path is None or not path.exists():
        return None
    try:
        return read_json(path)
    except QuantwardError:
        return None


def _one_at_a_time(
    ground: Ground,
    every: list[Node],
    offer: tuple[Bits, ...],
    batches: Sequence[Batch],
    labels: IntArray | None,
    kept: Path | None,
    track: Track,
) -> Iterator[tuple[tuple[str, Bits], dict[str, Any]]]:
    """((layer, width), measured fields of its Cost), layer by layer.

    The float values advance through the program with the layers: what comes before a layer is computed once, whatever
    the number of widths and of layers behind it.
    """
    program = ground.plan.program
    place = {node.name: position for position, node in enumerate(program)}
    truth = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64))
    with torch.no_grad():
        values: list[dict[str, Any]] = [{"input": torch.from_numpy(batch)} for batch in batches]
        whole = Stretch(ground.plan, 0, len(program))
        base = torch.cat([whole(value)["output"] for value in values])
        position = 0
        for number, layer in enumerate(track(every, "one layer at a time")):
            path = None if kept is None else kept / f"layer-{number:03}.json"
            done = _read(path)
            if done is None:
                here = place[layer.name]
                values, position = _advance(ground.plan, position, here, values), here
                done = {}
                for bits, logits in _logits(ground, layer, offer, values, here):
                    done[spelled(bits)] = _moved(base, logits, truth)
                if path is not None:
                    write_json(path, done)
            for bits in offer:
                yield (layer.name, bits), done[spelled(bits)]


def _advance(plan: Plan, start: int, stop: int, values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stretch = Stretch(plan, start, stop)
    return [stretch(value) for value in values]


def _logits(
    ground: Ground, layer: Node, offer: tuple[Bits, ...], values: list[dict[str, Any]], here: int
) -> Iterator[tuple[Bits, Tensor]]:
    """The network's logits with this layer alone at each width, given the float values that are live before it."""
    weight = torch.from_numpy(ground.plan.weights[weight_of(layer)])
    own = Stretch(ground.plan, here, here + 1)
    rest = Stretch(ground.plan, here + 1, len(ground.plan.program))
    behind = [own(value) for value in values]
    inputs = [value[layer.args[0]["node"]] for value in values]
    for bits in offer:
        trial = try_layer(ground, layer, bits)
        errors = [output_error(trial, weight, x) for x in inputs]
        mean = None
        if corrects(ground, layer):
            sums, counts = zip(*(channel_sums(layer, error) for error in errors), strict=True)
            mean = sum(sums[1:], sums[0]) / sum(counts)
        logits = [
            rest({**value, layer.name: value[layer.name] + corrected(layer, error, mean)})["output"]
            for value, error in zip(behind, errors, strict=True)
        ]
        yield bits, torch.cat(logits)


def _moved(base: Tensor, logits: Tensor, truth: Tensor | None) -> dict[str, float]:
    """Mean KL(p || q) over images in nats, share of changed top classes and, with labels, the change of accuracy."""
    p, q = torch.log_softmax(base.double(), 1), torch.log_softmax(logits.double(), 1)
    if not torch.isfinite(q).all():
        raise Refused("Expected finite outputs of a layer on trial; got NaN or infinity. Check the model's weights.")
    found = {
        "divergence": max(0.0, float((p.exp() * (p - q)).sum(1).mean())),
        "changed": float((base.argmax(1) != logits.argmax(1)).double().mean()),
    }
    if truth is not None:
        right = [(said.argmax(1) == truth).double().mean() for said in (base, logits)]
        found["accuracy"] = float(right[1] - right[0])
    return found


def _correlation(bits: Bits, costs: Sequence[Cost]) -> Correlation:
    measured = [(c.fisher, c.divergence) for c in costs if c.divergence is not None]
    value = spearman([a for a, _ in measured], [b for _, b in measured])
    n = len(measured)
    if value is None or n < 5 or abs(value) >= 1:
        return Correlation(bits, n, value)
    reach = 1.96 * math.sqrt((1 + value**2 / 2) / (n - 3))
    return Correlation(bits, n, value, math.tanh(math.atanh(value) - reach), math.tanh(math.atanh(value) + reach))


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho: Pearson's correlation of the ranks, ties with their mean rank; None for constants or n < 2.

    Its interval (`Correlation`) is tanh(atanh rho +- 1.96 sqrt((1 + rho^2 / 2) / (n - 3))), after Bonett and Wright,
    Psychometrika 65 (2000).

    >>> spearman([1, 2, 3], [10, 40, 20])
    0.5
    """
    x, y = (_ranks(np.asarray(values, np.float64)) for values in (a, b))
    x, y = x - x.mean() if len(x) else x, y - y.mean() if len(y) else y
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return None if scale == 0 else float(x @ y) / scale


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def solve(
    found: Sensitivity, by: By, times: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[Front, tuple[str, ...]]:
    """The whole front of `found`, and the layers in the order of its picks (indices into `found.offer`).

    The predicted loss of a choice is the sum of its layers' divergences, measured or estimated as `by` says; its
    bytes those of all weights, scales and biases. `times` are measured milliseconds, {layer: {width: ms}}.
    """
    names = tuple(dict.fromkeys(cost.layer for cost in found.costs))
    options = {(cost.layer, cost.bits): _option(cost, by, times) for cost in found.costs}
    made = front([[options[name, bits] for bits in found.offer] for name in names])
    return replace(made, bytes=made.bytes + found.other_bytes), names


def _option(cost: Cost, by: By, times: Mapping[str, Mapping[str, float]] | None) -> Option:
    loss = cost.fisher if by == "fisher" else cost.divergence
    if loss is None:
        raise Refused(f"Expected {cost.layer} to have been measured one at a time; it was not. Use by=fisher.")
    if times is None:
        return Option(cost.bytes, loss)
    try:
        return Option(cost.bytes, loss, float(times[cost.layer][spelled(cost.bits)]))
    except KeyError:
        raise Refused(
            f"Expected milliseconds of {cost.layer} at {spelled(cost.bits)}; there are none. Measure every layer at "
            "every width on offer."
        ) from None


def table_of(front: Front, point: int, names: Sequence[str], offer: Sequence[Bits]) -> dict[str, Bits]:
    """The table of one point of a front: layer name -> Bits."""
    return {name: offer[pick] for name, pick in zip(names, front.picks(point), strict=True)}
