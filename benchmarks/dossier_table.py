"""Prints the Markdown tables of docs/results.md: python benchmarks/dossier_table.py RUN/find/dossier.json"""

from __future__ import annotations

import sys
from typing import Any

from quantward.core.store import read_json


def share(estimate: dict[str, Any] | None) -> str:
    """A share in percent with its interval."""
    if estimate is None or estimate["value"] is None:
        return "-"
    return f"{100 * estimate['value']:.1f} ({100 * estimate['low']:.1f}-{100 * estimate['high']:.1f})"


def plain(estimate: dict[str, Any] | None) -> str:
    """A figure with its interval."""
    if estimate is None or estimate["value"] is None:
        return "-"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f}-{estimate['high']:.3f})"


def points(delta: dict[str, Any] | None) -> str:
    """A difference in points with its interval."""
    if delta is None or delta["delta"] is None:
        return "-"
    return f"{100 * delta['delta']:+.1f} ({100 * delta['low']:+.1f} to {100 * delta['high']:+.1f})"


def row(entry: dict[str, Any]) -> list[str]:
    """One candidate."""
    if entry["failure"]:
        return [f"`{entry['name']}`", entry["failure"], *[""] * 9]
    overall = entry["evaluation"]["overall"]
    comparison, cost, audit = entry["comparison"], entry["efficiency"], entry["audit"]
    first = next((item for item in cost["latency"] if item["batch"] == 1), None) if cost else None
    noisy = "*" if first and first["spread"] > 0.10 else ""
    return [
        f"`{entry['name']}`",
        share(overall["accuracy"]),
        points(comparison["deltas"]["accuracy"]) if comparison else "-",
        plain(overall["auroc"]),
        plain(overall["auprc"]),
        plain(overall["ece"]),
        f"{comparison['flips']['count']}" if comparison else "-",
        f"{cost['bytes'] / 1e6:.2f}" if cost else "-",
        f"{first['p50']:.2f}{noisy} / {first['p99']:.2f}" if first else "-",
        f"{100 * audit['agreement']:.2f}" if "agreement" in audit else "-",
        f"{audit['largest_logit_difference']:.3g}" if "largest_logit_difference" in audit else "-",
        entry["verdict"]["outcome"] if entry["verdict"] else "baseline",
    ]


HEAD = [
    "recipe", "accuracy, %", "difference, points", "AUROC", "AUPRC", "ECE", "flips", "MB", "ms p50 / p99",
    "agreement, %", "max dlogit", "verdict",
]  # fmt: skip


def table(entries: list[dict[str, Any]]) -> str:
    """All candidates as Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *(row(entry) for entry in entries)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    dossier = read_json(sys.argv[1])
    images = dossier["images"]["counts"]
    print(f"test images: {sum(images['test'].values())}; chosen: {dossier['chosen']}; {dossier['power']}\n")
    print(table(dossier["entries"]))
    if dossier["external"]:
        print(f"\nexternal: {dossier['external_images']['name']}, {dossier['external_images']['images']} images\n")
        print(table(dossier["external"]))
    print("\nchoices")
    for choice in dossier["choices"]:
        print(f"  {choice}")


if __name__ == "__main__":
    main()
