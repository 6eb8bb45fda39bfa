"""A store never shows half a result, never one that was changed, and loses none when a disk is full."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from quantward.core import store as files
from quantward.core.errors import Refused
from quantward.core.progress import silent
from quantward.core.store import digest_file, digest_text
from quantward.study import execute as execution
from quantward.study.execute import execute
from quantward.study.shared import SharedStore
from quantward.study.store import FolderStore, Full, full_disk
from quantward.study.values import Done, Failed, Step, Workplace


def step(name: str = "one", **needs: str) -> Step:
    return Step(digest_text(name), "write", f"step {name}", needs=needs)


def kept(store: FolderStore, one: Step, text: str = "abc") -> Done:
    scratch = store.scratch(one.key)
    (scratch / "deep").mkdir(exist_ok=True)
    (scratch / "said.csv").write_text(text, encoding="utf-8")
    (scratch / "deep" / "plan.json").write_text("{}", encoding="utf-8")
    return store.keep(one, {"n": 3}, 1.5)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, told: list[str]) -> FolderStore:
    return FolderStore(str(tmp_path / "store"), told.append)


def test_a_result_comes_back_whole(store: FolderStore) -> None:
    one = step()
    assert store.find(one.key) is None
    (store.scratch(one.key) / ".lock").write_text("1", encoding="utf-8")
    (store.scratch(one.key) / ".said.csv.x1.part").write_text("torn by a kill", encoding="utf-8")
    done = kept(store, one)
    again = FolderStore(store.address)
    assert again.find(one.key) == done == store.find(one.key)
    assert (done.key, done.kind, done.label, done.facts, done.seconds) == (one.key, "write", one.label, {"n": 3}, 1.5)
    folder = again.folder(one.key)
    assert done.files == {name: digest_file(folder / name) for name in ("said.csv", "deep/plan.json")}
    assert not list(Path(store.address).rglob("*.part")) and not (folder / ".lock").exists()


def test_scratch_outlives_a_kill_and_is_no_result(store: FolderStore) -> None:
    one = step()
    (store.scratch(one.key) / "half").write_text("x", encoding="utf-8")
    again = FolderStore(store.address)
    assert again.find(one.key) is None
    assert (again.scratch(one.key) / "half").read_text(encoding="utf-8") == "x"


def test_the_first_result_stays(store: FolderStore) -> None:
    first = kept(store, step(), "first")
    assert kept(store, step(), "second") == first
    assert (store.folder(first.key) / "said.csv").read_text(encoding="utf-8") == "first"


def test_of_two_who_finish_at_once_the_second_takes_the_result_of_the_first(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = step(), FolderStore(store.address)
    (other.scratch(one.key) / "said.csv").write_text("slow", encoding="utf-8")
    slow = Path(store.address).parent / "slow"
    (other.scratch(one.key)).rename(slow)
    first = kept(store, one, "first")
    slow.rename(store.scratch(one.key).with_name(f"{one.key}.again"))
    assert other._appear(store.scratch(one.key).with_name(f"{one.key}.again"), one.key) is False
    assert other.find(one.key) == first


@pytest.mark.parametrize("name", ["said.csv", "deep/plan.json"])
def test_a_changed_file_is_set_aside_and_told(store: FolderStore, told: list[str], name: str) -> None:
    done = kept(store, step())
    path = store.folder(done.key) / name
    path.write_bytes(bytes(len(path.read_bytes())))  # as long as before
    assert store.find(done.key) is None and store.find(done.key) is None
    assert len(told) == 1 and f"{name} is changed" in told[0] and done.label in told[0] and "\n" not in told[0]
    aside = Path(store.address) / done.key[:2] / f"{done.key}.broken-1"
    assert str(aside) in told[0] and (aside / name).exists()
    assert kept(store, step()).files == done.files


def test_a_missing_file_and_a_second_break(store: FolderStore, told: list[str]) -> None:
    for number in (1, 2):
        done = kept(store, step())
        (store.folder(done.key) / "said.csv").unlink()
        assert FolderStore(store.address, told.append).find(done.key) is None
        assert (Path(store.address) / done.key[:2] / f"{done.key}.broken-{number}").is_dir()
    assert "said.csv is missing" in told[0]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"key": 1}', "\xff"])
def test_a_torn_result_file_is_set_aside(store: FolderStore, told: list[str], text: str) -> None:
    done = kept(store, step())
    (store.folder(done.key) / "result.json").write_text(text, encoding="latin-1")
    assert store.find(done.key) is None
    assert len(told) == 1 and "result.json is broken" in told[0]


def test_the_result_of_another_step_is_none(store: FolderStore) -> None:
    done, other = kept(store, step()), step("other")
    home = Path(store.address) / other.key[:2]
    home.mkdir()
    store.folder(done.key).rename(home / other.key)
    assert FolderStore(store.address).find(other.key) is None


def test_a_folder_without_a_result_file_is_none_and_gives_way(store: FolderStore) -> None:
    done = kept(store, step())
    (store.folder(done.key) / "result.json").unlink()
    assert store.find(done.key) is None
    assert kept(store, step()).files == done.files
    assert store.find(done.key) is not None


def test_a_copy_with_new_times_is_compared_and_kept(store: FolderStore, told: list[str]) -> None:
    done = kept(store, step())
    path = store.folder(done.key) / "said.csv"
    os.utime(path, (1, 1))
    again = FolderStore(store.address, told.append)
    assert again.find(done.key) == done and not told
    seen = (again.folder(done.key) / "seen.json").read_text(encoding="utf-8")
    assert str(path.stat().st_mtime_ns) in seen  # so that the next look is a quick one


def test_rotten_bytes_are_found_before_anything_is_built_on_them(store: FolderStore, told: list[str]) -> None:
    done = kept(store, step())
    path = store.folder(done.key) / "said.csv"
    before = path.stat()
    path.write_text("abX", encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = FolderStore(store.address, told.append)
    assert again.find(done.key) == done  # neither size nor time tells
    with pytest.raises(Refused, match="Expected a whole result"):
        again.folder(done.key)
    assert again.find(done.key) is None and "said.csv is changed" in told[0]


def test_a_reason_is_kept_until_the_step_succeeds(store: FolderStore) -> None:
    one = step()
    assert store.failure(one.key) is None
    store.fail(Failed(one.key, one.kind, one.label, "Expected this; got that.", "earlier"))
    found = FolderStore(store.address).failure(one.key)
    assert found is not None and (found.reason, found.because) == ("Expected this; got that.", "earlier")
    kept(store, one)
    assert store.failure(one.key) is None


def test_a_shared_store_reads_what_a_folder_store_wrote(store: FolderStore, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    done = kept(store, step())
    shared = SharedStore(f"file://{store.address}", tmp_path / "cache")
    assert shared.find(done.key) == done
    assert (shared.folder(done.key) / "said.csv").read_text(encoding="utf-8") == "abc"


@dataclass(frozen=True)
class Write:
    """A kind that writes what its needs wrote, and its own name."""

    rooms: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ()
    fault: ClassVar[Exception | None] = None

    def run(self, place: Workplace) -> Mapping[str, Any]:
        (place.folder / "began").write_text("x", encoding="utf-8")
        if self.fault is not None:
            raise self.fault
        text = "".join(sorted((folder / "text").read_text(encoding="utf-8") for folder in place.inputs.values()))
        files.write_text(place.folder / "text", text + place.step.label)
        return {"parts": sorted(place.inputs), "of": [facts["parts"] for facts in place.facts.values()]}


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Write]]:
    class Kinds:
        def get(self, name: str) -> type[Write]:
            return Write

    monkeypatch.setattr(execution, "KINDS", Kinds())
    yield Write
    Write.fault = None


def test_a_step_gets_what_it_needs(store: FolderStore, kind: type[Write]) -> None:
    one, two = step("one"), step("two", run=step("one").key)
    assert isinstance(execute(one, store, silent), Done)
    done = execute(two, store, silent)
    assert isinstance(done, Done) and done.facts == {"parts": ["run"], "of": [[]]}
    assert (store.folder(two.key) / "text").read_text(encoding="utf-8") == "step onestep two"
    assert execute(two, store, silent) == done


def test_without_what_it_needs_a_step_fails(store: FolderStore, kind: type[Write]) -> None:
    failed = execute(step("two", run=step("one").key), store, silent)
    assert isinstance(failed, Failed) and "Expected a whole result" in failed.reason
    assert store.failure(failed.key) == failed


def test_of_many_files_those_that_are_there_are_enough(store: FolderStore, kind: type[Write]) -> None:
    one = step("one")
    execute(one, store, silent)
    timed = Step(digest_text("t"), "write", "timed", needs={"file/a": one.key, "file/b": step("none").key})
    done = execute(timed, store, silent)
    assert isinstance(done, Done) and done.facts["parts"] == ["file/a"]


def test_a_refusal_is_its_sentence_and_anything_else_a_sentence_with_a_log(
    store: FolderStore, kind: type[Write]
) -> None:
    one = step()
    kind.fault = Refused("Expected a; got b. Do c.")
    refused = execute(one, store, silent)
    assert isinstance(refused, Failed) and refused.reason == "Expected a; got b. Do c."
    kind.fault = ZeroDivisionError("by nothing\nat all")
    failed = execute(one, store, silent)
    assert isinstance(failed, Failed) and "ZeroDivisionError (by nothing)" in failed.reason
    log = store.scratch(one.key) / "error.log"
    assert str(log) in failed.reason and "Traceback" in log.read_text(encoding="utf-8") and "\n" not in failed.reason
    kind.fault = MemoryError()
    failed = execute(one, store, silent)
    assert isinstance(failed, Failed) and "memory ran out" in failed.reason
    kind.fault = None
    done = execute(one, store, silent)
    assert isinstance(done, Done) and "error.log" not in done.files and store.failure(one.key) is None


def test_ctrl_c_passes_and_leaves_the_scratch_folder(
    store: FolderStore, kind: type[Write], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Write, place: Workplace) -> Mapping[str, Any]:
        (place.folder / "half").write_text("x", encoding="utf-8")
        raise KeyboardInterrupt

    monkeypatch.setattr(Write, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(step(), store, silent)
    assert store.failure(step().key) is None and (store.scratch(step().key) / "half").exists()


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_seen_through_what_libraries_make_of_it() -> None:
    class Wrapped(Exception):
        pass

    try:
        try:
            raise full()
        except OSError:
            raise Wrapped("could not save") from None
    except Wrapped as error:
        assert full_disk(error) is not None
    assert full_disk(RuntimeError("write failed: No space left on device (os error 28)")) is not None
    assert full_disk(OSError(errno.EDQUOT, "quota")) is not None
    assert full_disk(OSError(errno.EACCES, "denied")) is None and full_disk(None) is None


@pytest.mark.parametrize(
    "fault", [full(), RuntimeError("No space left on device"), Refused("x: No space left on device")]
)
def test_a_full_disk_stops_the_study(store: FolderStore, kind: type[Write], fault: Exception) -> None:
    before = kept(store, step("before"))
    kind.fault = fault
    with pytest.raises(Full, match=r"Expected room on the disks .* run the same command again"):
        execute(step(), store, silent)
    kind.fault = None
    assert store.failure(step().key) is None and store.find(before.key) == before
    assert isinstance(execute(step(), store, silent), Done)


@pytest.mark.parametrize("moment", range(6))
def test_a_disk_that_fills_while_a_result_is_kept_loses_nothing(
    store: FolderStore, kind: type[Write], monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """The disk is full from the n-th flush on: before, between and after the files of the result."""
    before, count = kept(store, step("before")), iter(range(100))
    real = os.fsync

    def flush(handle: int) -> None:
        if next(count) >= moment:
            raise full()
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", flush)
        with pytest.raises(Full):
            execute(step(), store, silent)
    again = FolderStore(store.address)
    assert again.find(before.key) == before
    done = execute(step(), again, silent)
    assert isinstance(done, Done) and (again.folder(done.key) / "text").read_text(encoding="utf-8") == "step one"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, where this user may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("this user may not mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, kind: type[Write]) -> None:
    store = FolderStore(str(small_disk / "store"))
    before = execute(step("before"), store, silent)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    with pytest.raises(Full):
        execute(step(), store, silent)
    assert FolderStore(store.address).find(step("before").key) == before
    ballast.unlink()
    assert isinstance(execute(step(), store, silent), Done)
