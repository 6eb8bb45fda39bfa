"""Which runtime a search takes when nobody says: the fastest on which the FP32 file is right, and the same again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quantward import placing
from quantward.audit.equivalence import Agreement, NotEquivalent
from quantward.candidates import AUTO, Search, Work
from quantward.core.values import Efficiency, Latency
from quantward.evaluate import read_gates

RIGHT = Agreement(8, 1.0, 0.0, 0.0)
TIMES = {"onnxruntime": {"fp32": 9.0, "int8-static": 5.0}, "openvino": {"fp32": 8.0, "int8-static": 3.0}}


def cost(name: str, runtime: str, milliseconds: float) -> Efficiency:
    return Efficiency(name, runtime, 1, 0.0, (Latency(1, milliseconds, milliseconds, milliseconds, 5, 0.0),))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    made = {name: SimpleNamespace(variant=SimpleNamespace(format="onnx", sha256=name)) for name in TIMES["openvino"]}
    found = SimpleNamespace(search=Search(read_gates("clinical")), made=made, folder=tmp_path, asked=[])

    def time_all(work: Any, names: tuple[str, ...]) -> dict[str, dict[str, Efficiency]]:
        found.asked.append(names)
        return {runtime: {name: cost(name, runtime, ms) for name, ms in TIMES[runtime].items()} for runtime in names}

    monkeypatch.setattr(placing, "time_all", time_all)
    return cast(Work, found)


def test_the_fastest_candidate_decides_and_the_choice_is_told(work: Work) -> None:
    costs, rows = placing.settle(work, {"onnxruntime": RIGHT, "openvino": RIGHT}, {"litert": "It crashed."})
    assert work.search.runtime == "openvino" and costs["int8-static"].runtime == "openvino"
    assert [row["runtime"] for row in rows] == ["openvino", "onnxruntime", "litert"]
    assert [row["chosen"] for row in rows] == [True, False, False]
    assert "openvino, 3.00 ms" in placing.fastest(rows) and "litert left out" in placing.fastest(rows)


def test_a_search_goes_on_where_it_began(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": RIGHT, "openvino": RIGHT}
    first = placing.settle(work, both, {})
    work.search = replace(work.search, runtime=AUTO)
    monkeypatch.setitem(TIMES["openvino"], "int8-static", 99.0)
    again = placing.settle(work, both, {})
    assert work.search.runtime == "openvino" and again[1] == first[1]
    assert work.asked[-1] == ("openvino",)  # type: ignore[attr-defined]
    work.made["fp16"] = SimpleNamespace(variant=SimpleNamespace(format="onnx", sha256="new"))  # type: ignore[assignment]
    placing.settle(work, both, {})
    assert work.search.runtime == "onnxruntime", "other files, so another choice"


def test_where_nothing_was_quantized_fp32_decides(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    for runtime in TIMES:
        monkeypatch.delitem(TIMES[runtime], "int8-static")
    _, rows = placing.settle(work, {"onnxruntime": RIGHT, "openvino": RIGHT}, {})
    assert rows[0]["candidate"] == "fp32" and work.search.runtime == "openvino"


def test_a_runtime_that_computes_something_else_is_left_out(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def prove(work: Any, name: str) -> Agreement:
        if name == "openvino":
            raise NotEquivalent("It computes something else.")
        return RIGHT

    monkeypatch.setattr(placing, "prove_export", prove)
    proved, out = placing.prove_all(work)
    assert "onnxruntime" in proved and out["openvino"] == "It computes something else."


def test_where_none_is_right_the_search_stops(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def prove(work: Any, name: str) -> Agreement:
        raise NotEquivalent(f"{name} computes something else.")

    monkeypatch.setattr(placing, "prove_export", prove)
    with pytest.raises(NotEquivalent, match="computes something else"):
        placing.prove_all(work)
