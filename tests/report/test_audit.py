"""What the audits found is shown where it belongs: under the candidate, in the table of files, in the terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quantward.core.values import Dossier, Entry
from quantward.report import terminal
from quantward.report._audit import ASKED, audit, signs
from quantward.report._figures import histogram
from quantward.report.html import write_report

EVIL = "<script>alert('x')</script>"


def by_name(dossier: Dossier) -> dict[str, Entry]:
    return {entry.name: entry for entry in dossier.entries}


def test_facts_are_told_in_words(usual: Dossier) -> None:
    found = audit(by_name(usual)["int8-static-max"])
    assert found is not None and found.looked
    told = {label: (value, remark) for label, value, remark in found.facts}
    assert tuple(told) == ASKED
    assert told["Same answers"][0] == "97.40 % of 420 images"
    assert told["Layers in integers"] == ("onnxruntime 52 of 53; openvino 53 of 53", "53 meant")
    assert told["Bytes against bits"] == ("2.56 MB for 2.33 MB of bits", "+9.7 % besides")
    assert told["Answers without VNNI"][0] == "98.05 % of 256 images keep their class"
    assert "cure: reduce_range=true" in told["Answers without VNNI"][1]
    assert told["Sums beyond 16 bits"] == (
        "possible in 36 of 53 layers without VNNI",
        "worst sum −64,770, limit 32,767",
    )
    assert [sign.severity for sign in found.signs] == ["error", "warning"]
    assert len(found.ranges) == 3 and "49 of 256 levels" in found.ranges[0].caption


def test_what_could_not_be_measured_says_why(usual: Dossier) -> None:
    entry = by_name(usual)["fp16"]
    given = {**entry.audit, "capped_agreement": None, "capped_images": 0, "capped_reason": "openvino is not installed",
             "saturation": {"layers": 8, "possible_layers": 0, "worst": 32130, "limit": 32767,
                            "never_in_any_order": True}}  # fmt: skip
    found = audit(replace(entry, audit=given))
    assert found is not None
    told = {label: (value, remark) for label, value, remark in found.facts}
    assert told["Answers without VNNI"] == ("not measured", "openvino is not installed")
    assert told["Sums beyond 16 bits"][0] == "impossible, in whatever order they are added"
    assert found.signs == () and found.looked


def test_an_audit_of_another_shape_is_left_out(usual: Dossier) -> None:
    entry = usual.entries[0]
    assert audit(replace(entry, audit={})) is None
    odd: dict[str, Any] = {"agreement": "high", "integer_layers": 3, "bytes_promised": None, "signatures": "many",
                           "activations": [1], "saturation": {"layers": "all"}, "capped_images": 2}  # fmt: skip
    found = audit(replace(entry, audit=odd))
    assert found is not None and found.facts == () and found.signs == () and found.ranges == ()
    assert found.rest["agreement"] == "high"
    assert signs(replace(entry, audit={"signatures": [{"severity": "huge"}, 3, {"code": "x"}]})) == ()


def test_the_page_shows_signatures_histograms_and_the_table_of_files(usual: Dossier, tmp_path: Path) -> None:
    text = write_report(usual, tmp_path / "page.html").read_text(encoding="utf-8")
    plain = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert plain.count("What the audit found") == 4
    assert text.count('class="histogram"') == 9
    for words in ("single-class-collapse", "outlier-dominated", "Nothing that has a name", "Answers without VNNI"):
        assert words in plain, words
    assert "the worst channel loses 12 % of its mass" in plain


def test_names_in_an_audit_are_escaped(usual: Dossier, tmp_path: Path) -> None:
    entry = usual.entries[1]
    levels = {"low": 0.0, "high": 1.0, "inner_low": 0.0, "inner_high": 0.5, "grid_low": 0.0, "grid_high": 1.0,
              "shares": [0.5, 0.5], "levels": 256, "bulk_levels": 3.0}  # fmt: skip
    bad = {"code": EVIL, "title": EVIL, "severity": "error", "sentence": EVIL, "layers": [EVIL]}
    facts = {"signatures": [bad], "activations": {EVIL: levels}, "capped_agreement": None, "capped_reason": EVIL,
             "integer_layers": EVIL, "integer_layers_elsewhere": {EVIL: EVIL}}  # fmt: skip
    made = replace(usual, entries=(usual.entries[0], replace(entry, audit=facts)), external=())
    text = write_report(made, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize("shares", [[1.0], [0.0, 0.0], [0.5, 1e-9, 0.5]])
def test_a_histogram_of_odd_values_is_still_drawn(shares: list[float]) -> None:
    drawn = str(histogram("x", shares, (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)))
    assert drawn.startswith("<svg") and "nan" not in drawn and "inf" not in drawn
    wide = str(histogram("x", shares, (-1.0, 3.0), (0.0, 1.0), (-0.5, 2.0)))
    assert wide.count('class="beyond"') == 2 and wide.count('class="edge"') == 2


def test_the_terminal_names_what_went_wrong_where_a_candidate_failed(usual: Dossier) -> None:
    def printed(dossier: Dossier) -> str:
        stream = io.StringIO()
        terminal.show_dossier(dossier, Console(file=stream, width=100))
        return " ".join(stream.getvalue().split())

    made = replace(usual, external=())
    entries = by_name(made)
    failed = printed(replace(made, entries=(made.entries[0], entries["int8-static-max"])))
    assert "✕ error Nearly all answers are one class. 97.0 % of the images" in failed
    assert "! warning A few large values" in failed and "more gates" in failed
    passed = printed(replace(made, entries=(made.entries[0], entries["int8-static"])))
    assert "A few large values" not in passed


def test_an_error_is_named_even_where_the_gates_passed(usual: Dossier, build: Callable[..., Dossier]) -> None:
    from quantward.report._rows import verdict_rows

    entries = by_name(usual)
    lent = replace(entries["fp16"], audit=entries["int8-static-max"].audit)
    row = verdict_rows((usual.entries[0], lent), None)[1]
    assert [sign.code for sign in row.signs] == ["single-class-collapse"]
