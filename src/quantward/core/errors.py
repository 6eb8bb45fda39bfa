"""Errors are sentences: what was expected, what came, and what to do next.

Every error a user can cause is a `QuantwardError`; the command line prints its sentence and leaves with
its exit code, and never shows a traceback for it. Anything else that escapes is a bug (exit code 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QuantwardError(Exception):
    """A fault in what was given, not in Quantward; `exit_code` is what the shell sees."""

    exit_code = 2


class UsageError(QuantwardError):
    """The call itself is off: unknown name, bad option, wrong combination (exit code 2)."""


class Refused(QuantwardError):
    """Data or a file was looked at and refused (exit code 5)."""

    exit_code = 5


class Unsupported(QuantwardError):
    """A target or runtime cannot express what the Plan asks for; the row is skipped with this reason."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """A short ending for an unknown-name error: the near miss, or the whole list.

    >>> suggestion("entrophy", ["max", "entropy"])
    "Did you mean 'entropy'?"
    >>> suggestion("zzz", ["b", "a"])
    'Choose from: a, b.'
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Choose from: {', '.join(names)}."
