"""The page is one file that loads nothing, escapes everything, says what is missing and is the same every time."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantward.core.values import Dossier, Entry, Verdict
from quantward.report.html import write_comparison, write_report

VOID = {"meta", "link", "br", "img", "hr", "input", "wbr", "col"}
EVIL = "<script>alert('x')</script>"


class Reader(HTMLParser):
    """Reads a page strictly: every element closed in its order; collects what tests ask for."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.untitled = 0
        self._fresh = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.untitled += self._fresh and tag != "title"
        self._fresh = tag == "svg"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def read(path: Path) -> tuple[Reader, str]:
    """Parse a page; it must be well-formed."""
    text = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    reader.text = " ".join(reader.text.split())
    return reader, text


def keeps_to_itself(reader: Reader, text: str) -> None:
    """Nothing is loaded, nothing runs, every anchor leads somewhere, every id stands once."""
    names = [tag for tag, _ in reader.tags]
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(names)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in reader.tags:
        assert not any(key.startswith("on") for key in attributes), (tag, attributes)
        for key in ("src", "href", "xlink:href", "data", "poster", "srcset"):
            target = attributes.get(key)
            if target is not None:
                assert target.startswith("data:image/") or target[1:] in ids, (tag, key, target[:60])
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    policies = [a["content"] for t, a in reader.tags if t == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert reader.untitled == 0, "an svg without a title"


def test_the_usual_page_is_whole(usual: Dossier, picture: Callable[[str], bytes | None], page_path: Path) -> None:
    assert write_report(usual, page_path, picture) == page_path
    reader, text = read(page_path)
    keeps_to_itself(reader, text)
    for section in ("verdict", "proof", "candidates", "differences", "detail", "others", "gates", "efficiency",
                    "choice", "external", "audit", "data", "provenance", "glossary", "methods"):  # fmt: skip
        assert any(attributes.get("id") == section for _, attributes in reader.tags), section
    assert "int8-static passed: it is the lowest precision shown to stay within every margin." in reader.text
    assert "For research use only." in reader.text and "not a medical device" in reader.text
    assert usual.power in reader.text
    assert "Convolution 'blocks.3' has 7 input channels" in reader.text
    assert usual.provenance["fold_fingerprint"] in reader.text


def test_the_figures_in_the_table_are_those_of_the_values(usual: Dossier, page_path: Path) -> None:
    reader, _ = read(write_report(usual, page_path))
    for entry in usual.entries[1:]:
        if entry.comparison is None:
            continue
        delta = entry.comparison.deltas["accuracy"]
        assert delta.delta is not None and delta.low is not None and delta.high is not None
        shown = f"{100 * delta.low:+.1f} to {100 * delta.high:+.1f}".replace("-", "−")
        assert shown in reader.text
        flips = entry.comparison.flips
        assert f"{flips.broken:,} from right to wrong, {flips.mended:,} from wrong to right" in reader.text


def test_the_same_dossier_gives_the_same_bytes(
    usual: Dossier, picture: Callable[[str], bytes | None], tmp_path: Path
) -> None:
    first = write_report(usual, tmp_path / "a.html", picture).read_bytes()
    assert first == write_report(usual, tmp_path / "b.html", picture).read_bytes()


def test_names_from_data_are_escaped_everywhere(build: Callable[..., Dossier], page_path: Path) -> None:
    classes = (EVIL, 'b" onmouseover="alert(1)', "c & d", "{{ 7 * 7 }}")
    made = build(classes, 160, chosen=None, external=True)
    bad = replace(
        made,
        title=EVIL,
        power=EVIL,
        images={EVIL: EVIL, "warnings": (EVIL, {"code": EVIL, "severity": EVIL, "sentence": EVIL})},
        provenance={EVIL: [EVIL, {EVIL: EVIL}]},
        choices=({EVIL: EVIL},),
        entries=(
            *made.entries[:-1],
            replace(made.entries[-1], name=EVIL, recipe=EVIL, runtime=EVIL, failure=EVIL, audit={EVIL: EVIL}),
        ),
    )
    reader, text = read(write_report(bad, page_path, lambda name: b"<svg onload=alert(1)>"))
    keeps_to_itself(reader, text)
    assert "<script" not in text.lower() and "<svg onload" not in text
    assert EVIL in reader.text and "{{ 7 * 7 }}" in reader.text
    assert "<img" not in text, "bytes that are neither PNG nor JPEG must not be embedded"


def test_control_characters_do_not_reach_the_page(usual: Dossier, page_path: Path) -> None:
    _, text = read(write_report(replace(usual, title="a\x1b[31m‮b\x00"), page_path))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f‪-‮]", text)


