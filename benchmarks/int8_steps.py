"""What each step of int8-static is worth on a trained run, on its test images, by simulation.

    python benchmarks/int8_steps.py RUN DATA

Prints accuracy, agreement with FP32, mean KL divergence from FP32's probabilities (nats) and the signal-to-noise ratio
of the logits, for the recipe as it is and with steps left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from quantward.core.values import Plan, Predictions
from quantward.find import divergence
from quantward.graph.simulate import simulate
from quantward.runs import open_run
from quantward.workbench import cached, calibration, network_inputs, plan_with, softmax

RECIPES = (
    "fp32",
    "int8-static:calibrator=max,equalise=0,correct=false,per_channel=false",
    "int8-static:calibrator=max,equalise=0,correct=false",
    "int8-static:calibrator=max,equalise=0",
    "int8-static:calibrator=max,correct=false",
    "int8-static:calibrator=max",
)


def main() -> None:
    run = open_run(Path(sys.argv[1]), Path(sys.argv[2]))
    how = run.plan.preprocess
    pixels = cached(run.dataset, how)
    context = calibration(pixels, run.fold, how)
    truth = np.asarray(run.dataset.labels)[run.fold.test]

    def logits(plan: Plan) -> np.ndarray:
        network = simulate(plan)
        with torch.inference_mode():
            batches = network_inputs(pixels, run.fold.test, how)
            return np.concatenate([network(torch.from_numpy(batch)).numpy() for batch in batches])

    def said(values: np.ndarray) -> Predictions:
        ids = tuple(map(str, run.fold.test))
        return Predictions(ids, truth, softmax(values), run.dataset.classes)

    print(f"{len(truth)} test images, {len(run.fold.calibrate)} calibration images")
    print("| recipe | accuracy, % | same class as FP32, % | KL, nats | SNR of logits, dB |\n|---|---|---|---|---|")
    baseline: np.ndarray | None = None
    for recipe in RECIPES:
        values = logits(plan_with(recipe, run.plan, context))
        baseline = values if baseline is None else baseline
        noise = float(((values - baseline) ** 2).sum())
        ratio = "-" if noise == 0 else f"{10 * np.log10(float((baseline**2).sum()) / noise):.1f}"
        same = 100 * float((values.argmax(1) == baseline.argmax(1)).mean())
        right = 100 * float((values.argmax(1) == truth).mean())
        print(
            f"| `{recipe}` | {right:.1f} | {same:.1f} | {divergence(said(baseline), said(values)):.4f} | {ratio} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
