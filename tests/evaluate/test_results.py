"""Results of a bench survive the disk, and only results about the same files come together."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantward.core.errors import Refused
from quantward.core.values import Bench, ColdStart, Efficiency, Latency, Speedup
from quantward.evaluate.results import load_bench, require_same_files, save_bench


def result(name: str = "int8", sha: str = "a" * 64) -> Bench:
    line = Latency(1, 2.0, 2.1, 2.2, 3, 0.01, (2.0, 2.0, 2.1))
    row = Efficiency(name, "onnxruntime", 10, 1.0, (line,), sha256=sha, cold=ColdStart(0.4, 0.2, 0.1, 0.01, 3),
                     speedups=(Speedup("fp32 on onnxruntime", 1, 2.0, 1.9, 2.1, 3),), notes=("slow",))  # fmt: skip
    return Bench((row,), {"processor": "x", "cores": 2}, {"rounds": 3}, "no counters")


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    save_bench(result(), tmp_path / "device.json")
    assert load_bench(tmp_path / "device.json") == result()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "Expected the results of quantward bench"),
        ('{"rows": []}', "Expected the results of quantward bench"),
        ('{"schema": 2, "rows": []}', "Merge with a newer quantward"),
        ('{"schema": 1, "rows": 3, "machine": {}}', "Expected Bench in"),
        ("{", "line 1"),
    ],
)
def test_anything_else_is_no_result(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(Refused, match=said):
        load_bench(path)


def test_devices_must_have_timed_the_same_file() -> None:
    require_same_files({"a": result(), "b": result()})
    with pytest.raises(Refused, match="Expected int8 to be one file everywhere; it has the hash aaaaaaaaaaaa in a and"):
        require_same_files({"a": result(), "b": result(sha="b" * 64)})
    with pytest.raises(Refused, match="b holds none of those of a"):
        require_same_files({"a": result(), "b": result("other", "c" * 64)})
