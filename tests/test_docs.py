"""The docs keep up: every verb and every entry is in them, links lead somewhere, and decisions have a status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quantward.cli import app
from quantward.core.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
KINDS = {
    "recipe": "quantward.quantize.recipes",
    "target": "quantward.targets",
    "runtime": "quantward.runtimes",
    "stage": "quantward.train.stages",
    "gate": "quantward.evaluate.gates",
}
ENTRIES = [(kind, name) for kind, package in KINDS.items() for name in Registry(kind, package).names()]
VERBS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented(verb: str) -> None:
    assert re.search(rf"quantward {verb}\b|`{verb}`", TEXT)


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_is_documented(kind: str, name: str) -> None:
    assert f"`{name}`" in TEXT or f"{name}:" in TEXT, f"{kind} {name} is in no page"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda p: p.name)
def test_decisions_have_a_status(page: Path) -> None:
    assert re.search(r"^Status: (accepted|superseded by \[?\d{4})", page.read_text(encoding="utf-8"), re.MULTILINE)
