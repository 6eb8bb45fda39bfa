"""The audits of one file as plain facts: what a dossier keeps, a report shows and a bundle can be held to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from quantward.audit.arithmetic import arithmetic, multiplies_integers
from quantward.audit.capped import CAP, Capped, capped
from quantward.audit.channels import Channels, load_channels, measure, save_channels
from quantward.audit.child import executed_apart
from quantward.audit.saturation import facts as saturation_facts
from quantward.audit.saturation import saturation
from quantward.audit.size import size
from quantward.audit.tensorrt import breaches
from quantward.core.contracts import Batch, Executed
from quantward.core.errors import Refused
from quantward.core.registry import Registry
from quantward.core.store import decode, read_json, write_json
from quantward.core.values import Plan, Variant
from quantward.graph.walk import layers

T = TypeVar("T")

CURE = "reduce_range=true"
"""The option of `int8-static` that leaves the top bit of the weights unused, so that no pair of products overflows."""


def of_file(plan: Plan, variant: Variant, executed: Executed | None) -> dict[str, Any]:
    """Integer layers in the runtime's optimised graph, and bytes against what the Plan's bits promise."""
    facts: dict[str, Any] = {}
    if executed is not None:
        found = arithmetic(plan, executed)
        facts["integer_layers"] = f"{found.integer} of {found.layers} run as integers"
        facts["integer_ran"], facts["integer_meant"] = found.integer, found.meant
        facts["integer_share"] = found.share
        facts["operators"] = dict(sorted(executed.operators.items()))
    sizes = size(plan, variant)
    facts["bytes"], facts["bytes_promised"], facts["bytes_overhead"] = variant.bytes, sizes.promised, sizes.overhead
    if sizes.stored_as is not None:
        facts["stored_as"], facts["kept_float"] = dict(sizes.stored_as), list(sizes.kept_float)
    if variant.target.partition(":")[0] == "onnx-tensorrt":
        facts["tensorrt"] = [breach.sentence for breach in breaches(variant.path)]
    facts["seconds_to_make"] = round(variant.seconds, 2)
    return facts


def of_other_runtimes(plan: Plan, variant: Variant, measured: str, keep: Path) -> dict[str, Any]:
    """Integer layers on every other installed runtime that reads the file: one placement is not the best for all.

    Each is asked in a process of its own, because a file can crash a runtime; what was seen is kept at `keep`.
    """
    runtimes, facts = Registry("runtime", "quantward.runtimes"), {}
    if not any(multiplies_integers(plan, layer) for layer in layers(plan.program)):
        return {}
    for name in runtimes.names():
        chosen = runtimes.make(name)
        if name == measured.partition(":")[0] or variant.format not in chosen.formats or chosen.missing() is not None:
            continue
        path = keep / f"executed.{name}.{variant.sha256[:16]}.json"
        executed, reason = _remembered(Executed, path), ""
        if executed is None:
            executed, reason = executed_apart(variant, name)
            if executed is not None:
                write_json(path, executed)
        if executed is None:
            facts[name] = reason
        else:
            found = arithmetic(plan, executed)
            facts[name] = f"{found.integer} of {found.layers} run as integers"
    return {"integer_layers_elsewhere": facts} if facts else {}


def of_older_machines(
    plan: Plan, variant: Variant, images: Callable[[], Batch], least: float, threads: int, keep: Path
) -> tuple[dict[str, Any], Capped | None]:
    """Can the file's sums overflow without VNNI (a proof), and do its answers change under a capped instruction set?

    `images()` is called only where the capped run can be made; `least` is the share of unchanged classes that is
    tolerated, below which the facts name the cure. Empty for a file that multiplies no bytes.
    """
    proof = saturation_facts(saturation(plan))
    if not proof:
        return {}, None
    path = keep / f"capped.{variant.sha256[:16]}.json"
    found = _remembered(Capped, path)
    if found is None:
        found = capped(variant, images, threads=threads)
        if found.agreement is not None:
            write_json(path, found)
    facts: dict[str, Any] = {"saturation": proof, "capped_to": CAP, "capped_images": found.images}
    facts["capped_agreement"], facts["capped_largest_logit_difference"] = found.agreement, found.worst
    if found.reason:
        facts["capped_reason"] = found.reason
    if found.agreement is not None and found.agreement < least:
        facts["capped_cure"] = CURE
    return facts, found


def channels_of(plan: Plan, batches: Callable[[], Iterable[Batch]], keep: Path) -> dict[str, Channels]:
    """The channels of every stored activation on calibration images, measured once and kept at `keep`."""
    path = keep / "channels.npz"
    if path.exists():
        try:
            return load_channels(path)
        except (OSError, ValueError, KeyError):
            path.unlink()  # half-written or of another make: measure again
    found = measure(plan, batches())
    save_channels(found, path)
    return found


def _remembered(kind: type[T], path: Path) -> T | None:
    """What an earlier audit of this very file has seen; None where there is nothing to read."""
    try:
        return decode(kind, read_json(path), path) if path.exists() else None
    except Refused:
        return None
