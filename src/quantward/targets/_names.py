"""What a target's file is called, from the recipe's spelling; needs no library, so every target can ask."""

from __future__ import annotations

import re

from quantward.core.store import digest_text


def file_stem(recipe: str) -> str:
    """A file name for a recipe's spelling: its words, with a short digest where letters had to be left out.

    >>> file_stem("int8-static:calibrator=max,samples=100"), file_stem("fp16")
    ('int8-static.calibrator-max.samples-100', 'fp16')
    """
    kept = re.sub(r"[:,]", ".", recipe).replace("=", "-")
    plain = re.sub(r"[^A-Za-z0-9._-]", "", kept)[:80]
    return plain if plain == kept else f"{plain}.{digest_text(recipe)[:8]}"
