"""Attributes of images from a CSV: read in the order of the predictions, refused with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantward.core.errors import Refused
from quantward.evaluate.attributes import load_attributes, save_attributes


def test_written_attributes_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "who.csv"
    save_attributes({"sex": ("f", "m"), "site": ("a, b", "")}, ("1", "2"), path)
    assert load_attributes(path, ("2", "1")) == {"sex": ("m", "f"), "site": ("unknown", "a, b")}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image,sex\n1,f\n", "line 1"),
        ("id\n1\n", "line 1"),
        ("id,sex\n1,f,x\n", "Expected 2 cells in line 2"),
        ("id,sex\n1,f\n1,m\n", "'1' in line 3"),
        ("id,sex\n2,f\n", "1 have none, first '1'"),
    ],
)
def test_faulty_files_are_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "who.csv"
    path.write_text(text)
    with pytest.raises(Refused, match=sentence):
        load_attributes(path, ("1",))


def test_formulas_are_harmless_in_the_file_and_whole_again_when_read(tmp_path: Path) -> None:
    path = tmp_path / "who.csv"
    saved = {"=site": ("@home", "-1")}
    save_attributes(saved, ("+1", "=A1"), path)
    assert path.read_text().splitlines() == ["id,'=site", "+1,'@home", "'=A1,-1"]
    assert load_attributes(path, ("+1", "=A1")) == saved
