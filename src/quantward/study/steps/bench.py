"""Times all files of one network in turns: ratios between them are then ratios, whatever the machine does meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from quantward.benching import Asked, Effort, time_rows
from quantward.core.machine import describe
from quantward.core.store import plain, write_json
from quantward.core.values import Bench as Timed
from quantward.study.values import Workplace
from quantward.workbench import RUNTIMES, open_variant

ROUNDS, STARTS = 30, 3


@dataclass(frozen=True)
class Bench:
    """Every file on every runtime of the study that reads it. `seconds` are those of each file at each batch size."""

    rooms: ClassVar[tuple[str, ...]] = ("benching", "core.apart", "core.worker", "evaluate.efficiency",
                                        "evaluate.speedups", "runtimes", "study.steps.bench")  # fmt: skip
    libraries: ClassVar[tuple[str, ...]] = ("ai-edge-litert", "numpy", "onnxruntime", "openvino", "torch")

    def run(self, place: Workplace) -> Mapping[str, Any]:
        asked, rows = place.step.asked, []
        formats = {name: RUNTIMES.make(name).formats for name in asked["runtimes"]}
        for part, folder in place.inputs.items():
            file = open_variant(folder / place.facts[part]["file"])
            label = part.removeprefix("file/")
            rows += [Asked(file, runtime, asked["threads"], label) for runtime in asked["runtimes"]
                     if file.format in formats[runtime]]  # fmt: skip
        effort = Effort(tuple(asked["batches"]), ROUNDS, asked["seconds"], STARTS)
        timed, energy = time_rows(rows, effort, track=place.track)
        write_json(place.folder / "bench.json", Timed(timed, describe(), {**vars(effort), "seed": 0}, energy))
        return {"rows": plain(timed), "energy": energy}