def test_thumbnails_are_embedded_for_the_worst_flips_only(usual: Dossier, page_path: Path) -> None:
    asked: list[str] = []
    data = b"\x89PNG\r\n\x1a\n" + b"x" * 40

    def picture(name: str) -> bytes | None:
        asked.append(name)
        return data

    _, text = read(write_report(usual, page_path, picture))
    assert f'src="data:image/png;base64,{base64.b64encode(data).decode()}"' in text
    assert 0 < len(asked) <= 12 + 4 * 3
    assert text.count("<img") == len(asked)


def test_missing_values_are_said_with_their_reason(build: Callable[..., Dossier], page_path: Path) -> None:
    made = build(n=160, absent=2, external=False, timed=False, grouped=False, chosen=None)
    reader, text = read(write_report(made, page_path))
    keeps_to_itself(reader, text)
    assert "not defined: no image of class 'no tumour'" in reader.text
    assert "Not defined: the test set has no image of this class" in reader.text
    assert ">None<" not in text and "nan" not in reader.text.split() and "None" not in reader.text.split()
    assert "Size and speed" not in reader.text
    assert "On a second data set" not in reader.text


def test_when_everything_failed_the_page_says_so(
    build: Callable[..., Dossier], usual: Dossier, page_path: Path
) -> None:
    failed = replace(usual, entries=(usual.entries[0], usual.entries[-1]), chosen=None, external=())
    reader, text = read(write_report(failed, page_path))
    keeps_to_itself(reader, text)
    assert "No candidate could be measured." in reader.text
    assert "in detail" not in reader.text


def test_the_headline_never_claims_more_than_the_search(usual: Dossier, page_path: Path) -> None:
    def headline(dossier: Dossier) -> str:
        _, text = read(write_report(dossier, page_path))
        found = re.search(r'<section id="verdict" class="headline ([\w-]+)">\s*<h2>.*?</span>(.*?)</h2>', text)
        assert found
        return f"{found[1]}: {found[2]}"

    by_name = {entry.name: entry for entry in usual.entries}
    base = usual.entries[0]

    def only(*names: str) -> Dossier:
        return replace(usual, chosen=None, entries=(base, *(by_name[name] for name in names)), external=())

    assert headline(only("int8-static-max")) == "fail: No candidate passed."
    assert headline(only("int8-static-max", "fp16")).startswith("undecided: No candidate was shown")
    assert headline(only("int8-static")).startswith("undecided: No precision was accepted, though 1 candidate")
    lying = replace(usual, chosen="int8-static-max")
    assert "passed: it is" not in headline(lying)


def test_a_page_without_anything_but_a_baseline(usual: Dossier, page_path: Path) -> None:
    bare = Dossier("bare", usual.entries[:1], None, {}, {}, {})
    reader, text = read(write_report(bare, page_path))
    keeps_to_itself(reader, text)
    empty = Dossier("empty", (), None, {}, {}, {})
    keeps_to_itself(*read(write_report(empty, page_path)))


@pytest.mark.parametrize(("classes", "amount"), [(2, 1), (9, 12)])
def test_sizes_stay_fit_for_a_mail(
    build: Callable[..., Dossier], rungs: Callable[[int], Any], page_path: Path, classes: int, amount: int
) -> None:
    names = tuple(f"class number {i} with a rather long name" for i in range(classes))
    made = build(names, 200, rungs(1), chosen=None, external=False, replicates=20)
    alike = tuple(replace(made.entries[1], name=f"candidate number {i}") for i in range(amount))
    made = replace(made, entries=(made.entries[0], *alike))
    reader, text = read(write_report(made, page_path))
    keeps_to_itself(reader, text)
    assert page_path.stat().st_size < (150_000 if amount == 1 else 3_000_000)
    assert len([1 for tag, _ in reader.tags if tag == "details"]) >= amount - 1


def test_a_comparison_of_two_files_has_its_page(usual: Dossier, page_path: Path) -> None:
    base = usual.entries[0]
    other = next(entry for entry in usual.entries if entry.name == "int8-static-max")
    assert base.predictions and other.predictions and other.comparison
    write_comparison(other.comparison, base.predictions, other.predictions, other.verdict, page_path)
    reader, text = read(page_path)
    keeps_to_itself(reader, text)
    assert "int8-static-max failed: at least one margin is broken." in reader.text
    assert "paired comparison" in reader.text and "ROC curves" in reader.text
    assert "<h3>Calibration</h3>" not in text, "no reliability without evaluations"
    before = other.comparison.deltas["accuracy"].baseline
    assert before is not None and f"{100 * before:.1f} %" in reader.text, "the baseline's own accuracy is known"
    write_comparison(
        other.comparison,
        base.predictions,
        other.predictions,
        None,
        page_path,
        baseline_evaluation=base.evaluation,
        candidate_evaluation=other.evaluation,
        provenance={"seed": 1},
    )
    reader, text = read(page_path)
    keeps_to_itself(reader, text)
    assert "no gate was asked" in reader.text and "Confusion of" in reader.text
    assert "<h3>Calibration</h3>" in text


