"""The recipe `mixed`: tables from files, tables from budgets, and every way in which a table can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantward.audit.size import size
from quantward.core.contracts import Context
from quantward.core.errors import Refused, UsageError
from quantward.core.registry import Registry
from quantward.core.values import Plan, Variant
from quantward.graph.files import load_plan, save_plan
from quantward.graph.walk import layers, weight_of
from quantward.quantize._static import Bits
from quantward.quantize._table import read_table, write_table

QUICK = "probe=8,samples=16,rounding=nearest"
RECIPES = Registry("recipe", "quantward.quantize.recipes")


@pytest.fixture
def names(small_plan: Plan) -> list[str]:
    return [layer.name for layer in layers(small_plan.program)]


def bits_of(plan: Plan) -> dict[str, int]:
    return {layer.name: plan.tensors[weight_of(layer)].bits for layer in layers(plan.program)}


def test_table_makes_the_round_trip(small_plan: Plan, names: list[str], tmp_path: Path) -> None:
    table = {name: Bits(2 + k % 7, 8 - k % 7) for k, name in enumerate(names)}
    path = write_table(table, tmp_path / "t.json", predicted=0.1)
    assert read_table(path, small_plan.program) == table
    backwards = write_table(dict(reversed(table.items())), tmp_path / "b.json")
    assert list(read_table(backwards, small_plan.program)) == names


def test_every_layer_has_the_bits_of_the_table(
    small_plan: Plan, planned: Callable[[str], Plan], names: list[str], tmp_path: Path
) -> None:
    table = {name: Bits(4 if k % 2 else 8, 8) for k, name in enumerate(names)}
    made = planned(f"mixed:table={write_table(table, tmp_path / 't.json')}")
    assert bits_of(made) == {name: bits.weights for name, bits in table.items()}
    assert made.notes["mixed"]["layers"] == {name: f"w{bits.weights}a8" for name, bits in table.items()}
    for layer in layers(made.program):
        spec = made.tensors[weight_of(layer)]
        on_grid = made.weights[weight_of(layer)].reshape(len(spec.scale), -1) / spec.scale[:, None]
        assert np.abs(on_grid - np.rint(on_grid)).max() < 1e-3, "weights lie on their grids: rounding is adaptive"


def test_ratio_is_kept_and_bytes_are_those_of_the_audit(
    planned: Callable[[str], Plan], small_plan: Plan, tmp_path: Path
) -> None:
    whole = sum(array.nbytes for array in small_plan.weights.values())
    file = Variant("", "plan", tmp_path, "", 1, "", "", small_plan.preprocess, small_plan.classes)
    for ratio in (0.36, 0.31):
        made = planned(f"mixed:ratio={ratio},{QUICK}")
        told = made.notes["mixed"]
        assert told["bytes"] <= told["budget"] <= ratio * whole
        assert set(bits_of(made).values()) == {4, 8}
        assert size(made, file).promised == told["bytes"]


def test_fewer_bytes_lose_more_as_predicted(planned: Callable[[str], Plan]) -> None:
    rich, poor = (planned(f"mixed:ratio={ratio},{QUICK}").notes["mixed"] for ratio in (0.36, 0.31))
    assert 0 < rich["predicted"] < poor["predicted"]
    assert poor["images"] == 8 and poor["exact"] is True


def test_ranking_is_computed_once_for_all_budgets(
    small_plan: Plan, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    import quantward.quantize.recipes.mixed as module

    calls = []
    real = module.sensitivity
    monkeypatch.setattr(module, "sensitivity", lambda *a, **k: calls.append(1) or real(*a, **k))
    for ratio in (0.45, 0.35):
        RECIPES.make(f"mixed:ratio={ratio},{QUICK}").plan(small_plan, context)
    RECIPES.make("mixed:ratio=0.35,probe=4,rounding=nearest,samples=16").plan(small_plan, context)
    assert len(calls) == 2


def test_notes_hold_both_rankings_and_survive_the_disk(planned: Callable[[str], Plan], tmp_path: Path) -> None:
    made = planned(f"mixed:ratio=0.4,by=one-at-a-time,{QUICK}")
    told = load_plan(save_plan(made, tmp_path)).notes["mixed"]
    assert told == made.notes["mixed"]
    assert all(row["fisher"] >= 0 and row["divergence"] >= 0 for row in told["costs"])
    assert [row["n"] for row in told["correlations"]] == [len(told["layers"])] * 2


def test_more_probes_than_images_takes_all(planned: Callable[[str], Plan]) -> None:
    assert planned("mixed:ratio=0.4,probe=80,rounding=nearest,samples=16").notes["mixed"]["images"] == 64


def test_ratio_out_of_reach_names_the_least(planned: Callable[[str], Plan]) -> None:
    with pytest.raises(Refused, match=r"^Expected a ratio of at least (0\.\d+), .*got 0\.01") as error:
        planned("mixed:ratio=0.01,probe=4,rounding=nearest,samples=16")
    least = str(error.value).split("ratio=")[1].split(" ")[0]
    made = planned(f"mixed:ratio={least},probe=4,rounding=nearest,samples=16")
    assert set(bits_of(made).values()) == {4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mixed", "Expected table=FILE.json or ratio=SHARE"),
        ("mixed:ratio=0.2,table=x.json", "Expected table=FILE.json or ratio=SHARE"),
        ("mixed:ratio=1.2", "Expected ratio between 0 and 1; got 1.2"),
        ("mixed:ratio=0", "Expected ratio between 0 and 1; got 0"),
        ("mixed:ratio=0.2,by=luck", "Expected for recipe 'mixed', option 'by' one of"),
        ("mixed:ratio=0.2,probe=0", "Expected probe of at least 1 image"),
        ("mixed:ratio=0.2,offer=w8a8+w9a8", "Expected a width such as w4a8.*got 'w9a8'"),
        ("mixed:ratio=0.2,offer=w8a8+w8a8", "Expected different widths"),
    ],
)
def test_options_that_make_no_sense(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}"):
        RECIPES.make(text)


def faulty(names: list[str], fault: str) -> str:
    """A table with one fault, as text."""
    rows: dict[str, object] = dict.fromkeys(names, "w8a8")
    if fault == "unknown":
        rows["blocks.0.expanded"] = "w8a8"
    elif fault in ("absent", "two absent"):
        for name in names[: 1 if fault == "absent" else 2]:
            del rows[name]
    elif fault == "nine":
        rows[names[1]] = "w9a8"
    elif fault == "one":
        rows[names[1]] = "w8a1"
    elif fault == "number":
        rows[names[1]] = 8
    elif fault == "list":
        return json.dumps([rows])
    text = json.dumps({"layers": rows}, indent=1)
    if fault == "twice":
        return text.replace('"layers": {', f'"layers": {{\n  {json.dumps(names[-1])}: "w4a8",')
    return text + "}" if fault == "broken" else text


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("unknown", r"Expected a layer of the network in .*t\.json, line 11; got 'blocks\.0\.expanded'\. Did you mean"),
        ("absent", r"Expected bits for all \d+ layers in .*t\.json; 'stem' is absent"),
        ("two absent", r"Expected bits for all .*'stem' \(and 1 more\) is absent"),
        ("nine", r"Expected 2 to 8 bits for 'blocks\.0\.expand'.*line 4; got 'w9a8'"),
        ("one", r"Expected 2 to 8 bits for .*got 'w8a1'"),
        ("number", r"Expected 2 to 8 bits for .*got 8"),
        ("list", r"Expected \{\"layers\""),
        ("twice", r"Expected each name once in .*line \d+ names 'head' again"),
        ("broken", r"Expected JSON in .*t\.json; line \d+ is not"),
    ],
)
def test_a_faulty_table_is_refused_in_one_sentence(
    small_plan: Plan, names: list[str], tmp_path: Path, fault: str, said: str
) -> None:
    path = tmp_path / "t.json"
    path.write_text(faulty(names, fault))
    with pytest.raises(Refused, match=f"^{said}") as error:
        read_table(path, small_plan.program)
    assert "\n" not in str(error.value)


def test_absent_and_binary_files_are_refused(small_plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"Expected a table of bits at .*No such file"):
        read_table(tmp_path / "none.json", small_plan.program)
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refused, match="not UTF-8"):
        read_table(tmp_path / "x.json", small_plan.program)


def test_table_of_another_network_is_refused(small_plan: Plan, names: list[str], tmp_path: Path) -> None:
    path = write_table({name: Bits() for name in names}, tmp_path / "t.json")
    head = next(node for node in small_plan.program if node.name == "head")
    fewer = tuple(replace(node, name="tail") if node is head else node for node in small_plan.program)
    with pytest.raises(Refused, match="got 'head'"):
        read_table(path, fewer)
