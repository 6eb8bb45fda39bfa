"""The Plan itself as a file: what the torch-float runtime runs, to be compared with the deployed file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from quantward.core.values import Plan, Variant
from quantward.graph.files import save_plan
from quantward.targets._variant import described


@dataclass(frozen=True)
class Simulation:
    """A Plan folder. It holds float weights, so its size says nothing about the deployed one."""

    format: str = "plan"

    def write(self, plan: Plan, folder: Path) -> Variant:
        """Save the Plan into `folder`."""
        started = time.perf_counter()
        save_plan(plan, folder)
        return described(plan, "simulation", self.format, folder, started)
