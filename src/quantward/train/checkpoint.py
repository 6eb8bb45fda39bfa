"""The state of a run in one file, so that a kill at any moment leaves a whole state, old or new.

`checkpoint/last.safetensors` holds weights, optimizer and random generators as tensors and everything else as JSON in
the file's own header: one rename makes both appear at once. The best epoch's weights lie beside it under a name that
the state mentions, and are only forgotten once a newer state no longer mentions them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from quantward.core.errors import Refused
from quantward.core.store import atomic, decode, plain

Tensors = dict[str, torch.Tensor]
_FOLDER, _FILE = "checkpoint", "last.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `epoch` is the one to go on with, `batch` the first batch of it that was not trained on."""

    arguments: dict[str, Any]
    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best: float | None = None
    waited: int = 0
    reference: float | None = None
    rested: int = 0
    factor: float = 1.0
    seconds: float = 0.0
    finished: str = ""


def write(folder: Path, progress: Progress, tensors: Tensors) -> None:
    """Write the state; a reader sees the old one or this one, never a mixture."""
    from safetensors.torch import save_file

    header = {"progress": json.dumps(plain(asdict(progress)), allow_nan=False)}
    path = folder / _FOLDER / _FILE
    with atomic(path) as temporary:
        save_file({name: stored(tensor) for name, tensor in tensors.items()}, temporary, metadata=header)
    for old in path.parent.glob("best-*.safetensors"):
        if old != best_path(folder, progress.best_epoch):
            old.unlink(missing_ok=True)


def write_best(folder: Path, epoch: int, weights: Mapping[str, torch.Tensor]) -> None:
    """Write the weights of the best epoch so far, before the state that mentions them."""
    from safetensors.torch import save_file

    with atomic(best_path(folder, epoch)) as temporary:
        save_file({name: stored(tensor) for name, tensor in weights.items()}, temporary)


def read(folder: Path, arguments: Mapping[str, Any]) -> tuple[Progress, Tensors] | None:
    """The state of an unfinished (or just finished) run, or None where there is none.

    Raises Refused when it was started with other arguments, or when the file is damaged.
    """
    path = folder / _FOLDER / _FILE
    if not path.exists():
        return None
    tensors, header = read_tensors(path)
    progress = decode(Progress, json.loads(header.get("progress", "null")), path)
    refuse_changes(progress.arguments, plain(dict(arguments)), folder)
    return progress, tensors


def read_best(folder: Path, epoch: int) -> Tensors:
    """The weights of the best epoch."""
    return read_tensors(best_path(folder, epoch))[0]


def discard(folder: Path) -> None:
    """Forget the state; called once what it was for is safely on disk."""
    shutil.rmtree(folder / _FOLDER, ignore_errors=True)


def part(folder: Path, name: str) -> Path:
    """Where a part of a run (a phase) keeps a state of its own; forgotten with the whole run's."""
    return folder / _FOLDER / name


def best_path(folder: Path, epoch: int) -> Path:
    """Where the weights of one best epoch lie."""
    return folder / _FOLDER / f"best-{epoch:04d}.safetensors"


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and header of a safetensors file. Raises Refused where it is absent or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise Refused(f"Expected a safetensors file at {path}; there is none. Check the path.") from None
    except (SafetensorError, OSError) as error:
        raise Refused(
            f"Expected a safetensors file at {path}; it cannot be read ({error}). Replace or delete it."
        ) from None


def refuse_changes(old: Any, new: Any, folder: Path, place: str = "") -> None:
    """Raises Refused with the first argument that differs between what a folder was started with and what came now."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            refuse_changes(old.get(key), new.get(key), folder, f"{place}.{key}" if place else str(key))
    elif old != new:
        raise Refused(
            f"Expected to go on in {folder} with {place} {shown(old)}; got {shown(new)}. "
            "Use the old value, choose another folder, or delete this one."
        )


def shown(value: Any) -> str:
    """A value short enough for a sentence."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def stored(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as safetensors wants it: on the CPU, contiguous, its memory its own."""
    return tensor.detach().to("cpu").contiguous().clone(memory_format=torch.contiguous_format)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> Tensors:
    """Moments and step counts as flat tensors, `optimizer.<parameter>.<name>`; all else follows from the Course."""
    return {
        f"optimizer.{number}.{name}": torch.as_tensor(value)
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put the moments back, each in the memory layout of its parameter: fused kernels walk both side by side."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if not key.startswith("optimizer."):
            continue
        _, number, name = key.split(".", 2)
        like = parameters[int(number)]
        if value.shape == like.shape:
            value = torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
