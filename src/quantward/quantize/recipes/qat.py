"""Quantization-aware training: the network learns its weights, its ranges and to live with its rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from quantward.core.contracts import Context, Fit, Trained
from quantward.core.errors import UsageError
from quantward.core.registry import spelling
from quantward.core.store import digest_arrays, digest_text
from quantward.core.values import Plan
from quantward.graph.network import Network
from quantward.quantize._learned import Learned, Method
from quantward.quantize._norm import live_norms
from quantward.quantize._objective import Lesson, Objective, passes, plain
from quantward.quantize._patterns import kept_layers
from quantward.quantize._static import Bits, Static, static_plan, uniform


@dataclass(frozen=True)
class Qat(Static):
    """Starts from a calibrated Plan (all options of `low-bit` say how) and trains it with its rounding in place;
    `signed` is what the target onnx-tensorrt needs.

    `method=lsq` learns the step of every weight row and activation, `pact` the clipping of activations, with
    `clip_decay` pulling it in. Training takes `epochs` at rate `lr` (by default 1e-4 at 8 bits, 3e-4 from 4 bits, 1e-3
    below) and `scale_rate` times that for steps. `distill` (0 to 1) is the share of the loss that asks for the FP32
    network's own probabilities, softened by `temperature`. `norm=live` normalises behind every convolution while
    training, on batch statistics for the share `freeze` of it and on fixed ones from then on; `folded` does not; `auto`
    is live below 8 bits. `via` is a number of bits at which the network first trains as long, before it gets fewer.
    """

    needs: ClassVar[Literal["training"]] = "training"
    method: Method = "lsq"
    weights: int = 8
    activations: int = 8
    ends: int = 8
    depthwise: int = 8
    keep: tuple[str, ...] = ()
    epochs: int = 5
    batch: int = 32
    lr: float | None = None
    scale_rate: float = 10.0
    patience: int = 5
    augment: Literal["none", "light", "standard", "published"] = "standard"
    distill: float = 0.5
    temperature: float = 2.0
    norm: Literal["auto", "live", "folded"] = "auto"
    freeze: float = 0.5
    clip_decay: float = 1e-4
    via: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("weights", 2, 8), ("activations", 2, 8), ("ends", 2, 8), ("depthwise", 2, 8),
                                ("distill", 0, 1), ("freeze", 0, 1), ("clip_decay", 0, 1)):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"Expected {name} of {low} to {high}; got {value:g}. Choose another number.")
        for name in ("epochs", "batch", "patience", "temperature", "scale_rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"Expected {name} above 0; got {getattr(self, name):g}. Choose another number.")
        if self.lr is not None and not self.lr > 0:
            raise UsageError(f"Expected lr above 0; got {self.lr:g}. Choose another number.")
        if self.via is not None and not min(self.weights, self.activations) < self.via <= 8:
            raise UsageError(
                f"Expected via of more bits than the {min(self.weights, self.activations)} that it leads to, at most "
                f"8; got {self.via}. Choose another number, or leave it out."
            )
        if self.norm == "live" and not self.per_channel:
            raise UsageError(
                "Expected per_channel=true with norm=live, which is folded into a scale a channel; got false. "
                "Use norm=folded."
            )

    def plan(self, parent: Plan, context: Context) -> Plan:
        """Train at every number of bits on the way; the result's weights lie on their grids.

        Raises UsageError where the Context lends no training.
        """
        fit = context.fit
        if fit is None:
            raise UsageError(
                f"Expected images to train on for {spelling(self)!r}; got none. "
                "Quantize the run itself and name its data, as in quantward quantize RUN --data DATA."
            )
        if fit.taught and self.distill == 1:
            raise UsageError(
                f"Expected distill below 1 with the lesson {fit.taught['lesson']!r}, which has the rest of the loss; "
                "got 1. Choose a smaller share, or leave --lesson out."
            )
        name = " + ".join([spelling(self), *([fit.taught["lesson"]] if fit.taught else ())])
        kept, teacher = kept_layers(parent.program, self.keep), Network(parent).eval().requires_grad_(False)
        begin, how, told = parent, self, []
        for bits in self._way():
            start = static_plan(begin, context, self._table(parent, bits, kept), how._calibrated(bits), name)
            lesson: Lesson = fit.lesson() or plain
            net = self._network(start, bits, fit.images, passes(lesson), context)
            history = self._train(net, self._objective(lesson, teacher, net), bits, fit, context, parent)
            told.append(_stage(bits, history))
            begin = net.latent()
            begin = replace(begin, parent=digest_arrays(begin.weights))
            how = replace(how, equalise=0.0)
        training = {"method": self.method, **fit.taught, "stages": told, "scales": _scales(net)}
        return replace(net.settled(), parent=parent.parent, notes={**start.notes, "training": training})

    def _way(self) -> Iterator[Bits]:
        if self.via is not None:
            yield Bits(max(self.weights, self.via), max(self.activations, self.via))
        yield Bits(self.weights, self.activations)

    def _table(self, parent: Plan, bits: Bits, kept: set[str]) -> dict[str, Bits]:
        least = 2 if bits == Bits(self.weights, self.activations) else self.via or 2
        depthwise = Bits(max(self.depthwise, least), bits.activations)
        return uniform(parent.program, bits, Bits(max(self.ends, least), 8), depthwise, kept)

    def _live(self, bits: Bits) -> bool:
        if self.norm == "auto":
            return self.per_channel and min(bits.weights, bits.activations) < 8
        return self.norm == "live"

    def _calibrated(self, bits: Bits) -> Static:
        """How the start is calibrated: a live normalisation corrects means itself, and would see them twice."""
        return replace(self, correct=self.correct and not self._live(bits))

    def _network(self, start: Plan, bits: Bits, images: int, passes: int, context: Context) -> Learned:
        norms = live_norms(start, context.images(self.samples)) if self._live(bits) else {}
        steps = self.epochs * -(-images // self.batch)
        return Learned(start, self.method, norms, passes * round(self.freeze * steps))

    def _objective(self, lesson: Lesson, teacher: Network, net: Learned) -> Objective:
        clipped = net if self.method == "pact" else None
        return Objective(lesson, teacher, distill=self.distill, temperature=self.temperature, clipped=clipped,
                         clip_decay=self.clip_decay)  # fmt: skip

    def _rate(self, bits: Bits) -> float:
        if self.lr is not None:
            return self.lr
        fewest = min(bits.weights, bits.activations)
        return 1e-4 if fewest >= 8 else 3e-4 if fewest >= 4 else 1e-3

    def _train(self, net: Learned, loss: Objective, bits: Bits, fit: Fit, context: Context, parent: Plan) -> Trained:
        name, stage = spelling(self), f"w{bits.weights}a{bits.activations}"
        folder = context.folder and home(context.folder, name, parent, context.seed, fit.taught) / stage
        return fit(
            net,
            loss,
            groups=net.parameter_groups(self.scale_rate),
            epochs=self.epochs,
            batch=self.batch,
            lr=self._rate(bits),
            patience=self.patience,
            augment=self.augment,
            folder=folder,
            arguments={"recipe": name, "stage": stage, "parent": parent.parent},
        )


def home(folder: Path, recipe: str, parent: Plan, seed: int, taught: Mapping[str, Any]) -> Path:
    """Where one training of one parent keeps its state, so that recipes and lessons can share a folder."""
    return folder / digest_text(recipe, parent.parent, str(seed), *map(str, taught.values()))[:16]


def _stage(bits: Bits, history: Trained) -> dict[str, Any]:
    return {
        "weights": bits.weights,
        "activations": bits.activations,
        "best_epoch": history.best_epoch,
        "ended": history.ended,
        "epochs": [dict(row) for row in history.rows],
    }


def _scales(net: Learned) -> dict[str, Any]:
    """What was learned about ranges: activation -> scale before and after; layer weight -> mean factor of its steps."""
    plan = net.settled()
    activations = {
        name: {"calibrated": float(net.start.tensors[name].scale), "learned": float(plan.tensors[name].scale)}
        for name in net.groups
    }
    weights = {
        name: float(np.exp(np.mean(np.log(plan.tensors[name].scale / net.start.tensors[name].scale))))
        for name in net.weight_specs
    }
    return {"activations": activations, "weights": weights}
