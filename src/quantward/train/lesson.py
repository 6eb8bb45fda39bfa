"""A stage as a lesson: what it teaches, for another loop over the same images, and nothing of how it trains."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from quantward.core.errors import UsageError
from quantward.train import STAGES
from quantward.train.course import Course

LOOP = (*(field.name for field in fields(Course)), "head", "augment", "preset")
"""Options of every stage that are about its own loop or its own network, which a lesson has not."""


def lesson_named(text: str) -> Any:
    """The stage that is spelled `text`, of which only the loss and the `sampling` of images are wanted.

    Raises UsageError for an unknown stage or option, for options of the stage's own loop, and for a stage that is
    about its loop alone (`staged`): they would change nothing.

    >>> lesson_named("saliency:masked=0.7").masked
    0.7
    """
    stage = STAGES.make(text)
    if plain := getattr(stage, "taught_as", ""):
        raise UsageError(
            f"Expected a lesson that says what is learned; got {text!r}, which says in what order layers learn, and "
            f"that is the recipe's. Use {plain}, or leave the lesson out."
        )
    for option in text.partition(":")[2].split(","):
        name = option.partition("=")[0].strip()
        if name in LOOP:
            raise UsageError(
                f"Expected options for what is learned in the lesson {text!r}; got {name}, which is the recipe's to "
                "say. Leave it out here."
            )
    return stage
