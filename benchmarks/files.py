"""What lies in the ONNX files of one network, and what two runtimes make of them: bytes, integer layers, and how far
the answers are from the Plan's. The table in docs/targets.md comes from here.

    python benchmarks/files.py RUN/plan

Ranges and answers are those of 16 images of smooth noise, drawn from a seed: files are compared here, not accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from quantward.audit.size import size
from quantward.core.apart import executed
from quantward.core.contracts import Batch, Context
from quantward.core.errors import Refused
from quantward.core.preprocess import normalise
from quantward.core.values import FloatArray, Plan, Variant
from quantward.graph.files import load_plan
from quantward.workbench import open_session, plan_with, write_with

RECIPES = (
    "fp32",
    "int8-static",
    "int8-static:placement=readers",
    "int16x8",
    "low-bit",
    "low-bit:weights=4,activations=4",
    "low-bit:weights=4,activations=4,placement=readers",
    "low-bit:weights=2,activations=4",
    "int4-weights",
)
RUNTIMES = ("onnxruntime", "openvino")
PLAIN = {"int8": "rounding=nearest,correct=false", "int16x8": "correct=false", "fp32": ""}
"""Options that leave out what changes no byte and takes time, by the start of a recipe's name."""


def noise(count: int, side: int, seed: int) -> Batch:
    """(count, side, side, 3) uint8: sums of four noises, each twice as coarse as the one before."""
    rng = np.random.default_rng(seed)
    total = np.zeros((count, side, side, 3))
    for cell in (1, 2, 4, 8):
        small = rng.normal(size=(count, -(-side // cell), -(-side // cell), 3))
        total += cell * small.repeat(cell, 1).repeat(cell, 2)[:, :side, :side]
    low, high = total.min((1, 2, 3), keepdims=True), total.max((1, 2, 3), keepdims=True)
    return np.asarray((total - low) / (high - low) * 255, np.uint8)


def plainly(recipe: str) -> str:
    """The recipe without adaptive rounding and bias correction."""
    name, _, given = recipe.partition(":")
    plain = PLAIN.get(name, PLAIN["int8"])
    return ":".join(part for part in (name, ",".join(part for part in (given, plain) if part)) if part)


def row(recipe: str, parent: Plan, images: Batch, folder: Path) -> list[str]:
    """The cells of one recipe."""

    def again(_: int | None) -> Iterator[Batch]:
        yield images

    plan = plan_with(plainly(recipe), parent, Context(images=again, seed=0))
    file = write_with("onnx-cpu", plan, folder)
    planned = open_session(write_with("simulation", plan, folder / f"plan-{file.sha256[:8]}"), "torch-float", 1)(images)
    cells = [f"`{recipe}`", f"{file.bytes:,}", f"{size(plan, file).overhead:.1%}"]
    for runtime in RUNTIMES:
        cells += [integers(file, runtime), apart(file, runtime, images, planned)]
    return cells


def integers(file: Variant, runtime: str) -> str:
    """How many of the layers multiply integers there."""
    found = executed(file, runtime)
    return "" if found is None else f"{found.layers.get('int8', 0)} of {sum(found.layers.values())}"


def apart(file: Variant, runtime: str, images: Batch, planned: FloatArray) -> str:
    """Largest difference of a logit from the Plan's, as a share of the logits' range."""
    try:
        said = open_session(file, runtime, 1)(images)
    except Refused as error:
        return str(error)
    return f"{np.abs(said - planned).max() / np.ptp(planned):.1%}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="A float Plan: RUN/plan.")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    parent = load_plan(asked.plan)
    images = normalise(noise(asked.images, parent.preprocess.size, asked.seed), parent.preprocess)
    head = ["recipe", "bytes", "over what the bits promise"]
    for runtime in RUNTIMES:
        head += [f"integer layers, {runtime}", f"difference from the Plan, {runtime}"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for recipe in RECIPES:
            print(f"| {' | '.join(row(recipe, parent, images, Path(folder)))} |", flush=True)


if __name__ == "__main__":
    main()
