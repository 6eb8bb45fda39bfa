"""A file in a process of its own: it answers, and whatever ends the process becomes a reason."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from quantward.core import apart
from quantward.core.apart import Apart, Broken, close_kept, ended, executed
from quantward.core.errors import Refused
from shaky_world import file, install

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")


@pytest.fixture(autouse=True)
def shaky(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> object:
    """The runtime at hand, and no process left over."""
    install(tmp_path_factory.mktemp("site"), monkeypatch)
    yield
    close_kept()


def images(n: int) -> np.ndarray:
    return np.arange(n * 3 * 64, dtype=np.float32).reshape(n, 3, 8, 8)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends, given a little time."""
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_it_answers_times_itself_and_tells_its_memory(tmp_path: Path) -> None:
    with Apart(file(tmp_path, waste=50_000_000), "shaky", threads=3, private=True) as session:
        before = session.peak_bytes()
        said = session(images(5))
        assert said.shape == (5, 2) and said.dtype == np.float32
        assert np.array_equal(said[:, 0], images(5).mean((1, 2, 3))) and (said[:, 1] == 3).all()
        assert np.allclose(session(images(5)[:, :, ::-1]), said)  # an array that does not lie in one piece
        seconds = session.time(4, 7)
        assert len(seconds) == 7 and min(seconds) > 0
        after = session.peak_bytes()
        assert before is not None and after is not None and after > before + 40_000_000
        assert session.process_seconds > 0 and session.file_seconds >= 0
        pid = session.process.child.pid
    assert gone(pid)


def test_what_libraries_print_harms_no_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Apart(file(tmp_path), "shaky:loud=true") as session:
        assert session(images(2)).shape == (2, 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"open": "SIGSEGV"}, "shaky crashed (SIGSEGV)"),
        ({"call": "SIGABRT"}, "shaky crashed (SIGABRT)"),
        ({"call": "SIGKILL"}, "shaky was killed (SIGKILL), as systems do when memory runs out"),
        ({"call": "exit"}, "shaky failed with exit code 3"),
        ({"call": "fail"}, "shaky failed (ValueError: no such thing)"),
        ({"open": "hang"}, "shaky gave no answer within 0.3 s"),
        ({"call": "hang"}, "shaky gave no answer within 0.3 s"),
    ],
)
def test_whatever_ends_it_is_a_reason(said: dict[str, str], reason: str, tmp_path: Path) -> None:
    variant = file(tmp_path, **said)
    Apart(file(tmp_path, "warm"), "shaky").close()  # so that the limit is not spent on starting Python
    limit = 0.3 if "hang" in said.values() else 300.0
    with pytest.raises(Broken) as caught, Apart(variant, "shaky", limit=limit) as session:
        session(images(1))
    assert caught.value.reason == reason
    assert str(caught.value).startswith("Expected an answer; ") and caught.value.exit_code == 5


def test_a_refusal_comes_through_and_leaves_the_process_usable(tmp_path: Path) -> None:
    with Apart(file(tmp_path, call="refuse", good=1), "shaky") as session:
        first = session(images(1))
        with pytest.raises(Refused, match=r"Expected a file in a better mood; got this one\. Cheer it up\."):
            session(images(1))
        assert first.shape == (1, 2)
        pid = session.process.child.pid
    with Apart(file(tmp_path, "other"), "shaky") as session:
        assert session.process.child.pid == pid and session(images(1)).shape == (1, 2)


def test_a_file_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    variant = file(tmp_path)
    variant.path.unlink()
    with pytest.raises(Broken, match="FileNotFoundError"):
        Apart(variant, "shaky")


def test_processes_are_kept_for_the_next_file_but_not_too_many(tmp_path: Path) -> None:
    sessions = [Apart(file(tmp_path, f"{i}"), "shaky") for i in range(4)]
    pids = [session.process.child.pid for session in sessions]
    assert len(set(pids)) == 4
    for session in sessions:
        session.close()
        session.close()
    assert gone(pids[0]) and gone(pids[1]) and alive(pids[2]) and alive(pids[3])
    assert close_kept() == 2 and gone(pids[3])
    with Apart(file(tmp_path), "shaky", private=True) as mine:
        pid = mine.process.child.pid
    assert gone(pid) and close_kept() == 0


