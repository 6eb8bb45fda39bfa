"""Runs a deployed file in a process of its own: a crash becomes a reason, and settings hold that are read at start.

Some settings (an instruction-set cap, thread pools) are read once, when a library is loaded; and a runtime that dies of
a bad file would take the whole search with it. So the file, the runtime's name and the images go to
`python -m quantward.audit.child`, as paths on its command line, and the logits come back as a file. Nothing is pickled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import quantward
from quantward.core.contracts import Batch, Executed
from quantward.core.errors import QuantwardError, Refused
from quantward.core.registry import Registry
from quantward.core.store import decode, read_json, write_json
from quantward.core.values import FloatArray, Variant

LIMIT = 300.0
"""Seconds a child may take before it is stopped: minutes of work are an audit, an hour is a hang."""

STEP = 16
"""Images a call; answers do not depend on it, memory does."""

SAID = "quantward.audit.child: "
"""What a child puts before its own sentence, so that it is told apart from what libraries print."""


@dataclass(frozen=True, eq=False)
class Answer:
    """Logits (n, classes), or None with the `reason`; `seconds` from start to end of the process."""

    logits: FloatArray | None
    reason: str = ""
    seconds: float = 0.0


def run_apart(
    variant: Variant,
    runtime: str,
    images: Batch,
    *,
    threads: int = 1,
    environment: Mapping[str, str] | None = None,
    limit: float = LIMIT,
) -> Answer:
    """What `runtime` says of `images` (n, 3, size, size) in a new process with `environment` added to this one's.

    Never raises for what the child does: a crash, a refusal or more than `limit` seconds are an Answer with a reason.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="quantward-") as name:
        folder = Path(name)
        np.savez(folder / "images.npz", images=np.asarray(images, np.float32))
        given = ("--images", str(folder / "images.npz"), "--logits", str(folder / "logits.npz"))
        reason = _child(folder, variant, runtime, (*given, "--threads", str(threads)), environment or {}, limit)
        logits: FloatArray | None = None
        if not reason:
            try:
                with np.load(folder / "logits.npz", allow_pickle=False) as found:
                    logits = np.asarray(found["logits"], np.float32)
            except (OSError, KeyError, ValueError) as error:
                reason = f"{runtime} left no readable logits ({error})"
    return Answer(logits, reason, time.perf_counter() - started)


def executed_apart(
    variant: Variant, runtime: str, *, environment: Mapping[str, str] | None = None, limit: float = LIMIT
) -> tuple[Executed | None, str]:
    """What `runtime` really runs of a file, found out in a new process; None with the reason where it does not tell."""
    with tempfile.TemporaryDirectory(prefix="quantward-") as name:
        folder = Path(name)
        out = folder / "executed.json"
        reason = _child(folder, variant, runtime, ("--executed", str(out)), environment or {}, limit)
        if reason:
            return None, reason
        try:
            data = read_json(out)
            return (None, f"{runtime} does not tell") if data is None else (decode(Executed, data, out), "")
        except Refused as error:
            return None, f"{runtime} left no readable answer ({error})"


def _child(
    folder: Path, variant: Variant, runtime: str, given: Sequence[str], added: Mapping[str, str], limit: float
) -> str:
    """Start the child and wait; why it failed, or nothing."""
    write_json(folder / "variant.json", replace(variant, path=variant.path.resolve()))
    file = ("--variant", str(folder / "variant.json"), "--runtime", runtime)
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "quantward.audit.child", *file, *given],
            env=_environment(added),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{runtime} gave no answer within {limit:g} s"
    except OSError as error:
        return f"no process could be started ({error})"
    return "" if ended.returncode == 0 else _reason(runtime, ended.returncode, ended.stderr)


def _environment(added: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, what is added, and where this package lies, so that the child finds the same one."""
    both = {**os.environ, **added}
    here = str(Path(quantward.__file__).resolve().parents[1])
    paths = [here, *filter(None, both.get("PYTHONPATH", "").split(os.pathsep))]
    return {**both, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _reason(runtime: str, code: int, said: str) -> str:
    """Why a child ended: the signal that killed it, its own sentence, or the last line it printed."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"{runtime} crashed ({name})"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    own = [line.removeprefix(SAID) for line in lines if line.startswith(SAID)]
    if own:
        return own[-1]
    return f"{runtime} failed with exit code {code}{f' ({lines[-1][:200]})' if lines else ''}"


def opened(variant: Variant, runtime: str) -> Any:
    """The runtime, installed and able to read the file.

    Raises Refused where it is not.
    """
    chosen = Registry("runtime", "quantward.runtimes").make(runtime)
    absent = chosen.missing()
    if absent:
        raise Refused(f"Expected an installed runtime; {absent}.")
    if variant.format not in chosen.formats:
        raise Refused(
            f"Expected a file of format {' or '.join(chosen.formats)} for {runtime}; got {variant.format}. "
            "Choose another runtime."
        )
    return chosen


def main(arguments: Sequence[str]) -> int:
    """The child itself: reads the files it is given, writes what was asked; its own sentence goes to stderr."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m quantward.audit.child", description="Run one file on images.")
    for option in ("variant", "runtime"):
        parser.add_argument(f"--{option}", required=True)
    for option in ("images", "logits", "executed"):
        parser.add_argument(f"--{option}", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    try:
        variant = decode(Variant, read_json(given.variant), given.variant)
        chosen = opened(variant, given.runtime)
        if given.executed is not None:
            write_json(given.executed, chosen.executed(variant))
        if given.logits is not None:
            with np.load(given.images, allow_pickle=False) as found:
                images = np.asarray(found["images"], np.float32)
            session = chosen.open(variant, given.threads)
            logits = [session(images[i : i + STEP]) for i in range(0, len(images), STEP)]
            np.savez(given.logits, logits=np.concatenate(logits))
    except QuantwardError as error:
        sys.stderr.write(f"{SAID}{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
