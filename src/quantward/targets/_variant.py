"""The Variant that every target hands back: what lies at a path, and what it was made from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from quantward.core.store import digest_file, digest_folder
from quantward.core.values import Plan, Variant


def described(plan: Plan, target: str, format: str, path: Path, started: float, **more: Any) -> Variant:
    """What was just written to `path` (a file or a folder); `started` is when, by `time.perf_counter`. `more` are
    further fields of the Variant, such as the only batch it takes."""
    whole = path.is_dir()
    return Variant(
        name=plan.recipe,
        format=format,
        path=path,
        sha256=digest_folder(path) if whole else digest_file(path),
        bytes=sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if whole else path.stat().st_size,
        recipe=plan.recipe,
        parent=plan.parent,
        preprocess=plan.preprocess,
        classes=plan.classes,
        seconds=time.perf_counter() - started,
        target=target,
        **more,
    )


def one_image(plan: Plan) -> int | None:
    """The most images of a call: 1 where ranges are taken from the whole input tensor, None for any number."""
    return 1 if any(spec.dynamic for spec in plan.tensors.values()) else None
