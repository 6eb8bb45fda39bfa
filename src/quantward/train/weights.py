"""Pretrained weights from a local file or folder: read as tensors only, fitted to the net, every key accounted for.

A folder may hold many files; `<architecture>.<anything>.safetensors` is the one for an architecture. A `.json` of the
same name beside it tells the preprocessing the weights were made with and how the net must be created.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantward.core.errors import Refused
from quantward.core.store import digest_file, read_json
from quantward.train.checkpoint import Tensors, read_tensors

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_OPTIONS = {"pad_type", "act_layer", "bn_eps", "global_pool", "img_size"}


@dataclass(frozen=True)
class Hints:
    """What a file's JSON neighbour says: `preprocess` (mean, std, interpolation, ...) and options to create the net."""

    preprocess: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def find(place: Path | str, arch: str) -> Path:
    """The weight file for `arch`: the file itself, or the one of that name in a folder.

    Raises Refused where there is none, or more than one.
    """
    place = Path(place)
    if place.is_file():
        if place.suffix not in _SUFFIXES:
            raise Refused(f"Expected weights as {', '.join(_SUFFIXES)}; got {place}. Convert them to safetensors.")
        return place
    if not place.is_dir():
        raise Refused(f"Expected weights at {place}; there is nothing. Check the path, or use weights=none.")
    found = sorted(p for p in place.glob(f"{arch}.*") if p.suffix in _SUFFIXES)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(p.name for p in found)
        raise Refused(f"Expected one file for {arch} in {place}; there are {len(found)} ({names}). Name one file.")
    have = ", ".join(sorted(p.name for p in place.iterdir() if p.suffix in _SUFFIXES)) or "no weight file"
    raise Refused(f"Expected {arch}.*.safetensors in {place}; there is {have}. Use weights=none to start from scratch.")


def hints(path: Path) -> Hints:
    """What the JSON beside a weight file says; nothing where there is none.

    Only plain values of known options are taken from its `create` line; nothing in it is ever executed.
    """
    neighbour = path.with_suffix(".json")
    if not neighbour.exists():
        return Hints()
    told = read_json(neighbour)
    if not isinstance(told, dict):
        raise Refused(f"Expected a JSON object in {neighbour}; got a {type(told).__name__}. Mend or remove it.")
    return Hints(told.get("preprocess") or {}, _created_with(str(told.get("create", ""))))


def read(path: Path) -> Tensors:
    """All tensors of a weight file; half precision is cast up to float32. Never runs what a pickle may contain."""
    tensors = read_tensors(path)[0] if path.suffix == ".safetensors" else _read_torch(path)
    return {name: t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for name, t in tensors.items()}


def load(net: nn.Module, path: Path, head: tuple[str, ...]) -> dict[str, Any]:
    """Fill `net` from a file; a head (names below `head`) of another shape, or absent, keeps its fresh values.

    Returns the record: file, its hash, how many tensors were loaded, which were replaced. Raises Refused when anything
    but the head does not fit, or a tensor holds NaN or infinity.
    """
    tensors, own = read(path), net.state_dict()
    head_keys = {name for name in own if name.startswith(tuple(f"{h}." for h in head))}
    odd = {name for name, t in own.items() if name not in tensors or tensors[name].shape != t.shape}
    # A count of seen batches is bookkeeping that older files lack; nothing computes with it.
    odd = {name for name in odd if not name.endswith("num_batches_tracked")}
    if wrong := sorted(odd - head_keys):
        name = wrong[0]
        got = f"{tuple(tensors[name].shape)}" if name in tensors else "nothing of that name"
        raise Refused(
            f"Expected weights for this architecture in {path}; {len(wrong)} tensors do not fit, the first is "
            f"{name} of shape {tuple(own[name].shape)}: the file has {got}. Choose the file's architecture and size."
        )
    for name in sorted(own):
        if name in tensors and tensors[name].is_floating_point() and not bool(torch.isfinite(tensors[name]).all()):
            raise Refused(f"Expected finite weights in {path}; {name} holds NaN or infinity. Get the file anew.")
    replaced = odd & head_keys
    usable = {name: t for name, t in tensors.items() if name in own and name not in replaced}
    net.load_state_dict(usable, strict=False)
    return {
        "source": path.name,
        "sha256": digest_file(path),
        "loaded": len(usable),
        "replaced": sorted(replaced),
        "left_out": sorted(set(tensors) - set(own)),
    }


def _created_with(text: str) -> dict[str, Any]:
    """The keyword values in a line like `timm.create_model('mobilenetv1_100', pad_type='same')`.

    >>> _created_with("timm.create_model('mobilenetv1_100', pad_type='same') and more")
    {'pad_type': 'same'}
    """
    match = re.match(r"timm\.create_model\([^()]*\)", text)
    if match is None:
        return {}
    call = ast.parse(match.group(), mode="eval").body
    assert isinstance(call, ast.Call)
    return {k.arg: k.value.value for k in call.keywords if k.arg in _OPTIONS and isinstance(k.value, ast.Constant)}


def _read_torch(path: Path) -> Tensors:
    import pickle

    try:
        with warnings.catch_warnings():
            # torch wonders aloud about unusual pickles; here they are either tensors or refused.
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise Refused(
            f"Expected nothing but tensors in {path}; torch refuses it ({reason}). Save the weights as safetensors."
        ) from None
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise Refused(f"Expected a state dict in {path}; got a {type(found).__name__}. Save net.state_dict() instead.")
    return {str(name).removeprefix("module."): value for name, value in found.items()}
