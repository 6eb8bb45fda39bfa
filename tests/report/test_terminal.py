"""Terminal tables fit their width, carry their meaning without colour, and print names as they are."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from quantward.core.values import Dossier, Evaluation, Verdict
from quantward.report import terminal

WIDTHS = (80, 100, 140)


def printed(show: Callable[[Console], None], width: int = 100, colour: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    show(console)
    text = stream.getvalue()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert all(cell_len(line) <= width for line in plain.splitlines())
    return text


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_the_verdict_table_has_a_row_for_every_candidate(usual: Dossier, width: int) -> None:
    text = printed(lambda console: terminal.show_dossier(usual, console), width)
    lines = text.splitlines()
    for entry in usual.entries:
        assert any(line.startswith(entry.name) for line in lines), entry.name
    for outcome in ("PASS (chosen)", "FAIL", "FAILED", "INSUFFICIENT", "baseline"):
        assert outcome in words(text), outcome
    assert "\x1b" not in text
    delta = usual.entries[3].comparison
    assert delta is not None
    accuracy = delta.deltas["accuracy"]
    assert accuracy.delta is not None
    assert f"{100 * accuracy.delta:+.1f}".replace("-", "−") in text
    assert "lowest precision shown to stay within every margin" in words(text)
    assert "Convolution 'blocks.3' has 7 input channels" in words(text)
    assert "On a second data set" in text


def test_colour_adds_nothing_that_words_do_not_say(usual: Dossier) -> None:
    coloured = printed(lambda console: terminal.show_dossier(usual, console), colour=True)
    bare = printed(lambda console: terminal.show_dossier(usual, console))
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == bare


def test_a_search_in_which_nothing_passed_says_keep_the_baseline(usual: Dossier) -> None:
    lost = replace(usual, chosen=None, entries=(usual.entries[0], usual.entries[4]), external=())
    text = words(printed(lambda console: terminal.show_dossier(lost, console)))
    assert "No candidate passed." in text and "Keep fp32." in text
    printed(lambda console: terminal.show_dossier(replace(usual, entries=(), chosen=None, external=()), console))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_says_every_difference_in_words(usual: Dossier, width: int) -> None:
    entry = usual.entries[4]
    assert entry.comparison is not None
    found = entry.comparison
    text = words(printed(lambda console: terminal.show_comparison(found, console, entry.verdict), width))
    for name in ("Accuracy", "AUROC", "AUPRC", "Brier score", "ECE, debiased", "Cohen's kappa"):
        assert name in text
    assert "worse" in text
    assert f"{found.flips.count} images changed their most probable class" in text
    assert "Verdict: ✕ FAIL" in text
    assert "pituitary" in text


def test_a_comparison_without_verdict_or_definition(build: Callable[..., Dossier]) -> None:
    made = build(n=120, absent=1, external=False, chosen=None)
    found = made.entries[3].comparison
    assert found is not None
    text = words(printed(lambda console: terminal.show_comparison(found, console), 140))
    assert "not defined: no image of class 'meningioma'" in text
    assert "Verdict" not in text
    empty = Verdict("x", ())
    assert "no gate applied" in printed(lambda console: terminal.show_comparison(found, console, empty))


@pytest.mark.parametrize("width", WIDTHS)
def test_an_evaluation_shows_values_intervals_and_classes(
    measured_pair: tuple[object, object, Evaluation], width: int
) -> None:
    level = measured_pair[2]
    text = words(printed(lambda console: terminal.show_evaluation(level, console), width))
    accuracy = level.overall["accuracy"]
    assert accuracy.value is not None and f"{100 * accuracy.value:.1f} %" in text
    for name in level.classes:
        assert name in text


@dataclass(frozen=True)
class Flaw:
    code: str
    severity: str
    sentence: str


def test_findings_print_errors_first_and_count_them() -> None:
    flaws = (
        Flaw("tiny", "note", "One image is small."),
        {"code": "near-duplicate", "severity": "warning", "sentence": "Two images look alike."},
        Flaw("leak", "error", "251 test images are in training, too."),
    )
    text = printed(lambda console: terminal.show_findings(flaws, console, title="brain_mri"), 80)
    places = [text.index(code) for code in ("leak", "near-duplicate", "tiny")]
    assert places == sorted(places)
    assert "1 error, 1 warning, 1 note." in text and "brain_mri" in text
    assert "Nothing was found." in printed(lambda console: terminal.show_findings((), console))


@pytest.mark.parametrize("width", (80, 100))
def test_efficiency_marks_noisy_rows_and_ratios(usual: Dossier, width: int) -> None:
    costs = [entry.efficiency for entry in usual.entries if entry.efficiency]
    text = printed(lambda console: terminal.show_efficiency(costs, console), width)
    assert "15.5*" in text and "too noisy" in text and "2.1×" in text
    bare = [replace(costs[0], latency=(), throughput=None)]
    printed(lambda console: terminal.show_efficiency(bare, console))
    printed(lambda console: terminal.show_efficiency([], console))


def test_names_are_text_and_not_markup(build: Callable[..., Dossier]) -> None:
    classes = ("[bold red]boo[/]", "a\x1b[2Jb")
    made = build(classes, 80, chosen=None, external=False)
    entry = made.entries[3]
    assert entry.comparison and entry.evaluation
    comparison, level = entry.comparison, entry.evaluation
    for show in (
        lambda console: terminal.show_comparison(comparison, console, entry.verdict),
        lambda console: terminal.show_evaluation(level, console),
        lambda console: terminal.show_dossier(made, console),
    ):
        text = printed(show, 140)
        assert "\x1b" not in text
    assert "[bold red]boo[/]" in printed(lambda console: terminal.show_evaluation(level, console))


def test_a_stream_that_cannot_hold_a_sign_gets_a_question_mark(usual: Dossier, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    console = terminal.open_console()
    terminal.show_dossier(usual, console)
    console.file.flush()
    assert b"? PASS" in raw.getvalue()
