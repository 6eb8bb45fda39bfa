"""A Plan as one small file: its weights as the integers they stand for, its program and grids as JSON beside them.

Runtimes that interpret the program themselves (torch's integer kernels) need nothing else: no pickle, no class of the
network, no second file. The container is safetensors, whose header holds the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused
from quantward.core.store import atomic, decode, plain
from quantward.core.values import Node, Plan, Preprocess, QuantSpec
from quantward.graph.stored import to_integers
from quantward.graph.walk import bias_of, input_key, layers, weight_of

FORMAT = 1
"""Version of the layout; raise it when an old reader would misread a new file."""

HEADER = "quantward"
"""The entry of the safetensors header that holds the JSON."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Archive:
    """What a file holds. `arrays` has a weight's integers (int8, biases int32) where `tensors` has a spec for it, its
    floats elsewhere; scales and zero points are in the specs."""

    program: tuple[Node, ...]
    arrays: Mapping[str, Array]
    tensors: Mapping[str, QuantSpec]
    preprocess: Preprocess
    classes: tuple[str, ...]
    recipe: str
    parent: str


def write_archive(plan: Plan, path: Path) -> None:
    """Write a Plan whose weights have 8 bits or fewer (biases 32), all signed, atomically.

    The scales of a bias are left out where they are the product of the two that the layer already has. Zero points of
    zero are left out too.
    """
    from safetensors.numpy import save_file

    derived = _bias_scales(plan.program, plan.tensors)
    arrays: dict[str, Array] = {}
    specs: dict[str, Any] = {}
    for name, array in plan.weights.items():
        spec = plan.tensors.get(name)
        kept = np.int32 if spec is not None and spec.kind == "bias" else np.int8
        arrays[f"weight:{name}"] = array if spec is None else to_integers(array, spec).astype(kept)
    for name, spec in plan.tensors.items():
        scale = np.asarray(spec.scale, np.float32)
        document = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in ("scale", "zero_point")}
        defaults = QuantSpec(spec.kind)
        document = {key: value for key, value in document.items() if key == "kind" or value != getattr(defaults, key)}
        document.pop("source", None)
        if scale.ndim == 0:
            document["scale"] = float(scale)  # a float32 survives the way through JSON's doubles
        elif not (name in derived and np.array_equal(derived[name], scale)):
            arrays[f"scale:{name}"] = scale
        if np.any(spec.zero_point):
            document["zero_point"] = np.asarray(spec.zero_point, np.int32).tolist()
        specs[name] = document
    header = {
        "format": FORMAT,
        "recipe": plan.recipe,
        "parent": plan.parent,
        "classes": plan.classes,
        "preprocess": plan.preprocess,
        "tensors": specs,
        "program": [[node.name, node.op, node.args, node.kwargs] for node in plan.program],
    }
    text = json.dumps(plain(header), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    with atomic(path) as temporary:
        save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, temporary, metadata={HEADER: text})


def read_archive(path: Path) -> Archive:
    """Read a file back.

    Raises Refused where it is absent, no such file, of another layout version, or lacks an array.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as stream:
            header = json.loads((stream.metadata() or {}).get(HEADER, "null"))
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise Refused(f"Expected a torch-int8 file at {path}; it cannot be read ({first}). Write it anew.") from None
    if not isinstance(header, Mapping) or header.get("format") != FORMAT:
        raise Refused(f"Expected a torch-int8 file of layout {FORMAT} at {path}; got another. Write it anew.")
    try:
        program = tuple(Node(name, op, tuple(args), kwargs) for name, op, args, kwargs in header["program"])
        return Archive(
            program,
            {name.removeprefix("weight:"): array for name, array in arrays.items() if name.startswith("weight:")},
            _specs(program, header["tensors"], arrays),
            decode(Preprocess, header["preprocess"], path),
            tuple(header["classes"]),
            header["recipe"],
            header["parent"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"Expected a whole torch-int8 file at {path}; it lacks {error}. Write it anew.") from None


def _specs(
    program: tuple[Node, ...], documents: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, Array]
) -> dict[str, QuantSpec]:
    """The specs with their scales: those of biases that were left out follow from the others."""
    specs: dict[str, QuantSpec] = {}
    for derive in (False, True):
        products = _bias_scales(program, specs) if derive else {}
        for name, document in documents.items():
            held = document.get("scale", arrays.get(f"scale:{name}", products.get(name)))
            if held is None and not derive:
                continue
            if held is None:
                raise KeyError(f"scale:{name}")
            scale = np.asarray(held, np.float32)
            zero = np.broadcast_to(np.asarray(document.get("zero_point", 0), np.int32), scale.shape)
            kept = {key: value for key, value in document.items() if key not in ("scale", "zero_point")}
            specs[name] = QuantSpec(**kept, scale=scale, zero_point=zero)
    return {name: specs[name] for name in documents}


def _bias_scales(program: tuple[Node, ...], tensors: Mapping[str, QuantSpec]) -> dict[str, Array]:
    """Bias name -> input scale x weight scale, for the layers whose both are known."""
    found = {}
    for layer in layers(program):
        bias, weight = bias_of(layer), tensors.get(weight_of(layer))
        source = tensors.get(input_key(layer.name), tensors.get(layer.args[0]["node"]))
        if bias is not None and weight is not None and source is not None:
            found[bias] = np.asarray(np.asarray(source.scale, np.float32) * np.asarray(weight.scale, np.float32))
    return found
