"""A stage or lesson that learns from another network of the study: `@NAME` becomes the folder of that network."""

from __future__ import annotations

import re

from quantward.study.values import Workplace


def with_teachers(text: str, place: Workplace) -> str:
    """The spelling with each `@NAME` replaced by where that teacher's RUN lies."""
    names = sorted((part for part in place.inputs if part.startswith("@")), key=len, reverse=True)
    if not names:
        return text
    # The longest first, as a name may begin with another; and all at once, as a path may hold one.
    return re.sub("|".join(map(re.escape, names)), lambda found: str(place.inputs[found[0]]), text)
