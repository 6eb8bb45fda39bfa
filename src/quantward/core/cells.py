"""Text in CSV cells that no spreadsheet runs as a formula: what is opened in one must not be able to do anything."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def to_cell(text: str) -> str:
    """The text with a leading apostrophe where a spreadsheet would run it; plain numbers stay as they are.

    >>> to_cell("=cmd()"), to_cell("-1.5"), to_cell("glioma")
    ("'=cmd()", '-1.5', 'glioma')
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_cell(cell: str) -> str:
    """Undo `to_cell`, to the last character.

    >>> from_cell("'=cmd()"), from_cell("'quoted'")
    ('=cmd()', "'quoted'")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell
