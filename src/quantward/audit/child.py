"""One question to a file in a process of its own, where an audit wants an answer or the reason why there is none.

Built on `quantward.core.apart`; what is added is that nothing raises: for an audit, a crash is a finding.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantward.core import apart
from quantward.core.apart import LIMIT, Apart, Broken
from quantward.core.contracts import Batch, Executed
from quantward.core.errors import QuantwardError, Refused
from quantward.core.registry import Registry
from quantward.core.values import FloatArray, Variant

STEP = 16
"""Images a call; answers do not depend on it, memory does."""


@dataclass(frozen=True, eq=False)
class Answer:
    """Logits (n, classes), or None with the `reason`; `seconds` from start to end of the process."""

    logits: FloatArray | None
    reason: str = ""
    seconds: float = 0.0


def run_apart(
    variant: Variant,
    runtime: str,
    images: Batch,
    *,
    threads: int = 1,
    environment: Mapping[str, str] | None = None,
    limit: float = LIMIT,
) -> Answer:
    """What `runtime` says of `images` (n, 3, size, size) in a child with `environment` added to this one's.

    Never raises for what the child does: a crash, a refusal or more than `limit` seconds without an answer are an
    Answer with a reason.
    """
    started, logits, reason = time.perf_counter(), None, ""
    try:
        _readable(variant, runtime)
        with Apart(variant, runtime, threads, environment=environment, limit=limit) as session:
            logits = np.concatenate([session(images[i : i + STEP]) for i in range(0, len(images), STEP)])
    except QuantwardError as error:
        reason = _said(error)
    return Answer(logits, reason, time.perf_counter() - started)


def executed_apart(
    variant: Variant, runtime: str, *, environment: Mapping[str, str] | None = None, limit: float = LIMIT
) -> tuple[Executed | None, str]:
    """What `runtime` really runs of a file, found out in a child; None with the reason where it does not tell."""
    try:
        _readable(variant, runtime)
        found = apart.executed(variant, runtime, environment=environment, limit=limit)
    except QuantwardError as error:
        return None, _said(error)
    return found, "" if found is not None else f"{runtime} does not tell"


def _readable(variant: Variant, runtime: str) -> None:
    formats = Registry("runtime", "quantward.runtimes").make(runtime).formats
    if variant.format not in formats:
        raise Refused(
            f"Expected a file of format {' or '.join(formats)} for {runtime}; got {variant.format}. "
            "Choose another runtime."
        )


def _said(error: QuantwardError) -> str:
    return error.reason if isinstance(error, Broken) else str(error)
