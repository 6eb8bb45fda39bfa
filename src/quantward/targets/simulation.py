"""The Plan itself as a file: what the torch-float runtime runs, to be compared with the deployed file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from quantward.core.store import digest_folder
from quantward.core.values import Plan, Variant
from quantward.graph.files import save_plan


@dataclass(frozen=True)
class Simulation:
    """A Plan folder. It holds float weights, so its size says nothing about the deployed one."""

    format: str = "plan"

    def write(self, plan: Plan, folder: Path) -> Variant:
        """Save the Plan into `folder`."""
        started = time.perf_counter()
        save_plan(plan, folder)
        return Variant(
            name=plan.recipe,
            format=self.format,
            path=folder,
            sha256=digest_folder(folder),
            bytes=sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
            recipe=plan.recipe,
            parent=plan.parent,
            preprocess=plan.preprocess,
            classes=plan.classes,
            seconds=time.perf_counter() - started,
            target="simulation",
        )
