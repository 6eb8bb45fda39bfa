"""Plans on disk: `plan.json` for structure and specs, `weights.safetensors` for every array. No pickle, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from quantward.core.errors import Refused
from quantward.core.store import atomic, decode, digest_arrays, read_json, write_json
from quantward.core.values import Node, Plan, Preprocess, QuantSpec

FORMAT = 1
"""Version of the layout; raise it when an old reader would misread a new folder."""


def save_plan(plan: Plan, folder: Path) -> Path:
    """Write a Plan into `folder`; the JSON comes last, so a folder that has one is complete."""
    from safetensors.numpy import save_file

    arrays: dict[str, Any] = {f"weight:{name}": array for name, array in plan.weights.items()}
    specs: dict[str, Any] = {}
    for name, spec in plan.tensors.items():
        arrays[f"scale:{name}"] = np.asarray(spec.scale, np.float32)
        arrays[f"zero_point:{name}"] = np.asarray(spec.zero_point, np.int32)
        specs[name] = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in ("scale", "zero_point")}
    with atomic(folder / "weights.safetensors") as temporary:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, temporary)
    document = {
        "format": FORMAT,
        "recipe": plan.recipe,
        "parent": plan.parent,
        "classes": plan.classes,
        "preprocess": plan.preprocess,
        "arrays": digest_arrays(arrays),
        "notes": plan.notes,
        "tensors": specs,
        "program": [[node.name, node.op, node.args, node.kwargs] for node in plan.program],
    }
    write_json(folder / "plan.json", document)
    return folder


def load_plan(folder: Path) -> Plan:
    """Read a Plan back.

    Raises Refused when a file is absent, of another layout version, or when the arrays are not those that the JSON
    was written for.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    document = read_json(folder / "plan.json")
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise Refused(f"Expected a Plan of layout {FORMAT} in {folder / 'plan.json'}; got another. Make it anew.")
    try:
        arrays = load_file(folder / "weights.safetensors")
    except (OSError, SafetensorError) as error:
        raise Refused(
            f"Expected {folder / 'weights.safetensors'} to be readable; {error}. Make the Plan again."
        ) from None
    if digest_arrays(arrays) != document["arrays"]:
        raise Refused(
            f"Expected the arrays that {folder / 'plan.json'} was written for; their hash differs. Make the Plan again."
        )
    tensors = {
        name: QuantSpec(**spec, scale=arrays[f"scale:{name}"], zero_point=arrays[f"zero_point:{name}"])
        for name, spec in document["tensors"].items()
    }
    return Plan(
        program=tuple(Node(name, op, tuple(args), kwargs) for name, op, args, kwargs in document["program"]),
        weights={k.removeprefix("weight:"): v for k, v in arrays.items() if k.startswith("weight:")},
        preprocess=decode(Preprocess, document["preprocess"], folder / "plan.json"),
        classes=tuple(document["classes"]),
        recipe=document["recipe"],
        parent=document["parent"],
        tensors=tensors,
        notes=document["notes"],
    )
