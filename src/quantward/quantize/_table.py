"""Bits a layer as a file that people can read and edit: every layer of the network, none twice, none left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantward.core.errors import QuantwardError, Refused, suggestion
from quantward.core.store import write_json
from quantward.core.values import Node
from quantward.graph.walk import layers
from quantward.quantize._static import Bits
from quantward.quantize._trials import spelled, width


def write_table(table: Mapping[str, Bits], path: Path, **about: Any) -> Path:
    """Write a table as JSON: `{"layers": {"stem": "w8a8", ...}}`; `about` says where it comes from."""
    write_json(path, {**about, "layers": {name: spelled(bits) for name, bits in table.items()}})
    return path


def read_table(path: Path, program: tuple[Node, ...]) -> dict[str, Bits]:
    """A table for exactly the layers of `program`, in their order.

    Raises Refused, with file and line, for a file that cannot be read, a layer that the network does not have, one
    that is absent or named twice, and bits outside 2 to 8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise Refused(
            f"Expected a table of bits at {path}; {reason}. Write one with quantward sensitivity RUN DATA."
        ) from None
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, path, text))
    except json.JSONDecodeError as error:
        raise Refused(
            f"Expected JSON in {path}; line {error.lineno} is not ({error.msg}). Write the file anew."
        ) from None
    rows = document.get("layers") if isinstance(document, dict) else None
    if not isinstance(rows, dict):
        raise Refused(
            f'Expected {{"layers": {{"name": "w8a8", ...}}}} in {path}; got none. Write it with quantward sensitivity.'
        )
    names = [layer.name for layer in layers(program)]
    found: dict[str, Bits] = {}
    for name, value in rows.items():
        where = f"{path}, line {_line(text, name)}"
        if name not in names:
            raise Refused(f"Expected a layer of the network in {where}; got {name!r}. {suggestion(name, names)}")
        try:
            found[name] = width(value if isinstance(value, str) else repr(value))
        except QuantwardError:
            raise Refused(
                f"Expected 2 to 8 bits for {name!r}, such as w4a8, in {where}; got {value!r}. Mend the line."
            ) from None
    absent = [name for name in names if name not in found]
    if absent:
        more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise Refused(f"Expected bits for all {len(names)} layers in {path}; {absent[0]!r}{more} is absent. Add it.")
    return {name: found[name] for name in names}


def _once(pairs: list[tuple[str, Any]], path: Path, text: str) -> dict[str, Any]:
    """A JSON object in which no name stands twice: which of two widths is meant, nobody could say."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            last = text.rfind(json.dumps(name))
            line = text.count("\n", 0, last) + 1
            raise Refused(f"Expected each name once in {path}; line {line} names {name!r} again. Remove one.")
        found[name] = value
    return found


def _line(text: str, name: str) -> int:
    """The line on which a name stands, 1 where it is spelled with escapes."""
    return text.count("\n", 0, max(0, text.find(json.dumps(name, ensure_ascii=False)))) + 1
