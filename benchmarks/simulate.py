"""How often the tests are wrong when nothing differs, and how often the intervals hold the truth: by simulation.

    python benchmarks/simulate.py null         # rejections of a true null at alpha 0.05, coverage of a zero difference
    python benchmarks/simulate.py single       # coverage of one model's intervals, by the number of positives
    python benchmarks/simulate.py margin       # how often a candidate that is exactly on the margin passes its gate
    python benchmarks/simulate.py floor        # ECE of perfectly calibrated models, and the two debiased views of it

A null pair: baseline and candidate see the same signal and each its own disturbance of the same size, so every
metric's true difference is zero. Each table names its simulations; the standard error of a rate of 5 % from 1,000 of
them is 0.7 %.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quantward.core.progress import bar
from quantward.core.values import Predictions
from quantward.evaluate.bootstrap import Engine, bootstrap, fast_is_installed
from quantward.evaluate.calibration import ece_floor
from quantward.evaluate.delong import delong
from quantward.evaluate.differences import difference, differences
from quantward.evaluate.intervals import p_value, p_value_eq3, percentile
from quantward.evaluate.metrics import SMALLER_IS_BETTER, ece_binary, ece_debiased_binary, overall, per_class
from quantward.evaluate.proportions import mcnemar
from quantward.evaluate.single import estimates

Array = npt.NDArray[np.float64]
ENGINE: Engine = "numba" if fast_is_installed() else "numpy"


KINDS = {
    "accuracy": "score",
    "balanced_accuracy": "score",
    "sensitivity (sick)": "score",
    "auroc": "area",
    "auprc": "area",
    "brier": "t",
}


@dataclass(frozen=True)
class World:
    """Where test sets come from: `positives` of `n` images are class 1; `signal` parts the classes' logits, `noise`
    disturbs each model's, `patient` is the spread of a shift that a patient's images share, `size` images each."""

    name: str
    n: int
    positives: int
    signal: float
    noise: float
    patient: float = 0.0
    size: int = 1


WORLDS = (
    World("unsaturated, 200 of 1,000", 1000, 200, 2.0, 0.5),
    World("unsaturated, 20 of 200", 200, 20, 2.0, 0.5),
    World("unsaturated, 100 of 200", 200, 100, 2.0, 0.5),
    World("few flips, 100 of 200", 200, 100, 4.0, 0.3),
    World("saturated, 100 of 200", 200, 100, 9.0, 0.5),
    World("near 1, 1,000 of 2,000", 2000, 1000, 7.0, 0.5),
    World("clustered, 50 patients of 6", 300, 150, 2.0, 0.5, 1.5, 6),
)


def drawn_set(world: World, rng: np.random.Generator) -> tuple[Predictions, Predictions]:
    """One test set of a world and two models that are equally good on it in the long run."""
    truth = np.zeros(world.n, np.int64)
    if world.size > 1:
        patients = world.n // world.size
        sick = rng.random(patients) < world.positives / world.n
        truth = np.repeat(sick, world.size).astype(np.int64)
    else:
        truth[rng.permutation(world.n)[: world.positives]] = 1
    signal = world.signal * (truth - 0.5) + rng.logistic(size=world.n) * 0.8
    groups = None
    own = [rng.normal(size=world.n) for _ in range(2)]
    if world.size > 1:
        place = np.repeat(np.arange(world.n // world.size), world.size)
        groups = tuple(f"p{i}" for i in place)
        signal = signal + world.patient * rng.normal(size=place.max() + 1)[place]
        shifts = [rng.normal(size=place.max() + 1)[place] for _ in range(2)]
        own = [0.7 * noise + 0.7 * shift for noise, shift in zip(own, shifts, strict=True)]
    sets = []
    for name, noise in zip(("baseline", "candidate"), own, strict=True):
        score = 1 / (1 + np.exp(-(signal + world.noise * noise)))
        ids = tuple(map(str, range(world.n)))
        sets.append(Predictions(ids, truth, np.c_[1 - score, score], ("healthy", "sick"), name, groups))
    return sets[0], sets[1]


def null(worlds: tuple[World, ...], simulations: int, replicates: int, seed: int) -> None:
    names = ("accuracy", "balanced_accuracy", "auroc", "auprc", "kappa", "brier", "ece", "ece_debiased")
    print(
        f"Two-sided tests at alpha 0.05 under a true null, {simulations:,} simulations, B = {replicates:,}; per cent.\n"
    )
    print(
        "| world | metric | p shown | tie-safe bootstrap p | Eq. 3 p | McNemar / DeLong | coverage | interval | ties |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for world in worlds:
        counts: dict[tuple[str, str], list[float]] = defaultdict(list)
        rng = np.random.default_rng([seed, world.n, world.positives])
        for number in bar(range(simulations), world.name):
            one, two = drawn_set(world, rng)
            if len(set(one.truth.tolist())) < 2:
                continue
            both = [one.probabilities, two.probabilities]
            pair = bootstrap(
                one.truth, both, replicates=replicates, seed=number, groups=one.groups, threads=1, engine=ENGINE
            )
            deltas, each = differences(one, two, pair)
            rows = {name: (deltas[name], difference(pair, name, None)) for name in names}
            rows["sensitivity (sick)"] = (each["sensitivity"]["sick"], difference(pair, "sensitivity", 1))
            for name, (delta, series) in rows.items():
                if delta.low is None or delta.high is None:
                    continue
                counts[name, "safe"].append(p_value(series) < 0.05)
                counts[name, "shown"].append((1.0 if delta.p is None else delta.p) < 0.05)
                counts[name, "eq3"].append(p_value_eq3(series) < 0.05)
                counts[name, "held"].append(delta.low <= 0 <= delta.high)
                counts[name, "ties"].append(delta.ties or 0.0)
            if one.groups is None:
                right = [p.argmax(axis=1) == one.truth for p in both]
                exact = mcnemar(int(np.sum(right[0] & ~right[1])), int(np.sum(~right[0] & right[1])))
                counts["accuracy", "witness"].append(exact < 0.05)
                other = delong(one.truth == 1, both[0][:, 1], both[1][:, 1])
                counts["auroc", "witness"].append(other is not None and other.p < 0.05)
        for name in (*names, "sensitivity (sick)"):
            kind = KINDS.get(name, "percentile")
            cells = [100 * float(np.mean(counts[name, column])) for column in ("safe", "eq3", "held", "ties", "shown")]
            witness = counts.get((name, "witness"))
            shown = f"{100 * float(np.mean(witness)):.1f}" if witness else "-"
            rates = " | ".join(f"{cells[i]:.1f}" for i in (4, 0, 1))
            row = f"| {world.name} | {name} | {rates} | {shown} | {cells[2]:.1f} | {kind} | {cells[3]:.0f} |"
            print(row, flush=True)


SINGLE = (
    *(World("", n, up, 2.0, 0.5) for n, up in ((200, 5), (200, 10), (200, 20), (400, 50), (400, 200))),
    World("", 400, 200, 2.0, 0.5, 1.5, 4),
)


def single(worlds: tuple[World, ...], simulations: int, replicates: int, seed: int) -> None:
    print(
        f"Coverage of nominal 95 % intervals of one model, {simulations:,} simulations, B = {replicates:,}; per cent. "
        "The number of\npositives is fixed, so images are drawn within their class; patients are drawn whole.\n"
    )
    names = ("sensitivity", "specificity", "auroc", "auprc", "f1", "brier")
    print("| positives of n | patients | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names))
    for world in worlds:
        rng = np.random.default_rng([seed, world.positives])
        wide = replace(world, n=1000 * world.n, positives=1000 * world.positives)
        whole, _ = drawn_set(wide, np.random.default_rng(seed))
        truth = {name: per_class(name, whole.truth, whole.probabilities)[1] for name in names}
        held: dict[str, list[bool]] = defaultdict(list)
        for number in bar(range(simulations), f"{world.positives} of {world.n}"):
            one, _ = drawn_set(world, rng)
            (values,) = bootstrap(
                one.truth,
                [one.probabilities],
                replicates=replicates,
                seed=number,
                groups=one.groups,
                strata=None if one.groups else one.truth,
                threads=1,
                engine=ENGINE,
            )
            _, found = estimates(one, values)
            for name in names:
                estimate = found[name]["sick"]
                if estimate.low is not None and estimate.high is not None:
                    held[name].append(estimate.low <= truth[name] <= estimate.high)
        cells = " | ".join(f"{100 * float(np.mean(held[name])):.1f}" for name in names)
        patients = f"{world.n // world.size}" if world.size > 1 else "-"
        print(f"| {world.positives} of {world.n} | {patients} | {cells} |", flush=True)


MARGIN = (
    (World("unsaturated, 100 of 300", 300, 100, 2.0, 0.3), 0.8),
    (World("near 1, 100 of 300", 300, 100, 6.0, 0.3), 1.5),
    (World("near 1, 30 of 300", 300, 30, 6.0, 0.3), 1.5),
    (World("clustered, 75 patients of 4", 300, 150, 2.0, 0.3, 1.0, 4), 0.8),
)


def worse_pair(world: World, extra: float, rng: np.random.Generator) -> tuple[Predictions, Predictions]:
    """A baseline, and a candidate whose logits carry `extra` noise."""
    one, two = drawn_set(world, rng)
    score = two.probabilities[:, 1]
    logit = np.log(score) - np.log1p(-score) + extra * rng.normal(size=len(score))
    worse = 1 / (1 + np.exp(-logit))
    return one, replace(two, probabilities=np.c_[1 - worse, worse])


def margin(worlds: tuple[tuple[World, float], ...], simulations: int, replicates: int, seed: int) -> None:
    print(
        f"A candidate that is worse by exactly the margin: how often its gate passes (nominal 2.5), {simulations:,} "
        f"simulations,\nB = {replicates:,}; per cent. The margin is the true drop, from {2000 * 300:,} images.\n"
    )
    print(
        "| world | metric | baseline | true harm | passes | passes, percentile | wholly beyond |\n" + "|---" * 7 + "|"
    )
    names = ("accuracy", "balanced_accuracy", "auroc", "auprc", "f1", "kappa", "brier", "ece")
    for world, extra in worlds:
        wide = replace(world, n=2000 * world.n, positives=2000 * world.positives)
        whole = worse_pair(wide, extra, np.random.default_rng(seed))
        levels = [{name: overall(name, p.truth, p.probabilities) for name in names} for p in whole]
        sign = {name: 1 if name in SMALLER_IS_BETTER else -1 for name in names}
        harm = {name: sign[name] * (levels[1][name] - levels[0][name]) for name in names}
        counts: dict[tuple[str, str], list[bool]] = defaultdict(list)
        rng = np.random.default_rng([seed, world.positives])
        for number in bar(range(simulations), world.name):
            one, two = worse_pair(world, extra, rng)
            both = [one.probabilities, two.probabilities]
            pair = bootstrap(
                one.truth, both, replicates=replicates, seed=number, groups=one.groups, threads=1, engine=ENGINE
            )
            deltas, _ = differences(one, two, pair)
            for name in names:
                delta = deltas[name]
                plain = percentile(difference(pair, name, None))
                if delta.low is None or delta.high is None or plain is None:
                    continue
                low, high = sorted((sign[name] * delta.low, sign[name] * delta.high))
                counts[name, "pass"].append(high <= harm[name])
                counts[name, "plain"].append(max(sign[name] * end for end in plain) <= harm[name])
                counts[name, "fail"].append(low > harm[name])
        for name in names:
            rates = " | ".join(f"{100 * float(np.mean(counts[name, kind])):.1f}" for kind in ("pass", "plain", "fail"))
            print(f"| {world.name} | {name} | {levels[0][name]:.3f} | {harm[name]:.3f} | {rates} |", flush=True)


def floor(simulations: int, seed: int) -> None:
    print(f"A perfectly calibrated 4-class model: mean over {simulations:,} test sets.\n")
    print("| n | ECE (15 bins) | debiased | simulated floor |\n|---|---|---|---|")
    rng = np.random.default_rng(seed)
    for n in (142, 400, 1000, 5000):
        rows = []
        for number in range(simulations):
            logits = 1.5 * rng.normal(size=(n, 4))
            p = np.exp(logits)
            p /= p.sum(axis=1, keepdims=True)
            truth = (rng.random((n, 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)
            plain = np.mean([ece_binary(truth == k, p[:, k]) for k in range(4)])
            debiased = np.mean([ece_debiased_binary(truth == k, p[:, k]) for k in range(4)])
            assert abs(plain - overall("ece", truth, p)) < 1e-12
            rows.append((plain, debiased, ece_floor(p, simulations=20, seed=number).mean))
        print(
            f"| {n:,} | " + " | ".join(f"{value:.3f}" for value in np.asarray(rows, np.float64).mean(axis=0)) + " |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("null", "single", "margin", "floor"))
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", type=int, help="Only this row of the table's worlds, counted from 0.")
    given = parser.parse_args()
    if given.table == "null":
        chosen = WORLDS if given.world is None else WORLDS[given.world : given.world + 1]
        null(chosen, given.simulations, given.replicates, given.seed)
    elif given.table == "single":
        single(
            SINGLE if given.world is None else SINGLE[given.world : given.world + 1],
            given.simulations,
            given.replicates,
            given.seed,
        )
    elif given.table == "margin":
        pairs = MARGIN if given.world is None else MARGIN[given.world : given.world + 1]
        margin(pairs, given.simulations, given.replicates, given.seed)
    else:
        floor(min(given.simulations, 200), given.seed)
