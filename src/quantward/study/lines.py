"""YAML that remembers its lines: what is wrong in a study file is told with the line it stands in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from quantward.core.errors import QuantwardError, UsageError, suggestion

T = TypeVar("T")


@dataclass(frozen=True)
class Lined:
    """One value of a file: plain data, a list of these, or a mapping from names to these; `end` is its last line."""

    value: Any
    line: int
    end: int
    path: Path

    @property
    def where(self) -> str:
        """The place, as sentences name it."""
        return f"line {self.line} of {self.path}"

    @cached_property
    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, dict):
            return {name: item.plain for name, item in self.value.items()}
        return [item.plain for item in self.value] if isinstance(self.value, list) else self.value

    def wrong(self, expected: str, cure: str) -> UsageError:
        """The error that says what was expected here."""
        shown = {list: "a list", dict: "a mapping", type(None): "nothing"}.get(type(self.value), repr(self.value))
        return UsageError(f"Expected {expected} in {self.where}; got {shown}. {cure}")

    def text(self, what: str) -> str:
        """Words; numbers count as words. Raises UsageError for anything else, and for none."""
        if isinstance(self.value, bool) or not isinstance(self.value, (str, int, float)) or str(self.value) == "":
            raise self.wrong(what, "Write it as text.")
        return str(self.value)

    def whole(self, what: str, least: int) -> int:
        """A whole number of at least `least`."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < least:
            raise self.wrong(f"{what}, a whole number of at least {least},", "Mend it.")
        return self.value

    def number(self, what: str) -> float:
        """A number above 0."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)) or not 0 < self.value < 1e12:
            raise self.wrong(f"{what}, a number above 0,", "Mend it.")
        return float(self.value)

    def flag(self, what: str) -> bool:
        """true or false."""
        if not isinstance(self.value, bool):
            raise self.wrong(f"{what}, true or false,", "Write one of them.")
        return self.value

    def items(self, what: str, *, empty: bool = False) -> list[Lined]:
        """A list, of at least one unless it may be `empty`."""
        if not isinstance(self.value, list) or not (self.value or empty):
            raise self.wrong(f"a list of {what}" + ("" if empty else ", at least one,"), "Write [one, another].")
        return list(self.value)

    def entries(self, what: str, known: Iterable[str] | None = None) -> dict[str, Lined]:
        """A mapping. Raises UsageError for a name that is not among the `known`."""
        if not isinstance(self.value, dict):
            raise self.wrong(f"{what} as a mapping", "Write one `name: value` a line.")
        for name, item in self.value.items():
            if known is not None and name not in known:
                raise UsageError(f"Expected a key of {what} in {item.where}; got {name!r}. {suggestion(name, known)}")
        return dict(self.value)

    def checked(self, check: Callable[[], T]) -> T:
        """What `check` gives; whatever it refuses is told with this line."""
        try:
            return check()
        except QuantwardError as error:
            raise UsageError(f"In {self.where}: {error}") from None


def read_lines(path: Path) -> Lined:
    """A YAML file.

    Raises UsageError for a file that is absent or no YAML, for a key that stands twice, and for aliases.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"Expected a YAML file at {path}; there is none. Check the path.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"Expected UTF-8 text in {path}; byte {error.start} is not. Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1} of {path}" if mark else str(path)
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise UsageError(f"Expected YAML in {where}; {problem}. Mend the line.") from None
    return Lined({}, 1, 1, path) if root is None else _lined(root, path, set())


def _lined(node: Any, path: Path, seen: set[int], line: int | None = None) -> Lined:
    """A YAML node, said to stand in the line of its key where it has one. A node that was `seen` before is an alias,
    of which a few lines could make a value without end."""
    import yaml

    here = line or node.start_mark.line + 1
    if id(node) in seen:
        raise UsageError(f"Expected no aliases (*name) in {path}; line {here} has one. Write the value in each place.")
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        value: Any = [_lined(item, path, seen) for item in node.value]
    elif isinstance(node, yaml.MappingNode):
        value = {}
        for key, item in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UsageError(f"Expected a name in line {at} of {path}; got a list or mapping. Write a word.")
            if key.value in value:
                raise UsageError(
                    f"Expected {key.value!r} once in {path}; lines {value[key.value].line} and {at} both hold it. "
                    "Remove one."
                )
            value[key.value] = _lined(item, path, seen, at)
    else:
        value = _scalar(node, path, here)
    # A block ends for the parser where the next key begins: its last value tells better.
    inside = [] if getattr(node, "flow_style", True) else value.values() if isinstance(value, dict) else value
    return Lined(value, here, max([item.end for item in inside], default=node.end_mark.line + 1), path)


def _scalar(node: Any, path: Path, line: int) -> Any:
    import yaml

    loader = yaml.SafeLoader("")
    try:
        found = loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(
            f"Expected a plain value in line {line} of {path}; got {node.value!r} ({error}). Mend it."
        ) from None
    finally:
        loader.dispose()
    return found if isinstance(found, (str, int, float, bool, type(None))) else node.value


def resolved(top: Mapping[str, Lined], over: Mapping[str, Lined]) -> dict[str, Lined]:
    """The keys of a file with some of them replaced; a key that is replaced by nothing is gone."""
    return {name: item for name, item in {**top, **over}.items() if item.value is not None}
