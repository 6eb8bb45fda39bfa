"""Writes a Plan for a target: leaves the deployed file and its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from quantward.graph.files import load_plan
from quantward.study.values import Workplace
from quantward.workbench import write_with


@dataclass(frozen=True)
class File:
    """A target that cannot express the Plan refuses it: then the row says so."""

    rooms: ClassVar[tuple[str, ...]] = ("graph", "study.steps.file", "targets")
    libraries: ClassVar[tuple[str, ...]] = ("flatbuffers", "numpy", "onnx", "torch")

    def run(self, place: Workplace) -> Mapping[str, Any]:
        made = write_with(place.step.asked["target"], load_plan(place.inputs["plan"] / "plan"), place.folder)
        return {
            "file": made.path.relative_to(place.folder).as_posix(),
            "format": made.format,
            "bytes": made.bytes,
            "sha256": made.sha256,
            "seconds": made.seconds,
            "recipe": made.recipe,
        }
