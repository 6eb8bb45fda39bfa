"""Which layers a recipe leaves alone: shell patterns over layer names, checked so that a typo cannot pass."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from quantward.core.errors import UsageError, suggestion
from quantward.core.values import Node
from quantward.graph.walk import layers


def kept_layers(program: tuple[Node, ...], patterns: Iterable[str]) -> set[str]:
    """Names of the layers that match any pattern.

    Raises UsageError for a pattern that matches none.
    """
    names = [layer.name for layer in layers(program)]
    found: set[str] = set()
    for pattern in patterns:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            near = suggestion(pattern, names)
            raise UsageError(f"Expected keep={pattern} to name a layer; it matches none of {len(names)}. {near}")
        found.update(matches)
    return found
