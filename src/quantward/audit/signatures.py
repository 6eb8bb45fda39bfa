"""The ways in which quantized files go wrong, each under its own name: what was seen, where, and what cures it.

A verdict says that a candidate lost too much; a signature says why. Signatures are plain data and decide nothing: gates
do. Each threshold is a named constant beside the code that reads it, with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantward.audit import _measured as measured
from quantward.audit import _stored as stored
from quantward.audit._signature import ORDER, TITLES, Severity, Signature, told
from quantward.audit.capped import Capped
from quantward.audit.channels import Channels
from quantward.core.contracts import Executed
from quantward.core.values import Efficiency, Plan, Predictions, Variant

__all__ = ["TITLES", "Severity", "Signature", "signatures", "told", "worst_activations"]

worst_activations = stored.worst_activations


def signatures(
    plan: Plan,
    parent: Plan,
    *,
    channels: Mapping[str, Channels] | None = None,
    predictions: Predictions | None = None,
    baseline: Predictions | None = None,
    efficiency: Efficiency | None = None,
    baseline_efficiency: Efficiency | None = None,
    variant: Variant | None = None,
    executed: Executed | None = None,
    capped: Capped | None = None,
    agreement: float = 0.99,
) -> tuple[Signature, ...]:
    """Every signature that what is given can show, the gravest first; what is not given is not looked for.

    `parent` is the float Plan; `channels` come from `quantward.audit.channels.measure`; `capped` is what a capped
    instruction set did to the answers, and `agreement` the least share of unchanged classes that is tolerated.
    """
    found = [
        *stored.of_plan(plan, parent, channels or {}),
        measured.saturates(plan, capped, agreement),
        measured.float_layers(plan, executed),
        measured.collapse(predictions, baseline),
        measured.no_numbers(predictions),
        measured.not_smaller(plan, variant, efficiency, baseline_efficiency),
        measured.slower(efficiency, baseline_efficiency),
    ]
    codes = list(TITLES)
    return tuple(sorted((one for one in found if one is not None),
                        key=lambda one: (ORDER[one.severity], codes.index(one.code))))  # fmt: skip
