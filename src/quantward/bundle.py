"""A bundle: the deployed file, how to feed it, and the proof that it is good enough, in one folder to copy.

`verify` trusts nothing in it: it hashes every file, computes the verdict anew from the stored predictions and, given
the images, runs the file again. Needs only the base install, on any machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from quantward import __version__
from quantward.audit.capped import IMAGES, capped
from quantward.audit.child import executed_apart
from quantward.core.errors import Refused
from quantward.core.machine import describe
from quantward.core.preprocess import geometry, normalise
from quantward.core.progress import Track, silent
from quantward.core.store import decode, digest_file, digest_text, plain, read_json, write_json, write_text
from quantward.core.values import Dossier, Efficiency, Entry, FloatArray, Predictions, Variant
from quantward.data import open_dataset, read_image
from quantward.evaluate import Gates, assess, judge, measured, read_gates
from quantward.evaluate.attributes import load_attributes, save_attributes
from quantward.evaluate.predictions import load, save
from quantward.workbench import (
    cached,
    in_model_order,
    judged_on,
    open_session,
    open_variant,
    predictions_of,
    runtime_for,
    save_card,
    softmax,
)

NOTICE = "For research use only. Not a medical device; no diagnosis may rest on it."
FORMAT = 1
MANIFEST = "manifest.json"
GATES = "gates.yaml"
ATTRIBUTES = "attributes.csv"


CAPPED_TOLERANCE = 0.02
"""How much smaller the share of answers that a capped instruction set keeps may be on another processor."""


@dataclass(frozen=True)
class Check:
    """One thing `verify` looked at: what it is, whether it holds, and what was seen."""

    name: str
    holds: bool
    seen: str


@dataclass(frozen=True)
class Verification:
    """All checks of a bundle. `verdict` is the one computed anew; `unchecked` says what had to be believed, and why."""

    checks: tuple[Check, ...]
    verdict: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)


def pack(
    folder: Path, variant: Variant, entry: Entry, baseline: Entry, dossier: Dossier, gates: Gates, report: Path | None
) -> Path:
    """Write a bundle for one candidate. Image ids are stored as digests: names of files can name a patient.

    The manifest is written last, so a folder that has one is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    file = folder / f"model{variant.path.suffix}"
    shutil.copyfile(variant.path, file)
    save_card(replace(variant, path=file))
    write_json(folder / "preprocess.json", variant.preprocess)
    write_json(folder / "labels.json", list(variant.classes))
    for name, given in (("baseline", baseline), ("candidate", entry)):
        if given.predictions is not None:
            save(anonymous(given.predictions), folder / "proof" / f"{name}.csv")
        if given.select is not None:
            save(anonymous(given.select), folder / "proof" / f"{name}.select.csv")
    if entry.predictions is not None and entry.attributes:
        save_attributes(entry.attributes, anonymous(entry.predictions).ids, folder / "proof" / ATTRIBUTES)
    write_text(folder / "proof" / GATES, yaml.safe_dump({"gates": gates.document()["gates"]}, sort_keys=False))
    if report is not None:
        shutil.copyfile(report, folder / "report.html")
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    manifest = {
        "format": FORMAT,
        "quantward": __version__,
        "notice": NOTICE,
        "file": file.name,
        "recipe": variant.recipe,
        "target": variant.target,
        "runtime": entry.runtime,
        "classes": variant.classes,
        "bytes": variant.bytes,
        "parent": variant.parent,
        "verdict": None if entry.verdict is None else entry.verdict.outcome,
        "findings": () if entry.verdict is None else entry.verdict.findings,
        "replicates": None if entry.comparison is None else entry.comparison.replicates,
        "seed": None if entry.comparison is None else entry.comparison.seed,
        "efficiency": {"baseline": baseline.efficiency, "candidate": entry.efficiency},
        "audit": entry.audit,
        "images": dossier.images,
        "machine": describe(),
        "files": {p.relative_to(folder).as_posix(): digest_file(p) for p in files},
    }
    write_json(folder / MANIFEST, manifest)
    return folder


