"""A page of speeds: every row is on it, noise and failures are seen, foreign names are text, and nothing is loaded."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from quantward.core.values import Bench, ColdStart, Efficiency, Latency, Speedup
from quantward.report._speed import bars
from quantward.report.speed import heading, write_bench
from quantward.report.terminal import show_efficiency


def line(batch: int, p50: float, spread: float = 0.02, **more: float) -> Latency:
    return Latency(batch, p50, 1.1 * p50, 1.6 * p50, 150, spread, (p50,) * 30, peak_bytes=90_000_000, **more)  # type: ignore[arg-type]


def made(name: str, runtime: str, p50: float, recipe: str = "int8-static", **more: object) -> Efficiency:
    cold = ColdStart(0.4, 0.2, 0.05, 0.01, 3)
    return Efficiency(name, runtime, 2_400_000, 3.2, (line(1, p50), line(32, 20 * p50)), 50.0, 90_000_000, "A CPU",
                      recipe=recipe, sha256="c0ffee" * 10, cold=cold, **more)  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture
def found() -> Bench:
    gains = (
        Speedup("fp32 on onnxruntime", 1, 4.02, 3.9, 4.15, 30),
        Speedup("fp32 on torch-float", 1, 12.3, 12, 13, 30),
    )
    rows = (
        made("fp32", "onnxruntime", 8.0, "fp32"),
        made("int8-static", "onnxruntime", 2.0, speedups=gains),
        replace(made("int8-static", "openvino", 1.5), latency=(line(1, 1.5, 0.4),)),
        made("int8-static", "litert", 9.0, notes=("Slower than fp32 on litert: 0.4 times as fast at batch 1.",)),
        replace(made("<b>densenet</b>", "openvino", 1.0), latency=(), cold=None, failure="openvino crashed (SIGSEGV)"),
    )
    return Bench(rows, {"processor": "A CPU", "cores": 2, "libraries": {"numpy": "2"}}, {"rounds": 30}, "no counters")


class Balanced(HTMLParser):
    """Counts what is opened and closed, and gathers what a browser would fetch."""

    VOID = frozenset({"meta", "br", "wbr", "rect", "path", "circle", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href")]
        assert tag != "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        assert self.open.pop() == tag


def page(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(text)
    assert parser.open == [] and parser.fetched == []
    return text


def test_every_row_is_on_the_page(found: Bench, tmp_path: Path) -> None:
    text = page(write_bench({"here": found}, tmp_path / "page.html"))
    assert "5 combinations of file, runtime and threads on one machine; 1 could not be timed" in text
    assert "4.0× (3.9 to 4.2) fp32 on onnxruntime; 12× (12.0 to 13.0) fp32 on torch-float" in text
    assert "One image at a time" in text and "32 images a call" in text
    assert "openvino crashed (SIGSEGV)" in text and "Slower than fp32 on litert" in text
    assert "&lt;b&gt;densenet&lt;/b&gt;" in text and "<b>densenet" not in text
    assert "40 % unreliable" in text and "60 ms" in text and "90.0 MB" in text and "c0ffeec0ffee" in text
    assert "No energy: no counters." in text and "mJ" not in text
    assert "A CPU, 2 cores" in text and "here:" not in text


def test_the_same_results_give_the_same_bytes(found: Bench, tmp_path: Path) -> None:
    one = write_bench({"here": found}, tmp_path / "1.html").read_bytes()
    assert write_bench({"here": found}, tmp_path / "2.html").read_bytes() == one


def test_devices_stand_on_one_scale_under_their_names(found: Bench, tmp_path: Path) -> None:
    board = Bench(found.rows, {"board": "NVIDIA Jetson Orin Nano", "processor": "arm", "cores": 6})
    text = page(write_bench({"desk": found, "ward 3": board}, tmp_path / "page.html"))
    assert "10 combinations of file, runtime and threads on 2 machines; 2 could not be timed" in text
    assert "ward 3: NVIDIA Jetson Orin Nano, 6 cores" in text and "ward 3 · onnxruntime" in text
    assert text.count('class="bars"') == 2
    assert heading("x", board) == "x: NVIDIA Jetson Orin Nano, 6 cores"


def test_energy_has_a_column_where_it_was_read(found: Bench, tmp_path: Path) -> None:
    metered = replace(found.rows[0], latency=(line(1, 8.0, joules=0.0123),))
    text = page(write_bench({"here": Bench((metered,), found.machine)}, tmp_path / "page.html"))
    assert "mJ an image" in text and "12.3" in text and "No energy" not in text


def test_nothing_timed_is_still_a_page(found: Bench, tmp_path: Path) -> None:
    text = page(write_bench({"here": Bench(found.rows[-1:], {})}, tmp_path / "page.html"))
    assert "crashed (SIGSEGV)" in text and 'class="bars"' not in text


def test_bars_are_as_long_as_their_times(found: Bench) -> None:
    rows = [("", row, row.latency[0], ()) for row in found.rows[:3]]
    drawing = str(bars(rows))
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="20"', drawing)]
    assert widths[0] / widths[1] == pytest.approx(4.0, rel=0.01)
    assert drawing.count("noisy") == 1 and drawing.count("float") == 1
    assert "p50 8, p90 8.8, p99 12.8 ms" in drawing


def test_the_terminal_shows_both_ratios_and_every_reason(found: Bench) -> None:
    for width in (80, 140):
        stream = io.StringIO()
        show_efficiency(found.rows, Console(file=stream, width=width), found.energy)
        text = stream.getvalue()
        assert all(cell_len(row) <= width for row in text.splitlines())
        words = " ".join(text.split())
        assert "× FP32" in words and "× eager" in words and "4.0× 12×" in words
        assert "✕ failed openvino crashed (SIGSEGV)" in words and "No energy: no counters." in words
        assert "Slower than fp32 on litert" in words and "1.50*" in words
        assert ("60 ms" in words) == (width == 140)
    stream = io.StringIO()
    show_efficiency(found.rows[-1:], Console(file=stream, width=80))
    assert "p50" not in stream.getvalue() and "SIGSEGV" in stream.getvalue()
