"""From evidence to a verdict: which gates are asked, read from YAML without forgiving a typo, and what they say."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from quantward.core.errors import UsageError, suggestion
from quantward.core.registry import Registry
from quantward.core.values import Comparison, Efficiency, Evaluation, Verdict
from quantward.evaluate.evidence import Evidence, Gate

GATES = Registry("gate", "quantward.evaluate.gates")
PRESETS = ("clinical", "screening")
_KEYS = ("gates", "preset")


@dataclass(frozen=True)
class Gates:
    """The gates that a verdict asks, in order, and the preset or file that they came from."""

    source: str
    entries: tuple[tuple[str, Gate], ...]

    def document(self) -> dict[str, Any]:
        """Every gate with its limits as plain data, in the form that `read_gates` reads."""
        limits = {name: dataclasses.asdict(typing.cast(Any, gate)) for name, gate in self.entries}
        return {"source": self.source, "gates": limits}


def read_gates(source: Path | str = "clinical") -> Gates:
    """A preset by name (`clinical`, `screening`) or a YAML file.

    The file holds `gates:` (a preset's name, or gate -> limit, `{option: value}` or `off`) and optionally `preset:`,
    whose gates are then the start; without one, exactly the listed gates are asked.

    Raises UsageError, with file and line, for an unknown key, gate or option, a value of the wrong type or range, a
    key that stands twice, or no gate at all.
    """
    name = str(source)
    if name in PRESETS:
        return dataclasses.replace(_read(_preset(name)), source=name)
    path = Path(source)
    if not path.is_file():
        if path.suffix not in (".yaml", ".yml"):
            raise UsageError(f"Expected a gates file or preset; got {name!r}. {suggestion(name, PRESETS)}")
        raise UsageError(f"Expected a gates file at {path}; there is none. Write one, or use --gates clinical.")
    return _read(path)


def judge(
    comparison: Comparison,
    baseline: Evaluation,
    candidate: Evaluation,
    gates: Gates,
    *,
    baseline_efficiency: Efficiency | None = None,
    candidate_efficiency: Efficiency | None = None,
    audit: Mapping[str, Any] | None = None,
) -> Verdict:
    """Ask every gate. One failure fails, one undecided gate leaves the verdict open, and only bounds decide."""
    evidence = Evidence(comparison, baseline, candidate, baseline_efficiency, candidate_efficiency, audit or {})
    return Verdict(comparison.candidate, tuple(gate.judge(evidence) for _, gate in gates.entries))


@cache
def _names() -> tuple[str, ...]:
    return tuple(GATES.names())


def _preset(name: str) -> Path:
    return GATES.folder / f"{name}.yaml"


def _read(path: Path) -> Gates:
    import yaml

    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"Expected UTF-8 text in {path}; byte {error.start} is not. Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1} of {path}" if mark else str(path)
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise UsageError(f"Expected YAML in {where}; {problem}. Mend the line.") from None
    top = _mapping(root, path, "gates: and preset:")
    for key, (line, _) in top.items():
        if key not in _KEYS:
            raise UsageError(
                f"Expected 'gates' or 'preset' in line {line} of {path}; got {key!r}. {suggestion(key, _KEYS)}"
            )
    found: dict[str, Gate] = {}
    source = str(path)
    body = top.get("gates", (0, None))[1]
    chosen = top.get("preset", (0, None))[1]
    if body is not None and isinstance(body.value, str):
        chosen, body = body, None
    if chosen is not None:
        if chosen.value not in PRESETS:
            line = chosen.start_mark.line + 1
            raise UsageError(
                f"Expected a preset in line {line} of {path}; got {chosen.value!r}. "
                f"{suggestion(str(chosen.value), PRESETS)}"
            )
        found.update(_read(_preset(chosen.value)).entries)
    for name, (line, node) in (_mapping(body, path, "gate: limit") if body is not None else {}).items():
        if name not in _names():
            raise UsageError(f"Expected a gate in line {line} of {path}; got {name!r}. {suggestion(name, _names())}")
        gate = _gate(name, node, path, line, found.get(name))
        found.pop(name, None)
        if gate is not None:
            found[name] = gate
    if not found:
        raise UsageError(f"Expected at least one gate in {path}; got none. Start from 'gates: clinical'.")
    return Gates(source, tuple(found.items()))


def _mapping(node: Any, path: Path, what: str) -> dict[str, tuple[int, Any]]:
    """A YAML mapping as key -> (line, value node)."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1 if node is not None else 1
        raise UsageError(f"Expected {what} in line {line} of {path}; got something else. Write one key a line.")
    found: dict[str, tuple[int, Any]] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in found:
            raise UsageError(
                f"Expected {key.value!r} once in {path}; lines {found[key.value][0]} and {line} both hold it. "
                "Remove one."
            )
        found[key.value] = (line, value)
    return found


def _value(node: Any) -> Any:
    """What a composed YAML node stands for, as plain data."""
    import yaml

    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def _gate(name: str, node: Any, path: Path, line: int, start: Gate | None) -> Gate | None:
    """One gate from its YAML: a limit, a mapping of options, `on` (the defaults), or `off` (None)."""
    import yaml

    kind = GATES.get(name)
    hints = typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    values: dict[str, Any] = dataclasses.asdict(typing.cast(Any, start)) if start is not None else {}
    if isinstance(node, yaml.MappingNode):
        given = _mapping(node, path, "option: value")
    elif (scalar := _value(node)) is False:
        return None
    else:
        given = {} if scalar is None or scalar is True else {fields[0]: (line, node)}
    for option, (where, value) in given.items():
        if option not in fields:
            raise UsageError(
                f"Expected an option of gate {name!r} in line {where} of {path}; got {option!r}. "
                f"{suggestion(option, fields)}"
            )
        values[option] = _number(_value(value), hints[option], option, name, path, where)
    made: Gate = kind(**values)
    return made


def _number(value: Any, hint: Any, option: str, gate: str, path: Path, line: int) -> float | int:
    """A limit of the type its gate declares; a share must look like one, for 2 meant as 2 points passes anything."""
    where = f"for {option!r} of gate {gate!r} in line {line} of {path}"
    fits = isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    if not fits or not 0 <= value < 1e9:
        kind = "a whole number" if hint is int else "a number"
        raise UsageError(f"Expected {kind} of at least 0 {where}; got {value!r}. Mend the line.")
    share = hint is float and option == "limit" and gate not in ("size-ratio", "slowdown")
    if share and value > 1:
        raise UsageError(f"Expected a share between 0 and 1 {where}; got {value!r}. Write 0.02 for 2 points.")
    return int(value) if hint is int else float(value)
