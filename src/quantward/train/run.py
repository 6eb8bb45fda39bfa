"""From cached pixels, a fold and an architecture to a trained Model in a folder: one call, safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from quantward.core import machine
from quantward.core.errors import Refused
from quantward.core.lock import only_run
from quantward.core.progress import Track, silent
from quantward.core.registry import spelling
from quantward.core.store import digest_arrays, plain
from quantward.core.values import Dataset, Fold, ImageArray, Model, Preprocess
from quantward.train import checkpoint
from quantward.train.backbones import build
from quantward.train.batches import Images
from quantward.train.crew import crew, devices
from quantward.train.files import CARD, load_model, read_card, save_model, write_history
from quantward.train.loop import History
from quantward.train.losses import Loss


class Stage(Protocol):
    """A way to train; a file in `stages/` holds one. `run` trains `net` in place and may be killed and called again.

    `lesson` is its loss alone, for another loop over the same images. `depends` names what else than `arguments` its
    result depends on (a teacher), and refuses what must not be."""

    def depends(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]: ...

    def lesson(self, images: Images, arguments: Mapping[str, Any] | None = None) -> Loss: ...

    def run(
        self,
        net: nn.Module,
        images: Images,
        *,
        seed: int,
        folder: Path | None,
        arguments: Mapping[str, Any],
        track: Track = silent,
    ) -> History: ...


def train_model(
    dataset: Dataset,
    fold: Fold,
    pixels: ImageArray,
    *,
    arch: str,
    stage: Stage,
    folder: Path | str,
    weights: str | Path | None = None,
    preprocess: Preprocess | None = None,
    seed: int = 0,
    track: Track = silent,
) -> Model:
    """Train `arch` on the fold's `train` images, stop by its `tune` images, write the Model to `folder`, return it.

    `pixels` is the decoded cache, (n, size, size, 3) uint8, row i for image i of the dataset, made with `preprocess`
    (by default `preprocess_of(arch, weights, size)`). Called again with the same arguments it goes on where it was
    killed, or returns the finished Model at once.

    Raises Refused when the folder belongs to other arguments or another process, or data and cache do not fit.
    """
    folder = Path(folder)
    if pixels.ndim != 4 or len(pixels) != len(dataset):
        raise Refused(
            f"Expected one decoded image for each of the {len(dataset)} in {dataset.name}; got an array of shape "
            f"{pixels.shape}. Build the pixel cache anew."
        )
    if fold.dataset != dataset.fingerprint:
        raise Refused(f"Expected a fold of {dataset.name} as it is now; it was made before a change. Make it anew.")
    net, how, record = build(arch, len(dataset.classes), weights=weights, size=pixels.shape[1], seed=seed)
    how = preprocess or how
    labels = np.asarray(dataset.labels)
    images = Images(pixels, labels, np.asarray(fold.train), np.asarray(fold.tune), dataset.classes, how)
    arguments: dict[str, Any] = {
        "arch": arch,
        "stage": spelling(stage),
        "seed": seed,
        "weights": record,
        "preprocess": how,
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint, "classes": dataset.classes},
        "fold": {
            "number": fold.number,
            "of": fold.of,
            "seed": fold.seed,
            "roles": digest_arrays({"train": images.train, "tune": images.tune}),
        },
    }
    if devices() > 1:
        arguments["devices"] = devices()
    arguments |= stage.depends(arguments)
    with only_run(folder):
        if (folder / CARD).exists():
            checkpoint.refuse_changes(read_card(folder).provenance.get("arguments"), plain(arguments), folder)
            return load_model(folder)
        job = {"arch": arch, "options": record["options"], "stage": spelling(stage), "seed": seed,
               "arguments": arguments, "folder": folder}  # fmt: skip
        with crew(devices(), images, job):
            history = stage.run(net, images, seed=seed, folder=folder, arguments=arguments, track=track)
        provenance = {
            "arguments": plain(arguments),
            "machine": machine.describe(),
            "precision": history.precision,
            "best_epoch": history.best_epoch,
            "ended": history.ended,
            "seconds": round(history.seconds, 1),
            "images": {"train": len(images.train), "tune": len(images.tune)},
            "history": list(history.rows),
        }
        model = Model(arch, net.eval(), how, dataset.classes, plain(provenance))
        write_history(folder, history.rows)
        save_model(model, folder, options=record["options"])
        checkpoint.discard(folder)
        # Read back, so that this call and every later one hand out the very same model.
        return load_model(folder)
