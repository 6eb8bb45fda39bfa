"""Marks stand where the numbers are: margins, intervals, curves."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from quantward.core.values import Delta, ReliabilityBin
from quantward.evaluate import curves
from quantward.report._figures import Limit, forest_axis, forest_row, reliability, ruler, steps
from quantward.report._svg import Panel, Ruler, coordinate, tag, ticks
from quantward.report._words import metric

ACCURACY, ECE = metric("accuracy"), metric("ece")
SCALE = Ruler(-0.04, 0.04)


def marks(svg: str, kind: str) -> list[str]:
    return re.findall(rf'<[a-z]+ [^>]*class="{kind}[^"]*"[^>]*>', svg)


def at(svg: str, name: str) -> float:
    found = re.search(rf'{name}="(-?[\d.]+)%"', svg)
    assert found
    return float(found[1])


def test_the_forbidden_side_is_the_harmful_one() -> None:
    delta = Delta(0.9, 0.89, -0.01, -0.03, 0.01)
    higher = str(forest_row(delta, ACCURACY, SCALE, Limit(0.02, "higher"), "pass", "x"))
    (shade,) = marks(higher, "beyond")
    assert at(shade, "x") == 0 and at(shade, "width") == pytest.approx(25)
    lower = str(forest_row(delta, ECE, SCALE, Limit(0.02, "lower"), "pass", "x"))
    (shade,) = marks(lower, "beyond")
    assert at(shade, "x") == pytest.approx(75) and at(shade, "width") == pytest.approx(25)
    assert "margin −2.0" in higher and "margin +0.020" in lower
    assert not marks(str(forest_row(delta, ACCURACY, SCALE, None, "plain", "x")), "beyond")


def test_dot_and_bar_stand_at_their_values() -> None:
    svg = str(forest_row(Delta(0.9, 0.89, -0.01, -0.03, 0.01), ACCURACY, SCALE, None, "fail", "a < b"))
    assert at(marks(svg, "point")[0], "cx") == pytest.approx(37.5)
    bar = marks(svg, "ci")[0]
    assert at(bar, "x1") == pytest.approx(12.5) and at(bar, "x2") == pytest.approx(62.5)
    assert "<title>a &lt; b: −1.0, interval −3.0 to +1.0</title>" in svg


def test_what_lies_outside_gets_an_arrow_and_no_end() -> None:
    svg = str(forest_row(Delta(0.9, 0.4, -0.5, -0.6, -0.4), ACCURACY, SCALE, None, "fail", "x"))
    assert svg.count("◀") == 1 and "▶" not in svg
    assert not marks(svg, "point") and len(marks(svg, "ci")) == 1
    svg = str(forest_row(Delta(0.9, 0.89, -0.01, -0.03, 0.01), ACCURACY, SCALE, None, "fail", "x"))
    assert "◀" not in svg and len(marks(svg, "ci")) == 3


def test_an_undefined_difference_is_an_empty_row() -> None:
    svg = str(forest_row(Delta(None, None, None, reason="no image"), ACCURACY, SCALE, None, "plain", "x"))
    assert not marks(svg, "point") and not marks(svg, "ci")


def test_one_collapsed_candidate_does_not_squeeze_the_others() -> None:
    calm = [Delta(0.9, 0.9, 0.001, -0.01, 0.01)] * 3
    assert ruler([*calm, Delta(0.9, 0.2, -0.7, -0.8, -0.6)], [Limit(0.02, "higher")]).high < 0.1
    assert ruler(calm, [None]).high == pytest.approx(0.0112)
    assert ruler([], []).high > 0 and ruler([Delta(1.0, 1.0, 0.0, 0.0, 0.0)], []).high > 0


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.floats(0, 0.5))
def test_a_scale_always_holds_zero_and_every_margin(values: list[float], margin: float) -> None:
    deltas = [Delta(0.0, v, v, v - 0.01, v + 0.01) for v in values]
    scale = ruler(deltas, [Limit(margin, "higher")])
    assert scale.low < 0 < scale.high and scale.high > margin
    assert 0 <= scale.at(-margin) <= 50


def test_the_axis_names_the_worse_side() -> None:
    assert "← worse" in forest_axis(SCALE, "higher", True) and "worse →" in forest_axis(SCALE, "lower", True)
    assert "worse" not in forest_axis(SCALE, None, True)
    assert ">+2<" in forest_axis(SCALE, "higher", True) and ">+0.02<" in forest_axis(SCALE, "higher", False)


@given(st.floats(-1e3, 1e3), st.floats(1e-6, 1e3))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 11
    assert all(low - 1e-6 * span <= t <= low + span + 1e-6 * span for t in found)


def test_steps_enclose_the_average_precision() -> None:
    import numpy as np

    draw = np.random.default_rng(3)
    positive = draw.random(300) < 0.3
    score = np.round(draw.random(300) + 0.4 * positive, 2)
    stairs = steps(curves.precision_recall(positive, score, most=10_000))
    area = sum((bx - ax) * by for (ax, _), (bx, by) in itertools.pairwise(stairs))
    assert area == pytest.approx(average_precision_score(positive, score), abs=1e-9)
    assert all(ax == bx or ay == by for (ax, ay), (bx, by) in itertools.pairwise(stairs))


def test_a_reliability_panel_leaves_empty_bins_out_and_scales_its_dots() -> None:
    bins = (
        ReliabilityBin(0, 0.5, 100, 0.2, 0.1),
        ReliabilityBin(0.5, 0.8, 0, None, None),
        ReliabilityBin(0.8, 1, 4, 0.9, 1.0),
    )
    svg = str(reliability("<b>", [("candidate", "cand", bins)]))
    radii = [float(r) for r in re.findall(r' r="([\d.]+)"', svg)]
    assert len(radii) == 2 and radii[0] > 2 * radii[1]
    assert "Reliability of &lt;b&gt;" in svg and "2 filled bins" in svg
    reliability("nothing", [("candidate", "cand", ())])


def test_attributes_are_escaped_and_coordinates_short() -> None:
    assert str(tag("a", title='"><script>')) == '<a title="&#34;&gt;&lt;script&gt;"/>'
    assert coordinate(1 / 3) == "0.33"
    panel = Panel("t", "x", "y")
    assert panel.x(0) == panel.left and panel.y(0) > panel.y(1)
