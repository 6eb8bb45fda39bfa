"""The paired bootstrap: one set of draws a replicate, shared by all models and metrics, in memory O(n).

Replicates come in blocks, and no figure of one replicate depends on another: results are the same to the last bit for
any width of a block and any number of threads.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused, UsageError, suggestion
from quantward.core.progress import Track, silent
from quantward.core.values import FloatArray, IntArray
from quantward.evaluate import draws
from quantward.evaluate.metrics import OVERALL
from quantward.evaluate.sums import Block, Sums, Totals, metrics_of, sums, totals_of

T = TypeVar("T")
Engine = Literal["auto", "numpy", "numba"]
ENGINES = ("auto", "numpy", "numba")

_ELEMENTS = 2**25
_WORTH_COMPILING = 2 * 10**9
"""Probabilities times replicates from which on the compiled path wins back the seconds that loading it takes."""

LARGEST = 2**24 - 1
"""More images than this would no longer be counted exactly in float32."""


@dataclass(frozen=True, eq=False)
class Replicates:
    """Bootstrap values of one model: `overall[metric]` (B,), `per_class[metric]` (classes, B); NaN where undefined."""

    overall: Mapping[str, FloatArray]
    per_class: Mapping[str, FloatArray]


def bootstrap(
    truth: IntArray,
    models: Sequence[FloatArray],
    *,
    replicates: int = 10_000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    strata: IntArray | None = None,
    wanted: Collection[str] = OVERALL,
    threads: int | None = None,
    engine: Engine = "auto",
    track: Track = silent,
) -> tuple[Replicates, ...]:
    """Resample images (whole `groups` where given; within `strata` where given) and recompute every `wanted` metric.

    truth (n,) class indices; each of `models` (n, classes) probabilities of the same images. All models see the same
    draws, so differences of their replicates are paired. Efron and Tibshirani 1993, chapter 8 (groups: drawn whole).
    `engine` numba is the compiled path (extra `fast`), which gives the same values; auto takes it where it is
    installed and the work is large.

    Raises UsageError for fewer than one replicate or an unknown metric, Refused for more than 2^24 - 1 images.

    >>> truth = np.array([0, 0, 1, 1])
    >>> p = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    >>> one, two = bootstrap(truth, [p, p], replicates=50)
    >>> bool(np.array_equal(one.overall["auroc"], two.overall["auroc"], equal_nan=True))
    True
    """
    if replicates < 1:
        raise UsageError(f"Expected at least one bootstrap replicate; got {replicates}. Ask for 1,000 or more.")
    unknown = set(wanted) - set(OVERALL)
    if unknown:
        raise UsageError(f"Expected metrics out of {', '.join(OVERALL)}; got {', '.join(sorted(unknown))}.")
    if engine not in ENGINES:
        raise UsageError(
            f"Expected an engine out of {', '.join(ENGINES)}; got {engine!r}. {suggestion(engine, ENGINES)}"
        )
    base, from_ = draws.base_of(seed), draws.units(len(truth), groups, strata)
    fast = _fast(engine, replicates * sum(p.size for p in models))
    if fast is not None:

        def totals(laid_out: Sequence[Sums], first: int, width: int) -> list[Totals]:
            found: list[Totals] = fast.totals(laid_out, base, first, width, from_)
            return found
    else:

        def totals(laid_out: Sequence[Sums], first: int, width: int) -> list[Totals]:
            return _multiplied(laid_out, draws.weights(base, first, width, from_))

    return _over(truth, models, replicates, totals, wanted, threads, track, "bootstrap")


def fast_is_installed() -> bool:
    """Whether the compiled path (extra `fast`) is there."""
    return importlib.util.find_spec("numba") is not None


def _fast(engine: Engine, work: int) -> ModuleType | None:
    """The compiled path where it is asked for, or where it pays and can be loaded; None for the NumPy path."""
    if engine == "numpy" or (engine == "auto" and (work < _WORTH_COMPILING or not fast_is_installed())):
        return None
    try:
        return importlib.import_module("quantward.evaluate.fast")
    except UsageError:
        if engine == "numba":
            raise
        return None


def jackknife(
    truth: IntArray,
    models: Sequence[FloatArray],
    *,
    groups: Sequence[str] | None = None,
    most: int = 2_000,
    seed: int = 0,
    wanted: Collection[str] = OVERALL,
    threads: int | None = None,
    track: Track = silent,
) -> tuple[Replicates, ...]:
    """Every metric with one unit (image, or group) left out at a time; with more than `most` units, one of `most`
    random parts of nearly equal size at a time, which estimates the same skewness at a bounded cost."""
    from_ = draws.units(len(truth), groups)
    parts = min(most, from_.count)
    shuffled = np.argsort(draws.mixed(np.arange(from_.count, dtype=np.uint64) + draws.base_of(seed)), kind="stable")
    folds = np.empty(from_.count, np.int64)
    folds[shuffled] = np.arange(from_.count) % parts

    def totals(laid_out: Sequence[Sums], first: int, width: int) -> list[Totals]:
        return _multiplied(laid_out, draws.left_out(first, width, folds, from_))

    return _over(truth, models, parts, totals, wanted, threads, track, "jackknife")


def _multiplied(laid_out: Sequence[Sums], weights: npt.NDArray[np.float32]) -> list[Totals]:
    exact = weights.astype(np.float64) if any(m.gaps is not None or m.squares is not None for m in laid_out) else None
    return [totals_of(model, weights, exact) for model in laid_out]


def _width(n: int, replicates: int, threads: int) -> int:
    """Replicates a block: enough to keep a processor busy, few enough that a block's weights fit beside the caches."""
    most = 1 << int(np.clip(math.log2(_ELEMENTS / max(n, 1)), 4, 10))
    return min(most, max(16, -(-replicates // threads)))


def _over(
    truth: IntArray,
    models: Sequence[FloatArray],
    replicates: int,
    totals: Callable[[Sequence[Sums], int, int], list[Totals]],
    wanted: Collection[str],
    threads: int | None,
    track: Track,
    label: str,
) -> tuple[Replicates, ...]:
    if len(truth) > LARGEST:
        raise Refused(f"Expected at most {LARGEST:,} images; got {len(truth):,}. Take a random part of them.")
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    width = _width(len(truth), replicates, max(1, threads))
    laid_out = [sums(truth, probabilities, wanted) for probabilities in models]

    def block(first: int) -> list[tuple[dict[str, Block], dict[str, Block]]]:
        return [
            metrics_of(found, model.classes, wanted)
            for found, model in zip(totals(laid_out, first, width), laid_out, strict=True)
        ]

    starts = range(0, replicates, width)
    parts = list(track(_in_order(block, starts, threads), label, total=len(starts)))
    return tuple(
        Replicates(
            {name: np.concatenate([p[m][0][name] for p in parts])[:replicates] for name in parts[0][m][0]},
            {name: np.concatenate([p[m][1][name] for p in parts], axis=1)[:, :replicates] for name in parts[0][m][1]},
        )
        for m in range(len(models))
    )


def _in_order(work: Callable[[int], T], starts: range, threads: int) -> Iterator[T]:
    if threads <= 1 or len(starts) == 1:
        yield from map(work, starts)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, starts)
