"""The page on data says what the code does: its example runs, and every code of `check` is in its table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import quantward.data
from quantward.data import _flaws, folds

PAGE = (Path(__file__).resolve().parents[2] / "docs/data.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(example, "docs/data.md", "exec"), {})
    told = capsys.readouterr().out
    assert "error split-duplicate 12 of the" in told
    assert "error unreadable 3 images" in told
    assert "error label-conflict 2 pictures" in told
    assert "12 copies, 4 images whose picture has two labels, 3 unreadable" in told
    assert (tmp_path / "out/split.csv").exists()


def test_every_code_is_in_the_table_with_its_level() -> None:
    tree = ast.parse(Path(_flaws.__file__).read_text(encoding="utf-8"))
    made = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Flaw":
            code, level = node.args[0], ast.literal_eval(node.args[1])
            codes = [ast.literal_eval(code)] if isinstance(code, ast.Constant) else ["patient-data", "converted"]
            made |= {(name, level) for name in codes}
    table = set(re.findall(r"^\| `([a-z-]+)` \| (error|warning) \|", PAGE, re.M))
    assert table == made


def test_shares_and_names_are_those_of_the_code() -> None:
    table = {role: float(share) for role, share in re.findall(r"^\| `(\w+)` \| [^|]+ \| ([\d.]+) \|", PAGE, re.M)}
    assert table == dict(folds.SHARES)
    told_elsewhere = {"SHARES", "Flaw", "Report", "Distinct", "decode", "default_folder", "read_image"}
    public = set(quantward.data.__all__) - told_elsewhere
    assert [name for name in sorted(public) if name not in PAGE] == []
