"""The one training loop: every stage, and quantization-aware training, runs through `fit`.

What is trained and on which loss comes in as arguments, so that a loss that needs input gradients, a teacher or
fake-quantized weights changes nothing here. The loop owns what all of them need: rates, early stopping, the best
epoch, resuming to the bit, stopping on Ctrl-C without loss, and saying how long it will still take.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from quantward.core.errors import QuantwardError, Refused
from quantward.core.lock import only_run
from quantward.core.progress import Track, silent
from quantward.core.store import digest_arrays, plain
from quantward.train import checkpoint
from quantward.train.arithmetic import precision, repeatable
from quantward.train.batches import Batch, Batches
from quantward.train.checkpoint import Progress, Tensors
from quantward.train.course import Course, rate
from quantward.train.judge import describe, evaluate, minutes
from quantward.train.losses import Loss
from quantward.train.memory import kept_memory
from quantward.train.optimizer import default_groups, freeze_norm, keep_inputs, make_optimizer, rest_frozen
from quantward.train.spans import span
from quantward.train.spans import step as watched_step
from quantward.train.stopping import stop_wish
from quantward.train.team import team

log = logging.getLogger(__name__)


class Stopped(QuantwardError):
    """The run was asked to stop and is safely on disk (the shell's code for an interrupt)."""

    exit_code = 130


@dataclass(frozen=True)
class History:
    """What happened: a row an epoch (losses by name, tuning figures, rate, seconds), and how it ended."""

    rows: tuple[Mapping[str, float], ...] = ()
    best_epoch: int = 0
    ended: str = ""
    seconds: float = 0.0
    precision: str = "32-true"
    arguments: Mapping[str, Any] = field(default_factory=dict)


def fit(
    net: nn.Module,
    train: Batches,
    tune: Batches | None,
    course: Course,
    *,
    loss: Loss,
    seed: int = 0,
    folder: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    groups: Sequence[Mapping[str, Any]] | None = None,
    save_every: float = 300.0,
    track: Track = silent,
) -> History:
    """Train `net` in place; then it holds the best epoch's weights (by `course.monitor` on `tune`), in eval mode.

    With a `folder` the state is saved after every epoch and every `save_every` seconds within one; a run that was
    killed goes on from there and, on one machine's CPU, ends with the same bits as an unbroken one. `arguments` names
    whatever else the result depends on (data, fold, weights): a resumed run with others is refused. `groups` are
    parameter groups as torch knows them, where `share` scales the rate; by default all parameters train.

    Raises Refused for changed arguments, a folder in use, a loss that is no longer finite, no space left;
    Stopped after Ctrl-C or a polite kill.
    """
    if not len(train.indices):
        raise Refused("Expected training images; the fold has none. Make the folds anew.")
    kind = precision(course.precision)
    together = team()
    if together and len(train.indices) // len(train) < together.size:
        raise Refused(
            f"Expected batches of at least one image for each of {together.size} devices; the smallest has "
            f"{len(train.indices) // len(train)}. Raise batch, or use fewer devices."
        )
    whole = plain(
        {
            **(arguments or {}),
            **({"devices": together.size} if together else {}),
            "course": asdict(course),
            "seed": seed,
            "precision": kind,
            "images": digest_arrays({"labels": np.asarray(train.labels), "train": np.asarray(train.indices)}),
        }
    )
    alone = only_run(folder) if folder and together.leads else nullcontext()
    with alone, kept_memory(), repeatable(seed, course.deterministic):
        run = _Run(net, train, tune, course, loss, folder, whole, groups, save_every, track, kind, seed)
        return run.to_the_end()


class _Forward(nn.Module):
    """The net in the run's arithmetic. Fabric's own wrapper would refuse gradients within a step under bf16."""

    def __init__(self, net: nn.Module, fabric: Any) -> None:
        super().__init__()
        self.net, self.arithmetic = net, fabric.autocast

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with span("forward"), self.arithmetic():
            logits: torch.Tensor = self.net(inputs)
        return logits.float() if logits.dtype == torch.bfloat16 else logits


class _Run:
    """One call of `fit`: the objects that live as long as it, and the Progress that is saved."""

    def __init__(
        self,
        net: nn.Module,
        train: Batches,
        tune: Batches | None,
        course: Course,
        loss: Loss,
        folder: Path | None,
        arguments: dict[str, Any],
        groups: Sequence[Mapping[str, Any]] | None,
        save_every: float,
        track: Track,
        kind: str,
        seed: int,
    ) -> None:
        from lightning_fabric import Fabric

        self.team, self.seed = team(), seed
        self.net, self.train, self.course, self.loss = net, train, course, loss
        self.tune = tune if tune is not None and len(tune.indices) else None
        self.folder, self.save_every, self.track, self.kind = folder, save_every, track, kind
        place = "cuda" if torch.cuda.is_available() else "cpu"
        self.fabric = Fabric(accelerator=place, devices=[self.team.rank] if place == "cuda" else 1, precision=kind)
        # Channels-last first: the optimizer's moments take the layout of the parameters they belong to.
        net.to(device=self.fabric.device)
        net.to(memory_format=torch.channels_last)
        keep_inputs(net)
        self.team.follow(net)
        self.optimizer = make_optimizer(course, groups or default_groups(net, course))
        self.forward = _Forward(net, self.fabric)
        self.fabric_optimizer = self.fabric.setup_optimizers(self.optimizer)
        if isinstance(loss, nn.Module):
            loss.to(self.fabric.device)
        self.shares = [group.get("share", 1.0) for group in self.optimizer.param_groups]
        self.progress = Progress(arguments)
        self.best: Tensors | None = None
        self.sums: dict[str, torch.Tensor] = {}
        self.saved = self.started = time.monotonic()
        if folder is not None:
            self._go_on(folder, arguments)
            # Nobody writes a new state before all have read the old one.
            self.team.wait(self.fabric.device)

    def to_the_end(self) -> History:
        """Train until the course, or the patience, is at its end."""
        with stop_wish() if self.team.leads else nullcontext(lambda: False) as wished:
            while not self.progress.finished:
                self._epoch(wished)
                self._judge()
                if wished() and not self.progress.finished:
                    raise Stopped(self._farewell())
        if self.best is not None:
            self.net.load_state_dict(self.best)
        self.net.to("cpu").eval()
        done = self.progress
        return History(tuple(done.history), done.best_epoch, done.finished, done.seconds, self.kind, done.arguments)

    def _go_on(self, folder: Path, arguments: dict[str, Any]) -> None:
        found = checkpoint.read(folder, arguments)
        if found is None and not self.team.leads:
            return
        if found is None:
            need = 6 * sum(t.numel() * t.element_size() for t in self.net.state_dict().values())
            folder.mkdir(parents=True, exist_ok=True)
            if (free := shutil.disk_usage(folder).free) < need:
                raise Refused(
                    f"Expected {need / 1e6:.0f} MB of free space in {folder} for checkpoints; there are "
                    f"{free / 1e6:.0f}. Free some, or choose another folder."
                )
            return
        self.progress, tensors = found
        weights = {name[4:]: tensor for name, tensor in tensors.items() if name.startswith("net.")}
        self.net.load_state_dict(weights)
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict({name[5:]: t for name, t in tensors.items() if name.startswith("loss.")})
        checkpoint.unpack_optimizer(self.optimizer, tensors)
        torch.set_rng_state(tensors["random.cpu"])
        if self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.fabric.device)
        if self.progress.best is not None:
            self.best = checkpoint.read_best(folder, self.progress.best_epoch)
        log.info("going on at epoch %d, batch %d", self.progress.epoch + 1, self.progress.batch + 1)

    def _epoch(self, wished: Callable[[], bool]) -> None:
        """Train on what is left of the current epoch."""
        course, per_epoch = self.course, len(self.train)
        self.net.train()
        rest_frozen(self.net)
        if course.freeze_norm:
            freeze_norm(self.net)
        epoch, first = self.progress.epoch, self.progress.batch
        device = self.fabric.device
        self.sums = {
            name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in self.progress.sums.items()
        }
        self.started = time.monotonic() - self.progress.seconds
        batches = self.train.epoch(epoch, first, device, self.team.part)
        for number, batch in enumerate(self.track(batches, self._label(), per_epoch - first), first):
            step = epoch * per_epoch + number
            now = rate(course, step, course.epochs * per_epoch, self.progress.factor)
            for group, share in zip(self.optimizer.param_groups, self.shares, strict=True):
                group["lr"] = now * share
            self.team.seed(self.seed, step)
            with watched_step(self.net, len(batch.labels)):
                self._step(batch)
            stop = wished()
            if number + 1 < per_epoch and (stop or self._due()):
                self._record(number + 1)
                self._save()
            if stop and number + 1 < per_epoch:
                raise Stopped(self._farewell())

    def _step(self, batch: Batch) -> None:
        with span("loss"):
            terms = self.loss(self.forward, batch)
            total = torch.stack([term.float() for term in terms.values()]).sum()
        with span("backward"):
            self.fabric.backward(total)
        count = len(batch.labels)
        one = total.new_ones((), dtype=torch.float64)
        weighted = torch.stack([*(term.detach().double() for term in terms.values()), one]) * count
        *values, everybody = self.team.sum(weighted).unbind()
        if self.team:
            self.team.average(self._shared(), count / float(everybody))
        with span("optimizer"):
            self._move()
        for name, value in zip(terms, values, strict=True):
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def _shared(self) -> list[torch.Tensor]:
        """What differs between devices after a backward pass: gradients, and running statistics of net and loss."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms = [module for module in self.net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        running = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
        own = self.loss.buffers() if isinstance(self.loss, nn.Module) else ()
        return [*gradients, *running, *(value for value in own if value.is_floating_point())]

    def _move(self) -> None:
        """From gradients to new weights."""
        if self.course.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.course.clip)
        self.fabric_optimizer.step()
        self.fabric_optimizer.zero_grad(set_to_none=True)

    def _judge(self) -> None:
        """After an epoch: look at the tuning images, keep the best, decide whether to go on, save."""
        course, done = self.course, self.progress
        self._record(0)
        count = len(self.train.indices)
        row = {f"train_{name}": value / count for name, value in self.progress.sums.items()}
        if self.tune is not None:
            self.net.eval()
            with span("validation", whole=True):
                told = evaluate(self.forward, self.tune, self.fabric.device, self.team)
            row |= {f"tune_{name}": value for name, value in told.items()}
        number, seconds = done.epoch + 1, time.monotonic() - self.started
        row = {"epoch": number, **row, "rate": self.optimizer.param_groups[0]["lr"]}
        row["seconds"] = seconds - sum(earlier["seconds"] for earlier in done.history)
        if not all(math.isfinite(value) for value in row.values()):
            raise Refused(
                f"Expected a finite loss; after epoch {number} it is not. Lower lr (now {course.lr:g}) or set clip=1."
            )
        done = replace(done, epoch=number, batch=0, sums={}, history=[*done.history, row], seconds=seconds)
        done = self._compare(done, row)
        if not done.finished and done.epoch >= course.epochs:
            done = replace(done, finished=f"all {course.epochs} epochs")
        self.progress = done
        self._save()
        log.info("%s", describe(row, course.epochs))

    def _compare(self, done: Progress, row: Mapping[str, float]) -> Progress:
        """Keep the best epoch, count the idle ones, lower the rate on a plateau."""
        course = self.course
        if self.tune is None:
            return replace(done, best_epoch=done.epoch)
        score = row["tune_loss"] if course.monitor == "loss" else -row["tune_accuracy"]
        if done.best is None or score < done.best:
            self.best = {name: checkpoint.stored(tensor) for name, tensor in self.net.state_dict().items()}
            if self.folder is not None and self.team.leads:
                with span("checkpoint"):
                    checkpoint.write_best(self.folder, done.epoch, self.best)
            done = replace(done, best=score, best_epoch=done.epoch)
        if done.reference is None or score < done.reference - course.min_delta:
            return replace(done, reference=score, waited=0, rested=0)
        done = replace(done, waited=done.waited + 1, rested=done.rested + 1)
        if course.schedule == "plateau" and done.rested >= max(1, course.patience // 2):
            done = replace(done, factor=done.factor * 0.1, rested=0)
        if done.waited >= course.patience:
            done = replace(done, finished=f"no better {course.monitor} for {course.patience} epochs")
        return done

    def _record(self, batch: int) -> None:
        """Bring what lives on the device into the Progress."""
        sums = {name: float(value) for name, value in self.sums.items()}
        if not all(math.isfinite(value) for value in sums.values()):
            raise Refused(
                f"Expected a finite loss; in epoch {self.progress.epoch + 1} it is not. "
                f"Lower lr (now {self.course.lr:g}) or set clip=1."
            )
        self.progress = replace(self.progress, batch=batch, sums=sums, seconds=time.monotonic() - self.started)

    def _due(self) -> bool:
        return self.folder is not None and self.team.leads and time.monotonic() - self.saved >= self.save_every

    def _save(self) -> None:
        if self.folder is None or not self.team.leads:
            return
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        if isinstance(self.loss, nn.Module):
            tensors |= {f"loss.{name}": tensor for name, tensor in self.loss.state_dict().items()}
        tensors |= checkpoint.pack_optimizer(self.optimizer)
        tensors["random.cpu"] = torch.get_rng_state()
        if self.fabric.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        with span("checkpoint"):
            checkpoint.write(self.folder, self.progress, tensors)
        self.saved = time.monotonic()

    def _label(self) -> str:
        """What the progress bar says: the epoch, the last tuning figures, and the time that is left for all epochs."""
        done, course = self.progress, self.course
        parts = [f"epoch {done.epoch + 1}/{course.epochs}"]
        if done.history:
            last = done.history[-1]
            if "tune_loss" in last:
                parts.append(f"tune loss {last['tune_loss']:.3f}, accuracy {last['tune_accuracy']:.1%}")
            else:
                parts.append(f"loss {sum(v for k, v in last.items() if k.startswith('train_')):.3f}")
            parts.append(f"at most {minutes((course.epochs - done.epoch) * last['seconds'])} left in all")
        return ", ".join(parts)

    def _farewell(self) -> str:
        done = self.progress
        where = f"epoch {done.epoch + 1} of {self.course.epochs}, batch {done.batch} of {len(self.train)}"
        if self.folder is None:
            return f"Stopped at {where}; nothing was saved, as no folder was given. Start again with a folder."
        return f"Stopped at {where}; saved in {self.folder}. Give the same command again to go on from there."
