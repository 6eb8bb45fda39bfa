"""Backbones by their timm names, with weights from a local file, from timm's own download, or none at all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from quantward.core.errors import Refused, UsageError, suggestion
from quantward.core.values import Preprocess
from quantward.train import weights as files
from quantward.train.head import head_names


class Backbone(NamedTuple):
    """A net with fresh or pretrained weights, how its input is made, and a record of where both came from."""

    net: nn.Module
    preprocess: Preprocess
    record: dict[str, Any]


def build(
    arch: str,
    classes: int,
    *,
    weights: str | Path | None = None,
    size: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """The timm network `arch` with `classes` outputs.

    `weights` is a file or folder (see `weights.find`), None or "timm" for timm's own download, or "none" for a start
    from scratch. `seed` draws what is not loaded: the new head, or everything. `options` go to `timm.create_model`.

    Raises UsageError for an unknown architecture; Refused for weights that are absent, damaged, unreachable or of
    another architecture.
    """
    preprocess = preprocess_of(arch, weights, size)
    path = _file(arch, weights)
    chosen = {**(files.hints(path).options if path else {}), **_sized(arch, preprocess.size), **(options or {})}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights is None or str(weights) == "timm":
            net, record = _download(arch, classes, chosen)
            fresh = classes != configuration_of(arch).num_classes
        else:
            net = create(arch, classes, chosen)
            record = files.load(net, path, head_names(net)) if path else {"source": "none"}
            fresh = bool(record.get("replaced", True))
        if fresh:
            quiet_head(net)
    return Backbone(net, preprocess, {"arch": arch, "options": chosen, **record})


def preprocess_of(arch: str, weights: str | Path | None = None, size: int | None = None) -> Preprocess:
    """How the images for `arch` are made, without building it: size, mean and std of its weights, the whole image.

    The image is squashed to a square rather than cropped: a lesion at the border must not be cut away.

    >>> preprocess_of("mobilenetv2_100", "none", 160).resize
    160
    """
    configuration = configuration_of(arch)
    path = _file(arch, weights)
    told = files.hints(path).preprocess if path else {}
    default = (told.get("input_size") or configuration.input_size)[-1]
    if size is not None and size < 16:
        raise UsageError(f"Expected an image size of at least 16; got {size}. Choose a larger one.")
    interpolation = told.get("interpolation") or configuration.interpolation
    return Preprocess(
        size=size or default,
        resize=size or default,
        squash=True,
        interpolation="bicubic" if interpolation == "bicubic" else "bilinear",
        mean=_three(told.get("mean") or configuration.mean),
        std=_three(told.get("std") or configuration.std),
    )


def create(arch: str, classes: int, options: Mapping[str, Any]) -> nn.Module:
    """The bare timm network with the current random state's weights."""
    import timm

    configuration_of(arch)
    try:
        net: nn.Module = timm.create_model(arch, pretrained=False, num_classes=classes, **options)
    except TypeError as error:
        raise UsageError(f"Expected options that {arch} has; got {dict(options)} ({error}). Leave them out.") from None
    return net


def configuration_of(arch: str) -> Any:
    """What timm knows of an architecture before building it. Raises UsageError for an unknown name."""
    import timm

    name, _, tag = arch.partition(".")
    known = timm.list_models()
    if name not in known or (tag and timm.models.get_pretrained_cfg(arch) is None):
        raise UsageError(f"Expected a timm architecture; got {arch!r}. {_near(arch, known)}")
    return timm.models.get_pretrained_cfg(arch, allow_unregistered=True)


def _near(arch: str, known: list[str]) -> str:
    near = suggestion(arch, known)
    return near if near.startswith("Did") else "timm.list_models() names all of them, mobilenetv2_100 for one."


def _file(arch: str, weights: str | Path | None) -> Path | None:
    return None if weights is None or str(weights) in ("none", "timm") else files.find(weights, arch)


def _sized(arch: str, size: int) -> dict[str, Any]:
    """Transformers with a fixed grid of positions must be told another image size when they are created."""
    configuration = configuration_of(arch)
    if not configuration.fixed_input_size or size == configuration.input_size[-1]:
        return {}
    return {"img_size": size}


def quiet_head(net: nn.Module) -> None:
    """Give a new head weights of N(0, 0.01) and no bias, so that training starts at the loss of a guess, log K.

    timm draws some heads as wide as 1 / sqrt(K) for K classes: with four classes the first steps then undo what the
    backbone knows.
    """
    for name in head_names(net):
        module = net.get_submodule(name)
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _download(arch: str, classes: int, options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Let timm fetch its weights; whatever keeps it from that becomes one sentence with the next step."""
    import timm

    configuration = configuration_of(arch)
    if not (configuration.has_weights or configuration.hf_hub_id or configuration.url):
        raise Refused(f"Expected timm to have weights for {arch}; it has none. Use weights=none, or a file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = timm.create_model(arch, pretrained=True, num_classes=classes, **options)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:160]
        raise Refused(
            f"Expected to download the weights of {arch}; it failed ({reason}). "
            "Connect to the network, give a file or folder of weights, or use weights=none to start from scratch."
        ) from None
    found = net.pretrained_cfg
    return net, {"source": f"timm:{found.get('architecture', arch)}.{found.get('tag') or 'default'}",
                 "from": found.get("hf_hub_id") or found.get("url") or ""}  # fmt: skip
