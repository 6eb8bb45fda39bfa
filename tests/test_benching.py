"""A bench from files to results: rows with reasons, results that merge, and the same from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantward import benching
from quantward.benching import (
    Asked,
    Effort,
    bench_and_merge,
    bench_files,
    labels,
    time_rows,
)
from quantward.core.apart import close_kept
from quantward.core.energy import Meter
from quantward.core.errors import Refused, UsageError
from quantward.core.store import digest_file
from quantward.core.values import Bench, Efficiency, Latency, Plan, Variant
from quantward.evaluate.results import load_bench, save_bench
from quantward.workbench import runtime_for, save_card
from shaky_world import file, install

QUICK = Effort(batches=(1, 4), rounds=5, seconds=0.0, starts=1)


@pytest.fixture(autouse=True)
def shaky(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> object:
    """The runtime that does what its file says, a lock of its own, and no energy."""
    install(tmp_path_factory.mktemp("site"), monkeypatch)
    monkeypatch.setattr(benching, "meter", lambda: (None, "not here"))
    monkeypatch.setattr("quantward.core.quiet.tempfile.gettempdir", lambda: str(tmp_path_factory.mktemp("lock")))
    yield
    close_kept()


def carded(variant: Variant) -> Path:
    save_card(replace(variant, sha256=digest_file(variant.path)))
    return variant.path


def test_a_row_for_everything_and_a_reason_for_what_failed(tmp_path: Path) -> None:
    asked = [
        Asked(file(tmp_path, "fp32"), "shaky"),
        Asked(file(tmp_path, "int8", recipe="int8-static"), "shaky"),
        Asked(file(tmp_path, "crashes", open="SIGSEGV"), "shaky"),
        Asked(file(tmp_path, "refuses", open="refuse"), "shaky"),
        Asked(file(tmp_path, "dies later", call="SIGKILL", **{"from": 4}), "shaky"),
        Asked(file(tmp_path, "gone"), "shaky"),
        Asked(file(tmp_path, "greedy"), "shaky", threads=4096),
        Asked(replace(file(tmp_path, "strange"), format="onnx"), "shaky"),
        Asked(replace(file(tmp_path, "single"), max_batch=1), "shaky"),
    ]
    asked[5].variant.path.unlink()
    rows, energy = time_rows(asked, QUICK)
    assert energy == "not here" and [row.name for row in rows] == [one.variant.name for one in asked]
    by = {row.name: row for row in rows}
    for name in ("fp32", "int8"):
        assert [line.batch for line in by[name].latency] == [1, 4] and not by[name].failure
        assert all(line.p50 > 0 and line.peak_bytes and len(line.rounds) == 5 for line in by[name].latency)
        cold = by[name].cold
        assert cold is not None and cold.process > 0 and cold.seconds == cold.file + cold.first > 0
        assert by[name].peak_bytes == by[name].latency[0].peak_bytes and by[name].throughput
    assert [one.reference for one in by["int8"].speedups] == ["fp32 on shaky"] * 2
    assert by["crashes"].failure == "shaky crashed (SIGSEGV)" and not by["crashes"].latency
    assert by["refuses"].failure.startswith("Expected a file in a better mood")
    assert [line.batch for line in by["dies later"].latency] == [1]
    assert by["dies later"].failure.startswith("at batch 4: shaky was killed (SIGKILL)")
    assert "FileNotFoundError" in by["gone"].failure
    assert by["greedy"].failure.startswith("Expected at most ") and "got 4096" in by["greedy"].failure
    assert by["strange"].failure == "Expected a runtime for onnx files; shaky reads shaky. Name another."
    assert [line.batch for line in by["single"].latency] == [1] and not by["single"].failure


def test_nothing_is_left_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = []
    whole = benching.Apart

    class Seen(whole):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            pids.append(self.process.child.pid)

    monkeypatch.setattr(benching, "Apart", Seen)
    monkeypatch.setattr(benching, "bench", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        time_rows([Asked(file(tmp_path), "shaky")] * 2, replace(QUICK, starts=2))
    assert len(set(pids)) == 4 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_machine_with_one_core_times_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "cores", lambda: 1)
    rows, _ = time_rows([Asked(file(tmp_path), "shaky", threads) for threads in (1, 2)], QUICK)
    assert rows[0].latency and rows[1].failure == (
        "Expected at most 1 threads, this machine's cores; got 2. Ask for fewer."
    )


def test_where_memory_is_short_each_network_has_a_schedule_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [Asked(file(tmp_path, f"{k}", parent="ab"[k % 2]), "shaky") for k in range(4)]
    monkeypatch.setattr(benching, "free_memory", lambda: 1 << 40)
    assert benching._together(asked) == [[0, 1, 2, 3]]
    monkeypatch.setattr(benching, "free_memory", lambda: None)
    assert benching._together(asked) == [[0, 1, 2, 3]]
    monkeypatch.setattr(benching, "free_memory", lambda: 1 << 20)
    assert benching._together(asked) == [[0, 2], [1, 3]]
    rows, _ = time_rows(asked, replace(QUICK, batches=(1,)))
    assert [row.name for row in rows] == ["0", "1", "2", "3"] and all(row.latency for row in rows)


def test_energy_stands_in_the_rows_where_it_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tmp_path / "energy_uj"
    counter.write_text("0")

    class Rising(Meter):
        def __call__(self) -> float:
            self.microjoules += 500_000
            return self.microjoules / 1e6

    monkeypatch.setattr(benching, "meter", lambda: (Rising((counter,), (1 << 32,), [0]), ""))
    rows, reason = time_rows([Asked(file(tmp_path), "shaky")], replace(QUICK, batches=(4,)))
    assert reason == "" and rows[0].latency[0].joules is not None and rows[0].latency[0].joules > 0


def test_a_file_slower_than_fp32_says_so_and_names_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fp32, int8 = file(tmp_path, "fp32"), file(tmp_path, "int8", recipe="int8-static")
    slow = benching.with_speedups(
        [
            Efficiency(v.name, "shaky", 1, 0.0, (Latency(1, p50, p50, p50, 3, 0.0, (p50,) * 3),), recipe=v.recipe)
            for v, p50 in ((fp32, 2.0), (int8, 4.0))
        ]
    )
    (note,) = benching._explained(slow[1], slow, int8).notes
    assert note == (
        "Slower than fp32 on shaky: 0.50 times as fast at batch 1. Layers: 2 in float32, 1 in int8; most frequent "
        "operators: Conv ×3, Dequantize ×2."
    )
    assert benching._explained(slow[0], slow, fp32).notes == ()
    crashing = replace(int8, path=file(tmp_path, "bad", executed="SIGSEGV").path)
    (note,) = benching._explained(slow[1], slow, crashing).notes
    assert note.endswith("What it runs is not known: shaky crashed (SIGSEGV)")


def test_every_file_on_every_runtime_that_reads_it(tmp_path: Path) -> None:
    path = carded(file(tmp_path, "one"))
    found = bench_files([path], runtimes=("shaky", "shaky:loud=true"), effort=replace(QUICK, batches=(1,)))
    assert [row.runtime for row in found.rows] == ["shaky", "shaky:loud=true"]
    assert all(row.latency and row.sha256 == digest_file(path) for row in found.rows)
    assert found.how["rounds"] == 5 and found.machine["cores"] and found.energy == "not here"
    (row,) = bench_files([path], runtimes=("onnxruntime",), effort=QUICK).rows
    assert row.failure == "Expected a runtime for shaky files; onnxruntime reads onnx. Name another."
    assert bench_files([path], effort=replace(QUICK, batches=(1,))).rows[0].runtime == "shaky"
    with pytest.raises(UsageError, match="got 'shakey'"):
        bench_files([path], runtimes=("shakey",))
    with pytest.raises(UsageError, match="at least one thread"):
        bench_files([path], threads=(0,))


def test_a_plan_folder_is_timed_with_or_without_a_card(small_plan: Plan, tmp_path: Path) -> None:
    from quantward.graph.files import save_plan
    from quantward.targets.simulation import Simulation

    save_plan(small_plan, tmp_path / "plan")
    bare = benching._opened(tmp_path / "plan")
    variant = Simulation().write(small_plan, tmp_path / "carded")
    save_card(variant)
    carded = benching._opened(tmp_path / "carded")
    assert (bare.recipe, bare.parent, bare.bytes) == (carded.recipe, carded.parent, carded.bytes)
    assert (bare.format, bare.name, carded.path) == ("plan", "fp32", variant.path)


def test_a_bundle_is_timed_on_the_runtime_it_was_judged_on(tmp_path: Path) -> None:
    variant = file(tmp_path, "model")
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"runtime": "shaky:loud=true"}))
    assert runtime_for(variant, tmp_path) == "shaky:loud=true"
    manifest.write_text(json.dumps({}))
    assert runtime_for(variant, tmp_path) == "shaky"


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    paths = [tmp_path / net / "files" / "int8.onnx" for net in ("resnet", "vit")] + [tmp_path / "fp32.onnx"]
    variants = [replace(file(tmp_path), name=path.stem) for path in paths]
    assert labels(paths, variants) == ["resnet/files/int8.onnx", "vit/files/int8.onnx", "fp32"]


def result(sha: str = "a" * 64) -> Bench:
    line = Latency(1, 2.0, 2.1, 2.2, 3, 0.01, (2.0, 2.0, 2.1))
    return Bench((Efficiency("int8", "onnxruntime", 10, 1.0, (line,), sha256=sha),), {"processor": "x", "cores": 2})


def test_merging_writes_a_page_and_refuses_before_it_times(tmp_path: Path) -> None:
    for name in ("jetson", "phone"):
        save_bench(result(), tmp_path / f"{name}.json")
    devices = [tmp_path / "jetson.json", tmp_path / "phone.json"]
    page = tmp_path / "page.html"
    assert list(bench_and_merge((), merge=devices, out=[page])) == ["jetson", "phone"]
    assert "jetson" in page.read_text() and "phone" in page.read_text()
    with pytest.raises(UsageError, match="nothing is timed here"):
        bench_and_merge((), merge=devices, out=[tmp_path / "again.json"])
    with pytest.raises(UsageError, match=r"Expected --out as \.html or \.json; got page\.pdf"):
        bench_and_merge([tmp_path / "absent.onnx"], out=[tmp_path / "page.pdf"])
    with pytest.raises(UsageError, match="got none"):
        bench_and_merge(())
    save_bench(result(sha="b" * 64), tmp_path / "other.json")
    with pytest.raises(Refused, match="one file everywhere"):
        bench_and_merge((), merge=[*devices, tmp_path / "other.json"], out=[tmp_path / "no.html"])
    assert not (tmp_path / "no.html").exists()


def test_from_the_command_line(small_plan: Plan, tmp_path: Path) -> None:
    from quantward.targets.onnx_cpu import OnnxCpu

    variant = OnnxCpu().write(small_plan, tmp_path)
    save_card(variant)

    def quantward(*arguments: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([sys.executable, "-m", "quantward", "bench", *map(str, arguments)], capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    device, page = tmp_path / "device.json", tmp_path / "page.html"
    options = ("--batch", 1, "--batch", 2, "--rounds", 5, "--seconds", 0, "--starts", 1, "--out", device, "--out", page)
    done = quantward(variant.path, *options, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["results"]["here"]["rows"]
    assert [line["batch"] for line in row["latency"]] == [1, 2] and row["sha256"] == variant.sha256
    assert load_bench(device).rows[0].sha256 == variant.sha256 and "2 images a call" in page.read_text()
    merged = quantward("--merge", device, "--out", page)
    assert merged.returncode == 0 and "fp32" in merged.stdout and "device" in page.read_text()
    assert quantward().returncode == 2
    lost = quantward(variant.path, "--threads", 4096, "--rounds", 1)
    assert lost.returncode == 5 and "Expected at most" in " ".join(lost.stdout.split())


def test_the_base_install_is_enough() -> None:
    code = (
        "import sys, quantward.benching, quantward.report.speed; "
        "print(len({'torch', 'onnx', 'openvino', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    code = "import sys, quantward.core.worker; print(len({'torch', 'pydantic', 'scipy', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0", "a child starts quickly"