def anonymous(predictions: Predictions) -> Predictions:
    """The same predictions with ids and groups replaced by digests of themselves."""
    groups = None if predictions.groups is None else tuple(digest_text("group", g)[:16] for g in predictions.groups)
    return replace(predictions, ids=tuple(digest_text("id", i)[:16] for i in predictions.ids), groups=groups)


def read_manifest(folder: Path) -> dict[str, Any]:
    """A bundle's manifest.

    Raises Refused where the folder is no bundle of this layout.
    """
    if not (folder / MANIFEST).exists():
        raise Refused(f"Expected a bundle at {folder}; it has no {MANIFEST}. Make one with quantward find.")
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise Refused(f"Expected a bundle of layout {FORMAT} at {folder}; got another. Use a matching version.")
    return manifest


def verify(folder: Path, data: Path | None = None, *, threads: int = 1, track: Track = silent) -> Verification:
    """Hash every file, compute the verdict anew from the proof, audit the file again as far as it goes without its Plan
    and, with `data`, run it on its images again."""
    manifest = read_manifest(folder)
    checks = list(_hashes(folder, manifest))
    if not all(check.holds for check in checks):
        return Verification(tuple(checks))
    verdict, again = _proof(folder, manifest, track)
    checks.append(again)
    variant = open_variant(folder / manifest["file"])
    audited, unchecked = audit_again(variant, manifest["audit"], manifest["bytes"], manifest["runtime"])
    checks += audited
    if data is not None:
        ran, believed = _run_again(folder, manifest, data, threads, track)
        checks, unchecked = checks + ran, unchecked + believed
    elif manifest["audit"].get("capped_agreement") is not None:
        unchecked.append(f"answers without VNNI ({manifest['audit']['capped_agreement']:.2%}): need the images")
    facts = {"recipe": manifest["recipe"], "runtime": manifest["runtime"]}
    return Verification(tuple(checks), verdict, facts, tuple(unchecked))


def audit_again(variant: Variant, audit: Mapping[str, Any], size: int, runtime: str) -> tuple[list[Check], list[str]]:
    """The audits that need nothing but the file, held against what the manifest says of them; then the others, each
    with the reason why it has to be believed."""
    promised = audit.get("bytes_promised")
    over = f", {variant.bytes / promised - 1:+.1%} over what its bits promise" if promised else ""
    real = variant.path.stat().st_size
    checks = [Check("bytes", real == size == variant.bytes, f"{real:,}{over}; the manifest says {size:,}")]
    unchecked = []
    ran = audit.get("integer_ran")
    if ran is not None:
        executed, reason = executed_apart(variant, runtime)
        if executed is None:
            unchecked.append(f"layers in integers ({audit['integer_layers']}): {reason}")
        else:
            now = executed.layers.get("int8", 0)
            seen = f"{now} of {sum(executed.layers.values())} on {runtime}, the manifest says {ran}"
            checks.append(Check("layers in integers", now >= ran, seen))
    if "agreement" in audit:
        unchecked.append(
            f"agreement with its simulation ({audit['agreement']:.2%}): needs the Plan, which stays behind"
        )
    if "signatures" in audit:
        unchecked.append(f"failure signatures ({len(audit['signatures'])}): need the Plan and calibration images")
    return checks, unchecked


def _hashes(folder: Path, manifest: Mapping[str, Any]) -> list[Check]:
    found = []
    for name, expected in manifest["files"].items():
        path = folder / name
        inside = path.resolve().is_relative_to(folder.resolve())
        if not inside or not path.is_file():
            found.append(Check(name, False, "not in the bundle"))
            continue
        digest = digest_file(path)
        found.append(Check(name, digest == expected, f"sha256 {digest[:12]}, expected {expected[:12]}"))
    extra = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    found += [Check(name, False, "not in the manifest") for name in sorted(extra - set(manifest["files"]))]
    return found