def test_a_pair_whose_images_stand_in_another_order_is_the_same_page(usual: Dossier, tmp_path: Path) -> None:
    base = usual.entries[0]
    other = next(entry for entry in usual.entries if entry.name == "int8-static-max")
    assert base.predictions and other.predictions and other.comparison
    turn = np.random.default_rng(0).permutation(len(other.predictions))
    assert other.predictions.groups
    shuffled = replace(
        other.predictions,
        ids=tuple(other.predictions.ids[i] for i in turn),
        groups=tuple(other.predictions.groups[i] for i in turn),
        truth=other.predictions.truth[turn],
        probabilities=other.predictions.probabilities[turn],
    )
    pages = [
        write_comparison(other.comparison, base.predictions, said, other.verdict, tmp_path / f"{i}.html")
        for i, said in enumerate((other.predictions, shuffled))
    ]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_two_candidates_with_unknown_metrics_and_gates(usual: Dossier, page_path: Path) -> None:
    """Later rooms may add metrics and gates; the page shows what it does not know."""
    entry = usual.entries[1]
    assert entry.comparison and entry.verdict and entry.evaluation
    deltas = {**entry.comparison.deltas, "log_loss": entry.comparison.deltas["accuracy"]}
    findings = (
        *entry.verdict.findings,
        replace(entry.verdict.findings[0], code="log-loss", title="A new gate"),
    )
    changed: Entry = replace(
        entry,
        comparison=replace(entry.comparison, deltas=deltas),
        verdict=Verdict(entry.name, findings),
    )
    reader, _ = read(write_report(replace(usual, entries=(usual.entries[0], changed)), page_path))
    assert "log loss" in reader.text and "A new gate" in reader.text


def test_cross_checks_are_shown_where_they_are_and_only_there(usual: Dossier, page_path: Path) -> None:
    entry = usual.entries[3]
    assert entry.comparison
    notes = {
        "tests": {"accuracy": {"mcnemar_p": 0.25}},
        "calibration": {
            "candidate": {"ece_floor": {"mean": 0.066, "high": 0.077}},
            "temperature": {
                side: {"temperature": 1.5, "fitted_on": 1200, "before": {"ece": 0.03}, "after": {"ece": 0.02}}
                for side in ("baseline", "candidate")
            },
        },
        "decisions": {
            "operating_points": {
                "<i>": {
                    "baseline": {"threshold": 0.2164, "sensitivity": 0.9643, "specificity": 0.9255},
                    "frozen": {"sensitivity": 0.9464, "specificity": None},
                    "sensitivity_low": -0.0986,
                    "sensitivity_high": 0.0517,
                },
                "empty": {"reason": "no image of this class"},
            },
            "thresholds_from": "given",
            "subgroups": [
                {
                    "attribute": "sex",
                    "value": "<b>",
                    "n": 40,
                    "baseline": 0.9,
                    "candidate": 0.8,
                    "low": -0.2,
                    "high": 0.01,
                }
            ],
        },
    }

    def text_of(notes: Any) -> str:
        changed = replace(entry, comparison=replace(entry.comparison, notes=notes))
        dossier = replace(usual, entries=(usual.entries[0], changed), external=())
        return read(write_report(dossier, page_path))[0].text

    text = text_of(notes)
    assert "would show an ECE of 0.066 (in 95 of 100 cases at most 0.077)" in text
    assert "<i> 0.216 96.4 % 94.6 % −9.9 to +5.2 92.5 % – –" in text
    assert "mcnemar p 0.25" in text
    assert "fitted on 1,200 other images and not applied: baseline T = 1.50, ECE 0.030 without" in text
    assert "chosen for the baseline on other images" in text
    assert "sex <b> 40 90.0 % 80.0 % −20.0 to +1.0" in text
    for odd in ({}, {"tests": 3, "calibration": [], "decisions": {"operating_points": None}}):
        text = text_of(odd)
        assert "Cross-checks" not in text and "At the thresholds" not in text and "With so few images even" not in text
