"""Learning from a trained network: its softened probabilities, and how alike it finds the images of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from quantward.core.errors import Refused
from quantward.core.values import Model, Preprocess
from quantward.train.batches import Batch, Images
from quantward.train.files import CARD, Card, load_model, read_card
from quantward.train.head import reads_of_head
from quantward.train.losses import Criterion, Loss, divergence, wide
from quantward.train.spans import span


class Answer(NamedTuple):
    """What a teacher says of some images: logits (b, K) in the student's class order, features (b, f) before its
    head."""

    logits: Tensor
    features: Tensor


@dataclass(eq=False)
class Teacher:
    """A trained network that is asked, never trained. `order` puts its classes in the student's order.

    `known` holds its answers by image number once they have been cached.
    """

    model: Model
    student: Preprocess
    order: tuple[int, ...]
    known: Answer | None = field(default=None, repr=False)

    def __call__(self, batch: Batch) -> Answer:
        """Its answer to a batch of the student's inputs."""
        if self.known is not None:
            return Answer(*(part[batch.indices].to(batch.inputs.device) for part in self.known))
        net: nn.Module = self.model.net.to(batch.inputs.device).eval()
        with span("teacher"), torch.no_grad(), reads_of_head(net) as seen:
            logits = wide(net(seen_by(self.model.preprocess, batch.inputs, self.student)))
        return Answer(logits[:, list(self.order)], seen[-1])

    def remember(self, images: Images, size: int = 64) -> None:
        """Ask once for every training image as it is; from then on no image is asked about again."""
        batches, rows = images.to_tune(size), []
        place = "cuda" if torch.cuda.is_available() else "cpu"
        for start in range(0, len(images.train), size):
            numbers = np.asarray(images.train[start : start + size])
            rows.append(Answer(*(part.cpu() for part in self(batches.batch(numbers, device=place)))))
        count = len(images.labels)
        self.known = Answer(*(_scattered(torch.cat(parts), images, count) for parts in zip(*rows, strict=True)))


def _scattered(rows: Tensor, images: Images, count: int) -> Tensor:
    """Rows in the order of the training images -> one row for every image of the cache."""
    table = torch.zeros(count, rows.shape[1], dtype=rows.dtype)
    table[torch.from_numpy(np.asarray(images.train, np.int64))] = rows
    return table


def distillation(
    judge: Criterion, teacher: Teacher, *, alpha: float = 0.5, temperature: float = 4.0, features: float = 0.0
) -> Loss:
    """(net, batch) -> `loss` + `distill` + `features`.

    (1 - alpha) times the criterion, alpha T^2 KL(teacher at T || student at T) (Hinton et al., "Distilling the
    knowledge in a neural network", 2015), and `features` times `likeness` of what both heads read. A part of weight 0
    is not computed.
    """

    def loss(net: Any, batch: Batch) -> Mapping[str, Tensor]:
        with ExitStack() as stack:
            seen = stack.enter_context(reads_of_head(net)) if features > 0 else []
            logits = net(batch.inputs)
        said, terms = teacher(batch), {}
        if alpha < 1:
            terms["loss"] = (1 - alpha) * judge(logits, batch.labels)
        if alpha > 0:
            terms["distill"] = alpha * divergence(said.logits, logits, temperature)
        if features > 0:
            terms["features"] = features * likeness(said.features, seen[-1])
        return terms

    return loss


def likeness(wanted: Tensor, said: Tensor) -> Tensor:
    """How differently two networks relate the images of a batch: ||G - G'||^2 / b^2, G = A A^T with rows of length 1.

    A (b, f) and A' (b, f') are features; their widths need not agree, so nothing but the student is trained. Tung and
    Mori, "Similarity-preserving knowledge distillation", 2019, eq. 4.

    >>> round(likeness(torch.eye(2), torch.ones(2, 3)).item(), 4)
    0.2929
    """
    first, second = (_related(wide(part)) for part in (wanted, said))
    return (first - second).square().sum() / len(first) ** 2


def _related(features: Tensor) -> Tensor:
    return nn.functional.normalize(features @ features.T, dim=1)


def seen_by(teacher: Preprocess, inputs: Tensor, student: Preprocess) -> Tensor:
    """The student's inputs (b, 3, s, s) as the teacher is used to them: its size, its mean and std."""
    if (teacher.mean, teacher.std) != (student.mean, student.std):
        mean, std, its_mean, its_std = (
            torch.tensor(values, dtype=inputs.dtype, device=inputs.device).view(1, 3, 1, 1)
            for values in (student.mean, student.std, teacher.mean, teacher.std)
        )
        inputs = inputs * (std / its_std) + (mean - its_mean) / its_std
    if teacher.size != student.size:
        inputs = nn.functional.interpolate(inputs, size=(teacher.size, teacher.size), mode="bilinear", antialias=True)
    return inputs


def teacher_card(place: str, arguments: Mapping[str, Any]) -> tuple[Path, Card]:
    """The folder and card of a teacher: a RUN, or the fold of the student's number in the folder of a RUN of folds.

    `arguments` is the record of the student's training. Raises Refused where there is no trained network, or where it
    was trained on the same dataset but another fold: what it learned there are the student's own test images.
    """
    folder, fold = Path(place), arguments.get("fold") or {}
    if not (folder / CARD).exists() and "number" in fold:
        own = folder / f"fold-{fold['number']}"
        folder = own if (own / CARD).exists() else folder
    if not (folder / CARD).exists():
        raise Refused(f"Expected a trained teacher in {place}; there is no {CARD}. Train it with quantward train.")
    card = read_card(folder)
    told = card.provenance.get("arguments") or {}
    data, its = arguments.get("dataset") or {}, told.get("dataset") or {}
    if data and its.get("fingerprint") == data["fingerprint"] and told["fold"]["roles"] != fold["roles"]:
        raise Refused(
            f"Expected a teacher that was trained on the same images; {folder} learned from others of {data['name']}, "
            "among them test images of this run. Train both with the same seed, split and folds."
        )
    return folder, card


def open_teacher(folder: Path, images: Images) -> Teacher:
    """The teacher in a folder, for a student of these images. Raises Refused where its classes are not theirs."""
    model = load_model(folder)
    if set(model.classes) != set(images.classes):
        raise Refused(
            f"Expected a teacher of the classes {', '.join(images.classes)}; {folder} knows "
            f"{', '.join(model.classes)}. Choose one that was trained on them."
        )
    model.net.requires_grad_(False)
    return Teacher(model, images.preprocess, tuple(model.classes.index(name) for name in images.classes))
