"""Spellings with names in them: `int8-static:samples={n}` stands for one recipe a value of n."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

_NAME = re.compile(r"{(\w*)}")


@dataclass(frozen=True)
class Filled:
    """One spelling with its names filled in; `values` says with what."""

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def agrees(self, *others: Filled) -> bool:
        """Whether names that several have hold the same value in all.

        >>> Filled("a", {"k": 1}).agrees(Filled("b", {"k": 2}))
        False
        """
        known = dict(self.values)
        for other in others:
            if any(known.get(name, value) != value for name, value in other.values.items()):
                return False
            known.update(other.values)
        return True


def names_in(template: str) -> tuple[str, ...]:
    """The names in braces, each once.

    >>> names_in("qat:weights={bits},activations={bits}")
    ('bits',)
    """
    return tuple(dict.fromkeys(_NAME.findall(template)))


def fillings(template: str, vary: Mapping[str, Sequence[Any]]) -> tuple[Filled, ...]:
    """Every way to fill a spelling; the first name varies slowest.

    >>> [one.text for one in fillings("low-bit:weights={bits}", {"bits": (4, 2)})]
    ['low-bit:weights=4', 'low-bit:weights=2']
    """
    names = names_in(template)
    chosen = [dict(zip(names, values, strict=True)) for values in product(*(vary[name] for name in names))]
    return tuple(Filled(_fill(template, values), values) for values in chosen)


def _fill(template: str, values: Mapping[str, Any]) -> str:
    return _NAME.sub(lambda part: spelled(values[part[1]]), template)


def spelled(value: Any) -> str:
    """A value as options are spelled.

    >>> spelled(True), spelled(0.5)
    ('true', '0.5')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


def teachers_in(text: str) -> tuple[str, ...]:
    """The teachers that a stage names, without their `@`.

    >>> teachers_in("distill:teacher=@large,alpha=0.5")
    ('large',)
    """
    return tuple(dict.fromkeys(re.findall(r"@([\w-]+)", text)))


def filled(templates: Sequence[str], vary: Mapping[str, Sequence[Any]]) -> tuple[Filled, ...]:
    """All spellings of a list, every name filled in."""
    return tuple(one for text in templates for one in fillings(text, vary))
