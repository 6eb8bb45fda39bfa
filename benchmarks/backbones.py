"""The eight backbones of the INT8 reliability paper, as files of every kind, timed in turns on every runtime here.

    python benchmarks/backbones.py OUT [--arch NAME ...] [--batch 1 --batch 32] [--seconds 5] [--prepare]

Random weights (4 classes, 224 px): what is measured is speed, size and the time to make a file, none of which depends
on what a network has learned; normalisations are drawn so that no branch is zero. Each backbone is one interleaved
`quantward bench`, kept in OUT/<backbone>.json: a run that was stopped goes on with the next one. Prints a row for each
file and, last, the best INT8 row of each backbone beside the paper's Table 4. `--prepare` only writes the files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from quantward.benching import Effort, bench_files
from quantward.core.contracts import Context
from quantward.core.errors import QuantwardError
from quantward.core.progress import bar
from quantward.core.store import read_json
from quantward.core.values import Bench, Efficiency, Model, Plan, Speedup
from quantward.evaluate.results import load_bench, save_bench
from quantward.graph.capture import capture
from quantward.graph.files import load_plan, save_plan
from quantward.train.backbones import build
from quantward.workbench import plan_with, write_with

PAPER = {
    "resnet18": 3.39,
    "resnet50": 3.45,
    "densenet121": 5.62,
    "efficientnet_b0": 1.03,
    "mobilenetv2_100": 1.22,
    "convnext_tiny": 1.74,
    "swin_tiny_patch4_window7_224": 1.12,
    "vit_base_patch16_224": 1.59,
}
"""INT8 over FP32 in PyTorch eager, p50 at batch 1: Table 4 of the paper."""

STATIC = "int8-static:calibrator=max,correct=false"
FILES = (
    ("onnx-cpu", "fp32"),
    ("onnx-cpu", STATIC),
    ("onnx-cpu", f"{STATIC},placement=readers"),
    ("litert", "fp32"),
    ("litert", "fp16"),
    ("litert", STATIC),
    ("torch-int8", STATIC),
)
DENSE = tuple((target, f"{STATIC},placement=joint") for target in ("onnx-cpu", "litert"))
"""For networks of dense blocks; for others the same file as with `readers`."""
RUNTIMES = ("torch-float", "onnxruntime", "openvino", "openvino:precision=bf16", "litert", "torch-int8",
            "torch-int8:engine=fbgemm")  # fmt: skip


def prepared(arch: str, home: Path) -> list[Path]:
    """The float Plan (for PyTorch eager) and every file that can be made of it; a refusal is printed."""
    plan_folder = home / arch / "plan"
    if not (plan_folder / "plan.json").exists():
        save_plan(untrained(arch), plan_folder)
    parent, plans = load_plan(plan_folder), dict[str, Plan]()
    noise = np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32)
    context = Context(images=lambda n: iter([noise]))
    found = [plan_folder]
    for target, recipe in (*FILES, *(DENSE if arch.startswith("densenet") else ())):
        folder = home / arch / target
        kept = {read_json(card)["recipe"]: card for card in folder.glob("*.json")}
        if recipe in kept:
            found.append(kept[recipe].with_suffix(""))
            continue
        try:
            if recipe not in plans:
                plans[recipe] = plan_with(recipe, parent, context)
            found.append(write_with(target, plans[recipe], folder).path)
        except QuantwardError as error:
            print(f"{arch}: no {recipe} for {target}: {error}", flush=True)
    return found


def untrained(arch: str) -> Plan:
    """A network whose normalisations are drawn, so that no branch is zero as fresh ones are."""
    made = build(arch, 4, weights="none", size=224)
    torch.manual_seed(0)
    for module in made.net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return capture(Model(arch, made.net.eval(), made.preprocess, tuple("abcd")))


def line(arch: str, row: Efficiency) -> str:
    """One row of the table; `*` marks a figure whose spread is over 10 %."""
    ms = {one.batch: f"{one.p50:.2f}{'' if one.reliable else '*'} / {one.p99:.2f}" for one in row.latency}
    against = eager(row)
    ratio = "-" if against is None else f"{against.value:.2f} ({against.low:.2f}-{against.high:.2f})"
    cells = [arch, f"`{row.recipe.removeprefix('int8-static:').replace(STATIC[12:], 'INT8')}`", f"`{row.runtime}`",
             ms.get(1, row.failure or "-"), "-" if row.throughput is None or 32 not in ms else f"{row.throughput:.1f}",
             f"{row.bytes / 1e6:.2f}", f"{row.seconds:.1f}", ratio]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def eager(row: Efficiency) -> Speedup | None:
    """How many times as fast as PyTorch eager FP32, for one image."""
    return next((one for one in row.speedups if one.batch == 1 and "torch-float" in one.reference), None)


def best(rows: Sequence[Efficiency]) -> tuple[Efficiency, Speedup] | None:
    """The INT8 row with the largest speed-up."""
    found = [(row, told) for row in rows if row.recipe.startswith("int8") and (told := eager(row)) is not None]
    return max(found, key=lambda pair: pair[1].value, default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arch", action="append", choices=PAPER, default=[])
    parser.add_argument("--batch", action="append", type=int, default=[])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--prepare", action="store_true")
    given = parser.parse_args()
    batches = tuple(sorted(given.batch or (1, 32)))
    results: dict[str, Bench] = {}
    for arch in given.arch or PAPER:
        files = prepared(arch, given.out)
        kept = given.out / f"{arch}.{'-'.join(map(str, batches))}.json"
        if not kept.exists() and not given.prepare:
            effort = Effort(batches, seconds=given.seconds, starts=1)
            save_bench(bench_files(files, runtimes=RUNTIMES, effort=effort, track=bar), kept)
        if kept.exists():
            results[arch] = load_bench(kept)
    print("| backbone | file | runtime | p50 / p99 ms, batch 1 | images/s, batch 32 | MB | s to make | x eager FP32 |")
    print("|---|---|---|---|---|---|---|---|")
    for arch, found in results.items():
        for row in found.rows:
            if row.latency:
                print(line(arch, row))
    for reason in sorted(
        {f"`{row.runtime}`: {row.failure}" for found in results.values() for row in found.rows if row.failure}
    ):
        print(f"\nNot timed: {reason}")
    print("\n| backbone | fastest INT8 here | x eager FP32 | the paper's Table 4 |\n|---|---|---|---|")
    for arch, found in results.items():
        if (top := best(found.rows)) is not None:
            row, told = top
            print(f"| {arch} | `{row.recipe}` on `{row.runtime}` | {told.value:.2f} ({told.low:.2f}-{told.high:.2f}) "
                  f"| {PAPER[arch]:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
