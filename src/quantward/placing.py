"""Where candidates are judged when nobody says: on the installed runtime that is fastest for them, found by measuring.

One file is not numerically the same on two runtimes, so a verdict belongs to one; and which one is fastest depends on
the network, the precision and the machine, so a table from elsewhere does not decide it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from quantward.audit.equivalence import Agreement, NotEquivalent
from quantward.candidates import AUTO, Work, prove_export, time_all
from quantward.core.errors import QuantwardError, Refused
from quantward.core.store import digest_text, read_json, write_json
from quantward.core.values import Efficiency
from quantward.workbench import RUNTIMES


def prove_all(work: Work) -> tuple[dict[str, Agreement], dict[str, str]]:
    """Runtimes on which the FP32 file computes what PyTorch computes, and why the other installed ones are out.

    Raises NotEquivalent, or what the last runtime raised, where none is left.
    """
    if work.search.runtime != AUTO:
        return {work.search.runtime: prove_export(work)}, {}
    proved: dict[str, Agreement] = {}
    out: dict[str, str] = {}
    last: QuantwardError | None = None
    for name in RUNTIMES.names():
        runtime = RUNTIMES.make(name)
        if work.made["fp32"].variant.format not in runtime.formats or runtime.missing() is not None:
            continue
        try:
            proved[name] = prove_export(work, name)
        except (NotEquivalent, Refused) as error:
            out[name], last = str(error), error
    if not proved:
        raise last or Refused(f"Expected a runtime for {work.search.target} files; none is installed. Install one.")
    return proved, out


def settle(
    work: Work, proved: Mapping[str, Agreement], out: Mapping[str, str]
) -> tuple[dict[str, Efficiency], tuple[Mapping[str, Any], ...]]:
    """Time every file on every runtime that was proved, in one schedule, and make the fastest the search's own.

    Fastest is the least median latency of one image that any candidate reaches (FP32 itself where there is none). The
    choice is kept in the search's folder, so that a search goes on where it began though a second timing might fall out
    otherwise. Returns the costs there, and a row for each runtime to be told.
    """
    names = tuple(proved)
    kept = _kept(work, names)
    costs = time_all(work, (kept,) if kept else names)
    best = {name: _fastest(costs[name]) for name in costs}
    chosen = min(best, key=lambda name: best[name][1])
    work.search = replace(work.search, runtime=chosen)
    rows: list[dict[str, Any]] = [
        {"runtime": name, "candidate": candidate, "milliseconds": milliseconds, "chosen": name == chosen}
        for name, (candidate, milliseconds) in sorted(best.items(), key=lambda item: item[1][1])
    ]
    rows += [{"runtime": name, "reason": reason, "chosen": False} for name, reason in sorted(out.items())]
    path = work.folder / "runtime.json"
    if kept:
        rows = read_json(path)["rows"]
    elif len(names) > 1:
        write_json(path, {"key": _key(work, names), "chosen": chosen, "rows": rows})
    return costs[chosen], tuple(rows)


def fastest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which runtime was taken and what the others took, in one sentence.

    >>> rows = [{"runtime": "a", "milliseconds": 3.0}, {"runtime": "b", "milliseconds": 5.0}]
    >>> fastest([*rows, {"runtime": "c", "reason": "crashed"}])
    'Fastest runtime here: a, 3.00 ms an image (b 5.00 ms, c left out).'
    """
    first, *others = (row for row in rows if "milliseconds" in row)
    parts = [f"{row['runtime']} {row['milliseconds']:.2f} ms" for row in others]
    parts += [f"{row['runtime']} left out" for row in rows if "reason" in row]
    return f"Fastest runtime here: {first['runtime']}, {first['milliseconds']:.2f} ms an image ({', '.join(parts)})."


def _fastest(costs: Mapping[str, Efficiency]) -> tuple[str, float]:
    """The candidate with the least median latency of one image, and that latency."""
    found = {
        name: row.p50 for name, cost in costs.items() for row in cost.latency if row.batch == 1 and name != "fp32"
    } or {"fp32": next(row.p50 for row in costs["fp32"].latency if row.batch == 1)}
    return min(found.items(), key=lambda item: item[1])


def _key(work: Work, names: tuple[str, ...]) -> str:
    """Changes with the files and with the runtimes that could be taken."""
    return digest_text(*sorted(made.variant.sha256 for made in work.made.values()), *names, str(work.search.threads))


def _kept(work: Work, names: tuple[str, ...]) -> str | None:
    """The runtime that this very search chose before."""
    path = work.folder / "runtime.json"
    try:
        found = read_json(path) if path.exists() else {}
    except Refused:
        return None
    chosen = found.get("chosen") if isinstance(found, dict) and found.get("key") == _key(work, names) else None
    return chosen if chosen in names else None
