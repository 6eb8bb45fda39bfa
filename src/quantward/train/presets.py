"""Published protocols as defaults: `fit:preset=int8-reliability` spares typing ten options.

A preset is spelled out when a stage is made, so every record names each option, and a later change of a preset cannot
change what an old record says.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from quantward.core.errors import UsageError, suggestion

Preset = Literal["none", "int8-reliability", "anemia-ptq"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "none": {},
        "int8-reliability": {
            "epochs": 50,
            "batch": 32,
            "lr": 1e-4,
            "weight_decay": 1e-4,
            "optimizer": "adam",
            "schedule": "constant",
            "warmup": 0.0,
            "patience": 10,
            "min_delta": 0.001,
            "monitor": "accuracy",
            "augment": "published",
        },
        "anemia-ptq": {
            "batch": 32,
            "lr": 1e-4,
            "weight_decay": 0.0,
            "optimizer": "adam",
            "schedule": "constant",
            "warmup": 0.0,
            "head": "sigmoid",
        },
    }
)
"""`int8-reliability`: cross-entropy, Adam, 1e-4 for rate and decay, batch 32, at most 50 epochs, stopped by accuracy
(patience 10, min_delta 0.001), mirror, +-15 degrees, brightness 0.8 to 1.2. `anemia-ptq`: a binary head, binary
cross-entropy, Adam at 1e-4, batch 32; what it leaves open has the default."""

T = TypeVar("T")


def with_presets(kind: type[T]) -> type[T]:
    """Let a dataclass with the field `preset` take its other defaults from there.

    Raises (when one is made) UsageError for an unknown preset.
    """
    plain: Callable[..., None] = kind.__init__

    @functools.wraps(plain)
    def init(self: T, **given: Any) -> None:
        name = given.pop("preset", "none")
        if name not in PRESETS:
            raise UsageError(f"Expected a preset; got {name!r}. {suggestion(name, PRESETS)}")
        plain(self, **{**PRESETS[name], **given})

    kind.__init__ = init  # type: ignore[assignment]
    return kind
