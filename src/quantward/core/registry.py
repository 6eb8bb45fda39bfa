"""The directory is the registry: a file in `recipes/`, `targets/`, ... that has no leading underscore is an entry.

`int8_static.py` holds the frozen dataclass `Int8Static` and is known to users as `int8-static`. Only the module
that is asked for gets imported, so listing costs nothing. Other packages join through the entry-point group of
the same name. An entry is spelled `name:option=value,option=value`; options are the dataclass's fields.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import sys
import typing
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

from quantward.core.errors import UsageError, suggestion


@dataclass(frozen=True)
class Registry:
    """One kind of entry (`recipe`, `target`, ...) that lives in `package`.

    >>> "onnxruntime" in Registry("runtime", "quantward.runtimes").names()
    True
    """

    kind: str
    package: str

    @property
    def folder(self) -> Path:
        """Where the entries' files lie. Found without importing anything but the parent packages."""
        spec = util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(f"{self.package} is not a package")
        return Path(next(iter(spec.submodule_search_locations)))

    def _outside(self) -> dict[str, metadata.EntryPoint]:
        return _entry_points(self.package, tuple(sys.path))

    def names(self) -> list[str]:
        """All entries, sorted."""
        here = {p.stem.replace("_", "-") for p in self.folder.glob("*.py") if not p.stem.startswith("_")}
        return sorted(here | set(self._outside()))

    def summary(self, name: str) -> str:
        """The first line of an entry's file, read without importing it."""
        path = self.folder / f"{name.replace('-', '_')}.py"
        if not path.exists():
            return f"from {self._outside()[name].value}"
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        return text.partition("\n")[0]

    def get(self, name: str) -> type[Any]:
        """The class of one entry; imports that entry's module and no other.

        Raises UsageError for an unknown name.
        """
        if name not in self.names():
            raise UsageError(f"Expected a {self.kind}; got {name!r}. {suggestion(name, self.names())}")
        outside = self._outside()
        if name in outside:
            found: type[Any] = outside[name].load()
            return found
        stem = name.replace("-", "_")
        module = importlib.import_module(f"{self.package}.{stem}")
        found = getattr(module, "".join(part.capitalize() for part in stem.split("_")))
        return found

    def make(self, text: str) -> Any:
        """An entry from its spelling, for example `int8-static:calibrator=entropy,samples=200`.

        Raises UsageError for an unknown name, an unknown option or a value of the wrong type.
        """
        name, _, options = text.partition(":")
        kind = self.get(name.strip())
        fields = {f.name for f in dataclasses.fields(kind)}
        hints = _hints(kind)
        values: dict[str, Any] = {}
        for part in filter(None, (piece.strip() for piece in options.split(","))):
            key, equals, value = part.partition("=")
            if key not in fields:
                raise UsageError(f"Expected an option of {self.kind} {name!r}; got {key!r}. {suggestion(key, fields)}")
            if not equals:
                raise UsageError(f"Expected {key}=VALUE for {self.kind} {name!r}; got {part!r}. Add a value.")
            values[key] = _convert(value, hints[key], f"{self.kind} {name!r}, option {key!r}")
        try:
            return kind(**values)
        except TypeError:
            absent = [
                f.name
                for f in dataclasses.fields(kind)
                if f.name not in values
                and f.default is dataclasses.MISSING
                and f.default_factory is dataclasses.MISSING
            ]
            raise UsageError(
                f"Expected {', '.join(absent)} for {self.kind} {name!r}; got none. Write {name}:{absent[0]}=VALUE."
            ) from None


def spelling(entry: Any) -> str:
    """The text that `Registry.make` turns back into this entry; options at their default are left out."""
    stem = type(entry).__module__.rpartition(".")[2].replace("_", "-")
    parts = []
    for item in dataclasses.fields(entry):
        value = getattr(entry, item.name)
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if value != default:
            if isinstance(value, bool):
                shown = str(value).lower()
            else:
                shown = "+".join(value) if isinstance(value, tuple) else f"{value}"
            parts.append(f"{item.name}={shown}")
    return f"{stem}:{','.join(parts)}" if parts else stem


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, metadata.EntryPoint]:
    """The entries of other packages below `path`: asking every installed package costs 20 ms a time."""
    return {point.name: point for point in metadata.entry_points(group=group)}


def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _convert(text: str, hint: Any, where: str) -> Any:
    """One option's text as its field's type: bool, int, float, str, Literal, X | None, or a tuple split at `+`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if text not in arguments:
            raise UsageError(f"Expected for {where} one of {', '.join(arguments)}; got {text!r}. "
                             f"{suggestion(text, arguments)}")  # fmt: skip
        return text
    if origin is tuple:
        return tuple(_convert(piece, arguments[0], where) for piece in text.split("+"))
    if type(None) in arguments:
        if text == "none":
            return None
        return _convert(text, next(a for a in arguments if a is not type(None)), where)
    if hint is bool:
        if text not in ("true", "false"):
            raise UsageError(f"Expected for {where} true or false; got {text!r}. Use one of these.")
        return text == "true"
    try:
        return hint(text)
    except ValueError:
        raise UsageError(f"Expected for {where} a value of type {hint.__name__}; got {text!r}. Mend it.") from None
