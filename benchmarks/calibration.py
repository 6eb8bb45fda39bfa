"""Time and memory of calibration: our entropy and squared-error ranges against ONNX Runtime's quantizer and NNCF.

    pip install nncf
    python benchmarks/calibration.py PLAN [--images 100 300 1000] [--rounds 3]

PLAN is the folder of a float Plan (RUN/plan). Each measurement is a process of its own on one thread, because peak
memory never falls; the tools take turns within a round. `seconds` is the processor time of calibrating alone, after
all imports and with the images already in memory, the least of the rounds; `memory` is how much the process grew over
what it held just before. A process that needs more than `--limit` GB is stopped and told as such.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TOOLS = ("Quantward, entropy", "Quantward, mse", "ONNX Runtime, entropy", "ONNX Runtime, percentile", "NNCF, default")


def pictures(n: int, size: int) -> Any:
    """Smooth random images, normalised: the values decide no tool's time."""
    draw = np.random.default_rng(0)
    coarse = draw.normal(size=(n, 3, size // 8, size // 8)).astype(np.float32)
    return coarse.repeat(8, axis=2).repeat(8, axis=3)


def one(tool: str, plan_folder: Path, n: int) -> dict[str, float]:
    """Calibrate once in this process: {"seconds", "megabytes"}."""
    import torch

    from quantward.core.contracts import Context
    from quantward.graph.files import load_plan
    from quantward.workbench import plan_with, write_with

    torch.set_num_threads(1)
    plan = load_plan(plan_folder)
    images = pictures(n, plan.preprocess.size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if tool.startswith("Quantward"):

            def batches(limit: int | None) -> Iterator[Any]:
                yield from (images[i : i + 32] for i in range(0, n, 32))

            recipe = f"int8-static:calibrator={tool.rpartition(' ')[2]},equalise=0,correct=false"
            work = lambda: plan_with(recipe, plan, Context(images=batches))  # noqa: E731
        else:
            file = write_with("onnx-cpu", plan, folder).path
            work = _peer(tool, file, folder, images)
        before, started = _resident(), time.process_time()
        work()
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "megabytes": peak - before}


def _peer(tool: str, file: Path, folder: Path, images: Any) -> Any:
    if tool.startswith("NNCF"):
        import nncf
        import onnx

        model = onnx.load(file)
        samples = [{"input": images[i : i + 1]} for i in range(len(images))]
        return lambda: nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples), fast_bias_correction=True)
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter({"input": images[i : i + 1]} for i in range(len(images)))

        def get_next(self) -> Any:
            return next(self.left, None)

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    method = q.CalibrationMethod.Entropy if "entropy" in tool else q.CalibrationMethod.Percentile
    return lambda: q.quantize_static(
        str(prepared), str(folder / "out.onnx"), Reader(), per_channel=True, calibrate_method=method
    )


def _resident() -> float:
    """Megabytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=14.0, help="GB a process may take.")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        ceiling = int(given.limit * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
        print(json.dumps(one(given.one, given.plan, given.images[0])))
        return
    best: dict[tuple[str, int], dict[str, float]] = {}
    for _ in range(given.rounds):
        for n in given.images:
            for tool in TOOLS:
                found = _child(tool, given.plan, n, given.limit)
                known = best.setdefault((tool, n), found)
                best[tool, n] = {key: min(known[key], value) for key, value in found.items()} if found else known
    heads = [f"{n:,} images" for n in given.images]
    print(f"{given.rounds} rounds; processor seconds / MB of growth\n")
    print(f"| tool | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for tool in TOOLS:
        cells = [
            f"{best[tool, n]['seconds']:.1f} s / {best[tool, n]['megabytes']:,.0f} MB"
            if best[tool, n]
            else f"over {given.limit:g} GB"
            for n in given.images
        ]
        print(f"| {tool} | {' | '.join(cells)} |")


def _child(tool: str, plan: Path, n: int, limit: float) -> dict[str, float]:
    command = [sys.executable, __file__, str(plan), "--one", tool, "--images", str(n), "--limit", str(limit)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"{tool}, {n} images: stopped ({done.stderr.strip().splitlines()[-1:]})", file=sys.stderr, flush=True)
        return {}
    found: dict[str, float] = json.loads(lines[-1])
    return found


if __name__ == "__main__":
    main()
