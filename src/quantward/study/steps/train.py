"""Trains one network on one fold: leaves a RUN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from quantward.core.store import read_json
from quantward.core.values import ROLES
from quantward.data import save_fold
from quantward.runs import train_fold
from quantward.study.images import fold_of
from quantward.study.steps._images import images_of
from quantward.study.steps._teachers import with_teachers
from quantward.study.values import Workplace


@dataclass(frozen=True)
class Train:
    """Goes on in the step's folder where a kill stopped it."""

    rooms: ClassVar[tuple[str, ...]] = ("core.preprocess", "data", "graph", "runs", "study.images", "study.steps.train",
                                        "train")  # fmt: skip
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "pillow", "timm", "torch", "torchvision")

    def run(self, place: Workplace) -> Mapping[str, Any]:
        asked, folder = place.step.asked, place.folder
        images = images_of(Path(place.step.places["data"]), asked["fingerprint"], asked["split"])
        fold = fold_of(images, asked["fold"])
        save_fold(fold, folder / "fold.json")
        weights = place.step.places.get("weights") or asked["weights"]
        model = train_fold(images.dataset, fold, folder, arch=asked["arch"], weights=weights,
                           stage=with_teachers(asked["stage"], place), size=asked["size"], split=asked["split"],
                           seed=asked["seed"], track=place.track)  # fmt: skip
        card = read_json(folder / "model.json")
        return {
            "parameters": sum(parameter.numel() for parameter in model.net.parameters()),
            "epochs": len(card["provenance"]["history"]),
            "best_epoch": card["provenance"]["best_epoch"],
            "classes": list(images.dataset.classes),
            **{role: len(fold.role(role)) for role in ROLES},
        }
