"""The whole job on made-up images: what a newcomer sees first, and the smallest complete example."""

from __future__ import annotations

from pathlib import Path

from quantward.candidates import Search, Step
from quantward.core.progress import Track, silent
from quantward.core.store import write_text
from quantward.core.values import Dossier
from quantward.data import make_toy
from quantward.evaluate import read_gates
from quantward.find import search_run
from quantward.runs import train_run

ARCH, SIZE, STAGE = "resnet10t", 64, "fit:epochs=10,lr=0.003"


LADDER = (
    Step("FP16", ("fp16",)),
    Step("INT8", ("int8-static:calibrator=max", "int8-static", "int8-static:reduce_range=true")),
    Step("INT8/INT4", ("mixed:ratio=0.22",)),
)
"""One or few candidates a step: the default ladder of `find` would keep a newcomer waiting twice as long."""

GATES = """# What six hundred made-up images can prove; your own gates go into a file like this one.
gates:
  accuracy-drop: 0.05
  auroc-drop: 0.03
  ece-increase: 0.05
  flip-rate: 0.10
  single-class-collapse: 0.95
  finite-outputs: 0
  agreement: 0.98
  size-ratio: 1.0
"""


def run(out: Path, *, images: int = 2000, seed: int = 0, track: Track = silent) -> tuple[Dossier, Path, Path | None]:
    """Draw phantoms, train a small network from random weights, search, report: (dossier, report, bundle).

    Run again, it picks up what is already in `out`.
    """
    data = out / "data"
    make_toy(data, n=images, seed=seed, track=track)
    train_run(data, out / "run", arch=ARCH, weights="none", stage=STAGE, size=SIZE, split="own", seed=seed, track=track)
    gates = out / "gates.yaml"
    write_text(gates, GATES)
    search = Search(read_gates(gates), ladder=LADDER, replicates=5_000, seed=seed)
    return search_run(out / "run", data, search, out / "run" / "find", track=track)