def _proof(folder: Path, manifest: Mapping[str, Any], track: Track) -> tuple[str, Check]:
    """The verdict computed anew from the stored predictions, against the one in the manifest."""
    if not (folder / "proof" / "candidate.csv").exists() or not (folder / "proof" / "baseline.csv").exists():
        return "", Check("verdict", False, "no proof in the bundle")
    baseline = load(folder / "proof" / "baseline.csv")
    candidate = load(folder / "proof" / "candidate.csv")
    select, attributes = [folder / "proof" / f"{name}.select.csv" for name in ("baseline", "candidate")], None
    if (folder / "proof" / ATTRIBUTES).exists():
        attributes = load_attributes(folder / "proof" / ATTRIBUTES, baseline.ids)
    comparison, before, after = assess(
        baseline,
        candidate,
        replicates=manifest["replicates"],
        seed=manifest["seed"],
        select=(load(select[0]), load(select[1])) if all(path.exists() for path in select) else None,
        attributes=attributes,
        track=track,
    )
    costs = {
        name: None if data is None else decode(Efficiency, data, folder / MANIFEST)
        for name, data in manifest["efficiency"].items()
    }
    if costs["baseline"] is not None and costs["candidate"] is not None:
        comparison = measured(comparison, costs["baseline"], costs["candidate"])
    verdict = judge(
        comparison,
        before,
        after,
        read_gates(folder / "proof" / GATES),
        baseline_efficiency=costs["baseline"],
        candidate_efficiency=costs["candidate"],
        audit=manifest["audit"],
    )
    same = verdict.outcome == manifest["verdict"]
    return verdict.outcome, Check("verdict", same, f"{verdict.outcome}, the manifest says {manifest['verdict']}")


def _run_again(
    folder: Path, manifest: Mapping[str, Any], data: Path, threads: int, track: Track
) -> tuple[list[Check], list[str]]:
    """Run the file on those images of `data` that are in the proof, and compare probabilities; where the manifest says
    what older processors answer, ask that again too."""
    variant = open_variant(folder / manifest["file"])
    dataset = in_model_order(open_dataset(data, track=track), variant.classes)
    stored = load(folder / "proof" / "candidate.csv")
    rows = {digest_text("id", name)[:16]: i for i, name in enumerate(dataset.ids)}
    known = [(k, rows[name]) for k, name in enumerate(stored.ids) if name in rows]
    if not known:
        return [Check("images", False, f"none of the {len(stored)} images of the proof is in {data}")], []
    session = open_session(variant, manifest["runtime"], threads)
    indices = np.array([i for _, i in known])
    pixels = cached(dataset, variant.preprocess, track)
    again = predictions_of(session, dataset, indices, pixels, variant.preprocess, "again", track)
    before = stored.probabilities[[k for k, _ in known]]
    same = float((again.probabilities.argmax(1) == before.argmax(1)).mean())
    worst = float(np.abs(again.probabilities - before).max())
    seen = f"{len(known)} of {len(stored)} images, top class agrees on {same:.2%}, largest difference {worst:.2g}"
    checks = [Check("runs as measured", len(known) == len(stored) and same >= 0.995, seen)]
    before_capped = manifest["audit"].get("capped_agreement")
    if before_capped is None:
        return checks, []
    some = indices[np.unique(np.linspace(0, len(indices) - 1, min(IMAGES, len(indices))).astype(np.int64))]
    held = capped(variant, lambda: normalise(pixels[some], variant.preprocess), threads=threads)
    if held.agreement is None:
        return checks, [f"answers without VNNI ({before_capped:.2%}): {held.reason}"]
    seen = f"{held.agreement:.2%} of {held.images} images keep their class, the manifest says {before_capped:.2%}"
    return [*checks, Check("answers without VNNI", held.agreement >= before_capped - CAPPED_TOLERANCE, seen)], []


def predict(folder: Path, images: Sequence[Path], *, threads: int = 1) -> list[dict[str, Any]]:
    """Class probabilities of single image files by a bundle (or any deployed file with its card)."""
    variant = open_variant(folder)
    session = open_session(variant, judged_on(folder) or runtime_for(variant), threads)
    rows = []
    for path in images:
        pixels = geometry(read_image(path), variant.preprocess)[None]
        probabilities: FloatArray = softmax(session(normalise(pixels, variant.preprocess)))[0]
        best = int(probabilities.argmax())
        rows.append(
            {
                "image": path.name,
                "class": variant.classes[best],
                "probability": float(probabilities[best]),
                "probabilities": plain(dict(zip(variant.classes, probabilities, strict=True))),
            }
        )
    return rows