def test_another_environment_has_a_process_of_its_own(tmp_path: Path) -> None:
    with Apart(file(tmp_path), "shaky") as session:
        pid = session.process.child.pid
    with Apart(file(tmp_path), "shaky", environment={"ONEDNN_MAX_CPU_ISA": "AVX2"}) as session:
        assert session.process.child.pid != pid
        assert b"ONEDNN_MAX_CPU_ISA=AVX2" in Path(f"/proc/{session.process.child.pid}/environ").read_bytes()


def test_a_session_that_nobody_has_any_more_gives_its_process_back(tmp_path: Path) -> None:
    session = Apart(file(tmp_path), "shaky")
    pid = session.process.child.pid
    del session
    gc.collect()
    with Apart(file(tmp_path), "shaky") as again:
        assert again.process.child.pid == pid


def test_a_process_that_died_while_it_was_kept_is_replaced(tmp_path: Path) -> None:
    with Apart(file(tmp_path), "shaky") as session:
        pid = session.process.child.pid
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    with Apart(file(tmp_path), "shaky") as session:
        assert session(images(1)).shape == (1, 2)


def test_what_runs_is_asked_apart(tmp_path: Path) -> None:
    found = executed(file(tmp_path), "shaky")
    assert found is not None and found.layers == {"int8": 1, "float32": 2}
    with pytest.raises(Broken) as caught:
        executed(file(tmp_path, executed="SIGSEGV"), "shaky")
    assert caught.value.reason == "shaky crashed (SIGSEGV)"


def test_a_paused_process_stands_still(tmp_path: Path) -> None:
    with Apart(file(tmp_path), "shaky", private=True) as session:
        pid = session.process.child.pid
        session.pause()
        end = time.monotonic() + 10
        while (state := Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) != "T":
            assert time.monotonic() < end, state
            time.sleep(0.01)
        session.resume()
        assert len(session.time(1, 3)) == 3
        session.pause()
    assert gone(pid)


PARENT = """
import signal, sys, threading, time
import numpy as np
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored
sys.path.insert(0, {tests!r})
from shaky_world import file
from quantward.core.apart import Apart
session = Apart(file(Path({folder!r}), call={call!r}), "shaky", private={private})
{then}
print(session.process.child.pid, flush=True)
{last}
"""


@pytest.mark.parametrize(("end", "private"), [(signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGINT, False)])
def test_children_die_with_their_parent(end: signal.Signals, private: bool, tmp_path: Path) -> None:
    code = PARENT.format(
        tests=str(Path(__file__).resolve().parents[1]), folder=str(tmp_path), call="" if private else "hang",
        private=private, then="session.pause()" if private else "",
        last="time.sleep(600)" if private else "session(np.zeros((1, 3, 8, 8), np.float32))",
    )  # fmt: skip
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True)  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    time.sleep(0.1)  # the child is in the middle of its call, or stopped
    parent.send_signal(end)
    parent.wait(20)
    parent.stdout.close()
    assert gone(pid)


def test_an_interrupt_in_the_middle_of_a_call_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Apart(file(tmp_path), "shaky")
    pid = session.process.child.pid

    def interrupted(stream: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(apart, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session(images(1))
    monkeypatch.undo()
    assert gone(pid)
    with pytest.raises(Broken, match="was closed before"):
        session(images(1))
    session.close()
    assert close_kept() == 0


def test_exit_codes_are_words() -> None:
    assert ended("x", 1, "Traceback\nKeyError: 'a'\n") == "x failed with exit code 1 (KeyError: 'a')"
    assert ended("x", 3, "") == "x failed with exit code 3"
    assert ended("x", -11, "whatever") == "x crashed (SIGSEGV)"
    assert ended("x", -250, "") == "x crashed (signal 250)"
