"""The energy that the processor's own counters report, where the system lets us read them (RAPL on Linux).

What is counted is the whole package: cores, caches, and whatever else runs at the time; so a figure is worth something
on a quiet machine only. Since 2020 most systems let only the administrator read the counters (CVE-2020-8694).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/class/powercap")


@dataclass
class Meter:
    """Joules since it was made, over all packages. Read it every few minutes at least: its counters start over."""

    counters: tuple[Path, ...]
    highest: tuple[int, ...]
    last: list[int] = field(default_factory=list)
    microjoules: int = 0

    def __call__(self) -> float:
        """Joules so far; what a counter that cannot be read any more would add is left out."""
        for i, counter in enumerate(self.counters):
            now = _number(counter)
            if now is not None:
                step = now - self.last[i]
                self.microjoules += step if step >= 0 else step + self.highest[i] + 1
                self.last[i] = now
        return self.microjoules / 1e6


def meter(root: Path = ROOT) -> tuple[Meter | None, str]:
    """A meter over the packages of this machine, or None with the reason why there is none."""
    if not root.is_dir():
        return None, "this machine has no RAPL counters"
    counters = []
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
        if name.startswith("package"):
            counters.append(zone / "energy_uj")
    if not counters:
        return None, "this machine has no RAPL counter of a whole processor"
    first = [_number(counter) for counter in counters]
    if any(value is None for value in first):
        return None, "the RAPL counters may be read by the administrator only"
    highest = tuple(_number(counter.with_name("max_energy_range_uj")) or (1 << 32) - 1 for counter in counters)
    return Meter(tuple(counters), highest, [value for value in first if value is not None]), ""


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
