"""A trained model on disk: `model.safetensors` for the weights, `model.json` for what they mean and came from."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from quantward.core.errors import Refused
from quantward.core.store import atomic, decode, digest_file, read_json, write_json, write_text
from quantward.core.values import Model, Preprocess
from quantward.train.backbones import create
from quantward.train.checkpoint import read_tensors, stored

WEIGHTS, CARD = "model.safetensors", "model.json"


@dataclass(frozen=True)
class Card:
    """What `model.json` holds."""

    arch: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    sha256: str
    options: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    format: int = 1


def save_model(model: Model, folder: Path | str, *, options: Mapping[str, Any] | None = None) -> Path:
    """Write a Model whose net is the timm network `model.name`, made with `options`. Returns the folder.

    The card is written last, so that a folder with a card is a whole one. Raises Refused for weights that are not
    finite.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    tensors = {name: stored(tensor) for name, tensor in model.net.state_dict().items()}
    _refuse_not_finite(tensors, folder / WEIGHTS)
    with atomic(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    card = Card(
        arch=model.name,
        classes=model.classes,
        preprocess=model.preprocess,
        sha256=digest_file(folder / WEIGHTS),
        options=dict(options or {}),
        provenance=dict(model.provenance),
    )
    write_json(folder / CARD, card)
    return folder


def load_model(folder: Path | str) -> Model:
    """Read what `save_model` wrote; the net is in eval mode on the CPU.

    Raises Refused when a file is absent, damaged, not the one the card was written for, or of another shape.
    """
    folder = Path(folder)
    card = read_card(folder)
    if digest_file_of(folder / WEIGHTS) != card.sha256:
        raise Refused(
            f"Expected {folder / WEIGHTS} to be the file its {CARD} was written for; its hash differs. "
            "Restore the file, or train anew."
        )
    tensors, _ = read_tensors(folder / WEIGHTS)
    _refuse_not_finite(tensors, folder / WEIGHTS)
    with torch.random.fork_rng(devices=[]):
        net = create(card.arch, len(card.classes), card.options)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).partition("\n")[2].strip().partition("\n")[0]
        raise Refused(
            f"Expected the weights of {card.arch} with {len(card.classes)} classes in {folder}; {reason} Train anew."
        ) from None
    return Model(card.arch, net.eval(), card.preprocess, card.classes, card.provenance)


def read_card(folder: Path) -> Card:
    """The card of a model folder."""
    return decode(Card, read_json(folder / CARD), folder / CARD)


def digest_file_of(path: Path) -> str:
    """The hash of a file. Raises Refused where there is none."""
    if not path.is_file():
        raise Refused(f"Expected a file at {path}; there is none. Restore it, or train anew.")
    return digest_file(path)


def write_history(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """The epochs as `history.json` and, for a spreadsheet, `history.csv`."""
    write_json(folder / "history.json", rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "history.csv", text.getvalue())


def _refuse_not_finite(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Refused(f"Expected finite weights in {path}; {name} holds NaN or infinity. Train with a lower lr.")
