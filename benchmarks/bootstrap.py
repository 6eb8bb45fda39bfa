"""How fast the paired bootstrap is, against a loop over scikit-learn on the same draws, in one interleaved run.

    python benchmarks/bootstrap.py                       # n = 10,000, 7 classes, two models, B = 10,000
    python benchmarks/bootstrap.py --large               # n = 1,000,000, B = 1,000, with a bar and the peak memory

Figures are CPU seconds of this process on one thread, the least of the rounds, so that a busy machine weighs on all
alike; the loop is timed for a few replicates in each round and extrapolated.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from quantward.core.progress import bar
from quantward.evaluate import draws
from quantward.evaluate.bootstrap import Engine, bootstrap, fast_is_installed
from quantward.evaluate.metrics import OVERALL

AREAS = ("auroc", "auprc")
Array = npt.NDArray[np.float64]


def made(n: int, classes: int, seed: int) -> tuple[npt.NDArray[np.int64], list[Array]]:
    """Truth and the probabilities of two models that nearly agree."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), truth] += 1.5
    models = []
    for noise in (0.0, 0.1):
        p = np.exp(logits + noise * rng.normal(size=logits.shape))
        models.append(p / p.sum(axis=1, keepdims=True))
    return truth, models


def loop(truth: npt.NDArray[np.int64], models: list[Array], replicates: int, seed: int) -> list[Array]:
    """AUROC and AP, macro, of both models, as it is usually written; (2, replicates) a model."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    picks = draws.drawn(draws.base_of(seed), 0, replicates, draws.units(len(truth)))
    found = [np.empty((2, replicates)) for _ in models]
    classes = range(models[0].shape[1])
    for b, rows in enumerate(picks):
        for model, into in zip(models, found, strict=True):
            drawn, score = truth[rows], model[rows]
            into[0, b] = np.mean([roc_auc_score(drawn == k, score[:, k]) for k in classes])
            into[1, b] = np.mean([average_precision_score(drawn == k, score[:, k]) for k in classes])
    return found


def timed(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def compared(n: int, classes: int, replicates: int, rounds: int, seed: int) -> None:
    truth, models = made(n, classes, seed)
    engines: list[Engine] = ["numpy", "numba"] if fast_is_installed() else ["numpy"]
    part = max(1, 50 // rounds)
    looped = loop(truth, models, part, seed)
    for engine in engines:
        ours = bootstrap(truth, models, replicates=part, seed=seed, wanted=AREAS, engine=engine)
        off = max(
            float(np.abs(one.overall[name] - two[row]).max())
            for one, two in zip(ours, looped, strict=True)
            for row, name in enumerate(AREAS)
        )
        if off > 1e-12:
            sys.exit(f"{engine} is off by {off}")
    best: dict[str, float] = {}

    def keep(name: str, seconds: float) -> None:
        best[name] = min(best.get(name, float("inf")), seconds)

    for _ in range(rounds):
        keep("loop", timed(lambda: loop(truth, models, part, seed)) * replicates / part)
        for engine in engines:
            for label, wanted in (("AUROC + AP", AREAS), ("all metrics", OVERALL)):
                keep(
                    f"{engine}, {label}",
                    timed(
                        lambda engine=engine, wanted=wanted: bootstrap(  # type: ignore[misc]
                            truth, models, replicates=replicates, seed=seed, wanted=wanted, threads=1, engine=engine
                        )
                    ),
                )
    print(f"n = {n:,}, {classes} classes, 2 models, B = {replicates:,}; CPU seconds, least of {rounds} rounds\n")
    print("| | CPU s | times faster than the loop |\n|---|---|---|")
    print(f"| scikit-learn loop, AUROC + AP (from {part} replicates a round) | {best['loop']:.0f} | 1 |")
    for name, seconds in best.items():
        if name != "loop":
            ratio = f"{best['loop'] / seconds:.0f}" if "AUROC" in name else "-"
            print(f"| {name} | {seconds:.1f} | {ratio} |")
    for engine in engines:
        more = best[f"{engine}, all metrics"] / best[f"{engine}, AUROC + AP"]
        print(f"\n{engine}: all metrics take {more:.1f} times the time of AUROC + AP.")


def large(n: int, classes: int, replicates: int, seed: int) -> None:
    truth, models = made(n, classes, seed)
    before = time.perf_counter()
    bootstrap(truth, models, replicates=replicates, seed=seed, track=bar)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"n = {n:,}, {classes} classes, 2 models, all metrics, B = {replicates:,}: "
        f"{time.perf_counter() - before:.0f} s, peak memory {peak:.1f} GB"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--replicates", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args()
    if given.large:
        large(given.n or 1_000_000, given.classes, given.replicates or 1_000, given.seed)
    else:
        compared(given.n or 10_000, given.classes, given.replicates or 10_000, given.rounds, given.seed)
