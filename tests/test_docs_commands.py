"""Every command in the docs can be typed: its options exist, and what it spells (recipes, targets, ...) can be made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from quantward.cli import app
from quantward.core.errors import QuantwardError
from quantward.core.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REGISTRIES = {
    "--recipe": Registry("recipe", "quantward.quantize.recipes"),
    "--target": Registry("target", "quantward.targets"),
    "--runtime": Registry("runtime", "quantward.runtimes"),
    "--stage": Registry("stage", "quantward.train.stages"),
    "--lesson": Registry("stage", "quantward.train.stages"),
}
SPELLINGS = ("--recipe", "--target", "--runtime", "--stage")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = {
    verb: {
        name
        for each in (command, *getattr(command, "commands", {}).values())  # a verb with verbs of its own: all of them
        for option in each.params
        for name in (*option.opts, *option.secondary_opts)
    }
    for verb, command in COMMANDS.items()
}


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Verb and the rest of the line of every command in a text, up to a comment or the end of its code."""
    for verb, rest in re.findall(r"quantward (\w+)((?: [^\n`#|]*)?)", text):
        if verb in OPTIONS:
            yield verb, rest


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_options_exist(page: Path) -> None:
    for verb, rest in commands(page.read_text(encoding="utf-8")):
        unknown = set(re.findall(r"(?<![\w-])--[a-z-]+", rest)) - OPTIONS[verb] - {"--help"}
        assert not unknown, f"quantward {verb} has no {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_what_commands_spell_can_be_made(page: Path) -> None:
    for _, rest in commands(page.read_text(encoding="utf-8")):
        for option, registry in REGISTRIES.items():
            for spelling in re.findall(option + r" ([\w-][^\s\][`]*)", rest):
                if spelling != "auto":
                    registry.make(spelling)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_spellings_with_options_can_be_made(page: Path) -> None:
    names = sorted({name for option in SPELLINGS for name in REGISTRIES[option].names()}, key=len, reverse=True)
    for spelling in re.findall(rf"`((?:{'|'.join(names)}):[^`\s]+)`", page.read_text(encoding="utf-8")):
        assert any(_makes(REGISTRIES[option], spelling) for option in SPELLINGS), spelling


def _makes(registry: Registry, spelling: str) -> bool:
    try:
        registry.make(spelling)
    except QuantwardError:
        return False
    return True


def test_commands_are_found() -> None:
    found = list(commands("    quantward bench FILE --oops\nUse `quantward find RUN DATA --runtime auto`."))
    assert found == [("bench", " FILE --oops"), ("find", " RUN DATA --runtime auto")]
    assert "--oops" not in OPTIONS["bench"] and "--runtime" in OPTIONS["find"]
