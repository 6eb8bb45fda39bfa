"""The float network as it is: the baseline that every other precision is judged against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from quantward.core.contracts import Context
from quantward.core.registry import spelling
from quantward.core.values import Plan


@dataclass(frozen=True)
class Fp32:
    """Changes nothing."""

    needs: ClassVar[Literal["nothing"]] = "nothing"

    def plan(self, parent: Plan, context: Context) -> Plan:
        """The same Plan under this recipe's name."""
        return replace(parent, recipe=spelling(self), tensors={})
