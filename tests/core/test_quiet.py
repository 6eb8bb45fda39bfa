"""Two measurements of time take turns, and a killed one blocks nobody."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quantward.core.errors import Refused
from quantward.core.quiet import NAME, alone

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks of the kind that Unix has")

HOLDER = """
import sys, time
from pathlib import Path
from quantward.core.quiet import alone
with alone(folder=Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self, act: object = None) -> None:
        self.now, self.act = 0.0, act

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if callable(self.act):
            self.act()


def test_a_second_measurement_waits_and_is_refused_when_the_wait_is_over(tmp_path: Path) -> None:
    clock, heard = Clock(), []  # type: ignore[var-annotated]
    second = alone(folder=tmp_path, tell=heard.append, wait=3, clock=clock, sleep=clock.sleep)
    with alone(folder=tmp_path), pytest.raises(Refused, match="another one has run for 3 s"), second:
        raise AssertionError("both held it")
    assert heard == ["Another measurement of time is running on this machine; waiting for it to end."]
    with alone(folder=tmp_path, tell=heard.append):
        pass
    assert len(heard) == 1


def test_a_killed_measurement_lets_go(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    clock = Clock(lambda: (holder.send_signal(signal.SIGKILL), holder.wait(20)))
    with alone(folder=tmp_path, wait=60, clock=clock, sleep=clock.sleep):
        assert clock.now > 0
    holder.stdout.close()


def test_without_a_place_for_the_lock_the_work_is_done_all_the_same(tmp_path: Path) -> None:
    done = []
    with alone(folder=tmp_path / "absent"):
        done.append(1)
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with alone(folder=tmp_path):
        done.append(2)
    assert done == [1, 2] and not (tmp_path / "elsewhere").exists()
