"""The directory is the registry: what lies there is an entry, keeps its contract and survives its own spelling."""

from __future__ import annotations

import dataclasses

import pytest

from quantward.core.contracts import Recipe, Runtime, Target
from quantward.core.errors import UsageError
from quantward.core.registry import Registry, spelling

PACKAGES = {
    "recipe": ("quantward.quantize.recipes", Recipe),
    "target": ("quantward.targets", Target),
    "runtime": ("quantward.runtimes", Runtime),
}
ENTRIES = [(kind, name) for kind, (package, _) in PACKAGES.items() for name in Registry(kind, package).names()]
RECIPES = Registry("recipe", "quantward.quantize.recipes")


NEEDING = {"mixed": "mixed:ratio=0.2"}
"""Entries that mean nothing without an option."""


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_entry_keeps_its_contract(kind: str, name: str) -> None:
    package, contract = PACKAGES[kind]
    registry = Registry(kind, package)
    text = NEEDING.get(name, name)
    entry = registry.make(text)
    assert isinstance(entry, contract)
    assert dataclasses.is_dataclass(entry) and type(entry).__dataclass_params__.frozen
    assert type(entry).__doc__ and registry.summary(name)
    assert spelling(entry) == text


@pytest.mark.parametrize(
    "text",
    [
        "int8-static:calibrator=entropy,samples=200",
        "int8-static:keep=stem+blocks.0*",
        "int8-static:correct=false,equalise=0.25",
        "int8-dynamic:convolutions=false",
    ],
)
def test_spelling_round_trips(text: str) -> None:
    again = spelling(RECIPES.make(text))
    assert RECIPES.make(again) == RECIPES.make(text)
    assert sorted(again.split(":")[1].split(",")) == sorted(text.split(":")[1].split(","))


def test_defaults_are_not_spelled() -> None:
    default = RECIPES.make("int8-static")
    assert spelling(RECIPES.make(f"int8-static:calibrator={default.calibrator}")) == "int8-static"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("int8", "Expected a recipe; got 'int8'"),
        ("fp16:bits=8", "Expected an option of recipe 'fp16'; got 'bits'"),
        ("int8-static:calibrator", "Expected calibrator=VALUE"),
        ("int8-static:correct=yes", "true or false"),
        ("int8-static:calibrator=mean", "one of max, percentile, mse, entropy"),
    ],
)
def test_wrong_spelling_is_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        RECIPES.make(text)
    assert sentence in str(caught.value)
