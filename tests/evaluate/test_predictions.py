"""Prediction files: what goes in comes out, and every fault is named with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantward.core.errors import Refused, UsageError
from quantward.core.values import Predictions
from quantward.evaluate.predictions import load, save

GOOD = "id,truth,cat,dog\na,cat,0.9,0.1\nb,dog,0.3,0.7\n"


def written(folder: Path, text: str, name: str = "model.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    p = load(written(tmp_path, GOOD))
    assert p.ids == ("a", "b") and p.classes == ("cat", "dog") and p.groups is None and p.source == "model"
    assert p.truth.tolist() == [0, 1]
    assert p.probabilities.tolist() == [[0.9, 0.1], [0.3, 0.7]]


def test_groups_are_read(tmp_path: Path) -> None:
    p = load(written(tmp_path, "id,group,truth,cat,dog\na,p1,cat,0.9,0.1\nb,p1,dog,0.3,0.7\n"))
    assert p.groups == ("p1", "p1")


@pytest.mark.parametrize("text", [GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD, GOOD.replace("\n", "\n\n")])
def test_line_ends_marks_and_empty_lines_do_not_matter(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text)).ids == ("a", "b")


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("truth,id,cat,dog\n", 1, "header"),
        ("", 1, "header"),
        ("id,cat,dog\na,0.9,0.1\n", 1, "header"),
        ("id,truth,cat\na,cat,1\n", 1, "two class columns"),
        ("id,truth,cat,cat\na,cat,1,0\n", 1, "once"),
        ("id,truth,cat,\na,cat,1,0\n", 1, "name for every class"),
        (GOOD + "a,cat,0.9,0.1\n", 4, "line 2"),
        (GOOD + "c,dgo,0.9,0.1\n", 4, "'dog'"),
        (GOOD + "c,cat,nan,0.1\n", 4, "finite"),
        (GOOD + "c,cat,inf,0.1\n", 4, "finite"),
        (GOOD + "c,cat,,0.1\n", 4, "number"),
        (GOOD + "c,cat,x,0.1\n", 4, "number"),
        (GOOD + "c,cat,0.9\n", 4, "4 columns"),
        (GOOD + ",cat,0.9,0.1\n", 4, "id"),
        (GOOD + "c,cat,0.9,0.2\n", 4, "sum to 1"),
        (GOOD + "c,cat,1.2,-0.2\n", 4, "between 0 and 1"),
        ('id,truth,cat,dog\n"a"b,cat,0.9,0.1\n', 2, "CSV"),
        ("id,group,truth,cat,dog\na,,cat,0.9,0.1\n", 2, "group"),
    ],
)
def test_faults_are_refused_with_file_and_line(tmp_path: Path, text: str, line: int, expected: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(Refused) as caught:
        load(path)
    assert expected in str(caught.value)
    assert f"line {line} of {path}" in str(caught.value)
    assert caught.value.exit_code == 5


def test_quoted_line_breaks_do_not_shift_the_line(tmp_path: Path) -> None:
    text = 'id,truth,cat,dog\n"a\nb",cat,0.9,0.1\nc,cat,0.5,0.1\n'
    with pytest.raises(Refused, match="line 4 of"):
        load(written(tmp_path, text))


def test_logits_are_told_from_one_bad_row(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="look like logits"):
        load(written(tmp_path, "id,truth,cat,dog\na,cat,3.1,-2.2\nb,dog,-0.5,4.0\n"))
    with pytest.raises(Refused) as caught:
        load(written(tmp_path, GOOD + "c,cat,1.2,-0.2\n"))
    assert "look like" not in str(caught.value)


def test_missing_empty_and_undecodable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is none"):
        load(tmp_path / "absent.csv")
    with pytest.raises(Refused, match="at least one row"):
        load(written(tmp_path, "id,truth,cat,dog\n"))
    with pytest.raises(Refused, match="UTF-8"):
        load(written(tmp_path, GOOD.replace("cat", "chüt"), encoding="latin-1"))


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda text: text == text.strip()
)
hostile = st.sampled_from(["=1+1", "+a", "-a", "@a", "'", "'=a", "''=a", 'a"b', "a,b", "a\nb", "id", "truth", "ü 漢"])


@given(
    st.lists(names | hostile, min_size=2, max_size=4, unique=True),
    st.lists(names | hostile, min_size=1, max_size=6, unique=True),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_save_and_load_are_inverse(
    tmp_path_factory: pytest.TempPathFactory,
    classes: list[str],
    ids: list[str],
    grouped: bool,
    chance: object,
) -> None:
    rng = np.random.default_rng(len(ids))
    p = rng.dirichlet(np.ones(len(classes)), len(ids))
    truth = rng.integers(0, len(classes), len(ids))
    groups = tuple(ids[0] for _ in ids) if grouped else None
    given_ = Predictions(tuple(ids), truth, p, tuple(classes), "x", groups)
    path = tmp_path_factory.mktemp("round") / "x.csv"
    save(given_, path)
    found = load(path)
    assert (found.ids, found.classes, found.groups) == (given_.ids, given_.classes, groups)
    assert np.array_equal(found.truth, truth) and np.array_equal(found.probabilities, p)


def test_formulas_are_disarmed_for_spreadsheets(tmp_path: Path) -> None:
    p = Predictions(("=cmd()",), np.array([0]), np.array([[0.5, 0.5]]), ("@a", "b"), "x", ("+g",))
    save(p, tmp_path / "x.csv")
    text = (tmp_path / "x.csv").read_text()
    assert text == "id,group,truth,'@a,b\n'=cmd(),'+g,'@a,0.5,0.5\n"


def test_parquet_round_trip_or_a_sentence(tmp_path: Path) -> None:
    p = Predictions(("=a", "b"), np.array([0, 1]), np.array([[0.25, 0.75], [1.0, 0.0]]), ("cat", "dog"), "x")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match="pyarrow"):
            save(p, tmp_path / "x.parquet")
        return
    save(p, tmp_path / "x.parquet")
    found = load(tmp_path / "x.parquet")
    assert found.ids == p.ids and np.array_equal(found.probabilities, p.probabilities)
    (tmp_path / "broken.parquet").write_bytes(b"nothing")
    with pytest.raises(Refused, match="Parquet"):
        load(tmp_path / "broken.parquet")
