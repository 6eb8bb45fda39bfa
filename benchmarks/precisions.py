"""One trained network at many precisions, each as its deployed file, on the run's test images.

    python benchmarks/precisions.py RUN DATA [--recipe RECIPE ...] [--target TARGET --runtime RUNTIME]

Prints accuracy, macro AUPRC and ECE with 95 % intervals, the paired difference of accuracy to FP32 (points), the mean
KL divergence from FP32's probabilities, the file's bytes, the share of layers that the runtime runs as integers, and
how often the file names the class that the Plan's simulation names. What a recipe has trained stays in RUN/trained,
files in RUN/files, predictions in RUN/predictions: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from quantward.audit.arithmetic import arithmetic
from quantward.candidates import divergence
from quantward.core.values import Estimate, Predictions
from quantward.evaluate.paired import assess
from quantward.evaluate.predictions import load, save
from quantward.graph.files import save_plan
from quantward.runs import open_run, plan_run
from quantward.workbench import RUNTIMES, cached, open_session, predictions_of, write_with

RECIPES = (
    "int8-static:calibrator=max,equalise=0.0,correct=false,per_channel=false",
    "int8-static",
    "qat:epochs=3",
    "low-bit",
    "qat:weights=4,epochs=3",
    "low-bit:activations=4",
    "qat:weights=4,activations=4,epochs=5",
    "qat:weights=2,activations=2,via=4,epochs=4",
    "qat:weights=2,activations=2,via=4,epochs=4,method=pact",
    "int4-weights",
    "mixed:ratio=0.22",
)


def share(value: Estimate, scale: float = 100, digits: int = 1) -> str:
    assert value.value is not None and value.low is not None and value.high is not None
    return f"{scale * value.value:.{digits}f} ({scale * value.low:.{digits}f}-{scale * value.high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", action="append", default=[])
    parser.add_argument("--target", default="onnx-cpu")
    parser.add_argument("--runtime", default="onnxruntime")
    given = parser.parse_args()
    run = open_run(given.run, given.data)
    pixels = cached(run.dataset, run.plan.preprocess)
    base: Predictions | None = None
    print(f"{len(run.fold.test)} test images, {len(run.fold.calibrate)} calibration images\n")
    print(
        "| recipe | accuracy, % | difference, points | AUPRC | ECE | KL | MB | integer layers | file = plan, % |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for recipe in ("fp32", *(given.recipe or RECIPES)):
        plan = plan_run(given.run, recipe, given.data)
        file = write_with(given.target, plan, given.run / "files")
        home = save_plan(plan, given.run / "plans" / file.sha256[:16])
        sides = []
        for variant, runtime in ((file, given.runtime), (replace(file, format="plan", path=home), "torch-float")):
            path = given.run / "predictions" / f"{file.sha256[:16]}.{runtime}.csv"
            if not path.exists():
                session = open_session(variant, runtime, 1)
                save(predictions_of(session, run.dataset, run.fold.test, pixels, plan.preprocess, recipe), path)
            sides.append(load(path))
        said, simulated = sides
        base = said if base is None else base
        comparison, _, evaluation = assess(base, said)
        change, overall = comparison.deltas["accuracy"], evaluation.overall
        executed = RUNTIMES.make(given.runtime).executed(file)
        counted = None if executed is None else arithmetic(plan, executed)
        same = float((said.probabilities.argmax(1) == simulated.probabilities.argmax(1)).mean())
        assert change.delta is not None and change.low is not None and change.high is not None
        cells = [
            f"`{recipe}`",
            share(overall["accuracy"]),
            "-"
            if recipe == "fp32"
            else f"{100 * change.delta:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})",
            share(overall["auprc"], 1, 3),
            share(overall["ece"], 1, 3),
            f"{divergence(base, said):.4f}",
            f"{file.bytes / 1e6:.2f}",
            "-" if counted is None else f"{counted.integer} of {counted.layers}",
            f"{100 * same:.2f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
