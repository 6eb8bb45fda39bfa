"""One run a folder, seen from a second process; a dead process holds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quantward.core.errors import Refused
from quantward.core.lock import only_run

HOLD = """
import sys, time
from pathlib import Path
from quantward.core.lock import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline().strip() == "held"
        with pytest.raises(Refused, match=f"process {first.pid} is at work there"), only_run(tmp_path):
            pass
    finally:
        first.kill()
        first.wait()
        if first.stdout:
            first.stdout.close()
    with only_run(tmp_path), only_run(tmp_path):
        pass


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), only_run(tmp_path):
        raise ValueError("boom")
    held = subprocess.run(
        [sys.executable, "-c", HOLD.replace("60", "0"), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert held.stdout.strip() == "held"
