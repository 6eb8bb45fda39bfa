"""CSV lists of images: every fault has its line, and no path leaves the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantward.core.cells import from_cell, to_cell
from quantward.core.errors import Refused
from quantward.core.values import ImageArray
from quantward.data import open_dataset
from quantward.data.table import read_rows, write_table


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


ROWS = "benign/0.png,benign\nmalign/1.png,malign\n"


def test_columns_become_fields(tree: Path) -> None:
    table = write(
        tree / "list.csv",
        "path,label,split,group,sex\nbenign/0.png,benign,Training,p1,F\nmalign/1.png,malign,test,p2,M\n",
    )
    data = open_dataset(table)
    assert data.ids == ("benign/0.png", "malign/1.png")
    assert data.classes == ("benign", "malign")
    assert data.splits == ("train", "test")
    assert data.groups == ("p1", "p2")
    assert data.attributes == {"sex": ("F", "M")}
    assert data.read(0).shape == (24, 20, 3)


def test_a_folder_with_images_csv_is_read_by_it_and_extra_csv_joins(tree: Path) -> None:
    write(tree / "images.csv", "path,label,split\n" + ROWS.replace("\n", ",none\n"))
    write(tree / "extra.csv", "path,hb\nmalign/1.png,9.8\n")
    data = open_dataset(tree)
    assert len(data) == 2
    assert data.splits is None
    assert data.attributes == {"hb": ("", "9.8")}
    assert len(open_dataset(tree, labels_from="folders")) == 6


def test_byte_order_mark_windows_lines_blank_lines_and_quotes(tree: Path) -> None:
    text = '﻿path,label\r\n"benign/0.png","benign"\r\n\r\nmalign/1.png, malign \r\n'
    assert open_dataset(write(tree / "list.csv", text)).classes == ("benign", "malign")


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd", "/etc/passwd", "benign/../../x.png", "..\\x.png", "C:\\x.png", "\\\\host\\x.png",
        "leak.png", "", "be\0nign.png",
    ],
)  # fmt: skip
def test_paths_that_leave_the_folder_are_refused_with_their_line(tree: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "x.png").write_bytes((tree / "benign/0.png").read_bytes())
    (tree / "leak.png").symlink_to(tmp_path / "x.png")
    table = write(tree / "list.csv", f"path,label\nbenign/0.png,benign\n{path},malign\n")
    with pytest.raises(Refused, match=r"list\.csv, line 3 a path inside"):
        open_dataset(table)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\nbenign/0.png,benign\nmalign/1.png,nan\n", r"line 3, got 'nan'"),
        ("path,label\nbenign/0.png,\n", r"line 2, got ''"),
        ("path,label,group\nbenign/0.png,benign,NaN\n", r"a group in .*line 2, got 'NaN'"),
        ("path,label\nbenign/0.png,benign\n\nbenign/0.png,malign\n", r"line 2 and in line 4"),
        ("path,label\nbenign/0.png,benign\n./benign/0.png,benign\n", r"line 2 and in line 3"),
        ("path,label\nbenign/7.png,benign\n", r"line 2, 'benign/7.png' is not in"),
        ("path,label\nbenign/0.png,benign,x\n", r"2 cells in .*line 2; got 3"),
        ("file,label\nbenign/0.png,benign\n", r"a column 'path' in .*line 1"),
        ("path,label,label\nbenign/0.png,a,b\n", r"'label' twice"),
        ("path,label\n", r"there are none"),
        ("", r"it is empty"),
        ('path,label\n"benign/0.png,benign\n', r"line 2 is not"),
    ],
)
def test_faults_are_named_with_their_line(tree: Path, text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        open_dataset(write(tree / "list.csv", text))


def test_other_encodings_are_refused_with_their_line(tree: Path) -> None:
    with pytest.raises(Refused, match=r"line 3 is not\. Save it as CSV UTF-8"):
        open_dataset(write(tree / "list.csv", "path,label\nbenign/0.png,a\nmalign/1.png,é\n", "latin-1"))
    with pytest.raises(Refused, match="line 1 is not"):
        open_dataset(write(tree / "list.csv", "path,label\n", "utf-16"))


def test_line_numbers_survive_cells_of_several_lines(tree: Path) -> None:
    rows = read_rows(write(tree / "list.csv", 'path,label\na,"x\ny"\nb,z\n'), required=("path",))
    assert [line for line, _ in rows] == [2, 4]


def test_root_moves_where_paths_start_but_not_how_far_they_reach(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    table = write(tmp_path / "out/split.csv", "path,label\n" + ROWS)
    assert len(open_dataset(table, root=tree)) == 2
    with pytest.raises(Refused, match="is not in"):
        open_dataset(table)
    write(table, "path,label\n../out/split.csv,a\n")
    with pytest.raises(Refused, match="climbs out"):
        open_dataset(table, root=tree)
    with pytest.raises(Refused, match="CSV together with root"):
        open_dataset(tree, root=tree)


def test_class_order_can_be_fixed(tree: Path) -> None:
    table = write(tree / "list.csv", "path,label\n" + ROWS)
    data = open_dataset(table, classes=("malign", "benign", "unclear"))
    assert data.labels.tolist() == [1, 0]
    with pytest.raises(Refused, match="got malign"):
        open_dataset(table, classes=("benign",))


def test_group_changes_the_fingerprint(tree: Path) -> None:
    prints = {
        open_dataset(write(tree / "list.csv", f"path,label,group\nbenign/0.png,a,{g}\nmalign/1.png,b,q\n")).fingerprint
        for g in ("p", "q")
    }
    assert len(prints) == 2


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_exported_cells_are_no_formulas_and_come_back(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        float(cell)


def test_written_tables_are_read_back(tmp_path: Path) -> None:
    rows = [{"path": "=a.png", "label": "-b, 'c'", "group": '"@d"'}, {"path": " e.png", "label": "-1", "group": "ö\nz"}]
    write_table(tmp_path / "t.csv", rows, ("path", "label", "group"))
    assert [row for _, row in read_rows(tmp_path / "t.csv", ("path",))] == rows
    assert "'=a.png" in (tmp_path / "t.csv").read_text(encoding="utf-8")


def test_a_file_called_like_a_formula_is_found(
    tmp_path: Path, save: Callable[..., Path], picture: Callable[..., ImageArray]
) -> None:
    save(tmp_path / "=cmd().png", picture(1))
    write_table(tmp_path / "list.csv", [{"path": "=cmd().png", "label": "a"}], ("path", "label"))
    assert np.array_equal(open_dataset(tmp_path / "list.csv").read(0), picture(1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tree: Path) -> None:
    (tree / "benign/0.png").chmod(0)
    with pytest.raises(Refused, match="Permission denied"):
        open_dataset(tree)
