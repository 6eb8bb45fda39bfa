"""The processes behind `--devices N`: one a GPU (or share of the cores), started for one training and gone after it.

This process is the first of the team. The others are this module, run with a folder that says what to train; they
have the files that the first one has, and everything else from it. They cannot outlive it.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from quantward.core import machine
from quantward.core.errors import QuantwardError, Refused, UsageError
from quantward.core.store import decode, plain, read_json, write_json
from quantward.core.values import ImageArray, Preprocess
from quantward.train import STAGES
from quantward.train.backbones import create
from quantward.train.batches import Images
from quantward.train.team import Team, member

_wished: ContextVar[int] = ContextVar("devices", default=1)


@contextmanager
def on_devices(count: int) -> Iterator[None]:
    """Whatever `train_model` trains inside the block, it trains on `count` GPUs, or on as many shares of the cores.

    Raises UsageError where there are fewer.
    """
    cuda = torch.cuda.is_available()
    most = torch.cuda.device_count() if cuda else machine.cores()
    if not 1 <= count <= most:
        raise UsageError(
            f"Expected 1 to {most} devices, as many {'GPUs' if cuda else 'processor cores'} as there are; got {count}. "
            "Ask for fewer."
        )
    token = _wished.set(count)
    try:
        yield
    finally:
        _wished.reset(token)


def devices() -> int:
    """How many devices a training may use here."""
    return _wished.get()


@contextmanager
def crew(count: int, images: Images, job: Mapping[str, Any]) -> Iterator[None]:
    """While the block runs this training, `count` - 1 other processes run it too, each on its share of every batch.

    `job` is plain data: arch, options, stage, seed, arguments, folder. Raises Refused, with what it said, where one of
    them ends too early.
    """
    if count == 1:
        yield
        return
    with TemporaryDirectory(prefix="quantward-") as name, _threads(max(1, torch.get_num_threads() // count)):
        home = Path(name)
        _describe(home, images, {**job, "size": count, "threads": torch.get_num_threads()})
        others = [_start(home, rank) for rank in range(1, count)]
        try:
            _until_ready(home, others)
            with _joined(home, Team(0, count)):
                yield
            for rank, other in enumerate(others, 1):
                if other.wait(60):
                    raise _ended(home, rank)
        except QuantwardError:
            raise
        except Exception:
            # The network between processes tells only that one is gone; it tells itself why.
            for rank, other in enumerate(others, 1):
                if _soon(other) not in (None, 0):
                    raise _ended(home, rank) from None
            raise
        finally:
            for other in others:
                other.kill()
                other.wait()


def work(home: Path, rank: int) -> None:
    """What the other processes do: the same training, without a word and without writing anything."""
    job = read_json(home / "job.json")
    threading.Thread(target=_not_alone, args=(job["parent"],), daemon=True).start()
    torch.set_num_threads(job["threads"])
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    with np.load(home / "images.npz") as arrays:
        labels, train, tune = (arrays[name] for name in ("labels", "train", "tune"))
    how = decode(Preprocess, job["preprocess"], home / "job.json")
    images = Images(_pixels(home, job["pixels"]), labels, train, tune, tuple(job["classes"]), how)
    net = create(job["arch"], len(images.classes), job["options"])
    stage = STAGES.make(job["stage"])
    (home / f"ready-{rank}").touch()
    with _joined(home, Team(rank, job["size"])):
        stage.run(net, images, seed=job["seed"], folder=Path(job["folder"]), arguments=job["arguments"])


@contextmanager
def _joined(home: Path, team: Team) -> Iterator[None]:
    """Inside, this process is in touch with the others, and a member of the team."""
    # Gloo would ask for the address of this host's name, which not every machine has.
    loop = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    ours = loop is not None and "GLOO_SOCKET_IFNAME" not in os.environ
    if ours:
        os.environ["GLOO_SOCKET_IFNAME"] = str(loop)
    try:
        torch.distributed.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo",
            init_method=(home / "meet").resolve().as_uri(),
            rank=team.rank,
            world_size=team.size,
        )
        try:
            with member(team):
                yield
        finally:
            torch.distributed.destroy_process_group()
    finally:
        if ours:
            del os.environ["GLOO_SOCKET_IFNAME"]


def _describe(home: Path, images: Images, job: Mapping[str, Any]) -> None:
    """Leave in `home` what the others must know."""
    np.savez(home / "images.npz", labels=images.labels, train=images.train, tune=images.tune)
    pixels: Any = images.pixels
    if isinstance(getattr(pixels, "base", None), mmap.mmap) and getattr(pixels, "filename", None):
        place = {"path": str(pixels.filename), "offset": pixels.offset, "shape": list(pixels.shape)}
    else:
        np.save(home / "pixels.npy", pixels)
        place = {}
    told = {"classes": images.classes, "preprocess": images.preprocess, "pixels": place,
            "parent": os.getpid()}  # fmt: skip
    write_json(home / "job.json", plain({**job, **told}))


def _pixels(home: Path, place: Mapping[str, Any]) -> ImageArray:
    """The pixel cache of the first process, mapped into this one."""
    if not place:
        found: ImageArray = np.load(home / "pixels.npy", mmap_mode="r")
        return found
    return np.memmap(place["path"], np.uint8, "r", place["offset"], tuple(place["shape"]))


def _start(home: Path, rank: int) -> subprocess.Popen[bytes]:
    """One more process, out of reach of this terminal's Ctrl-C: only the first is asked to stop."""
    with (home / f"{rank}.log").open("wb") as told:
        return subprocess.Popen(
            [sys.executable, "-m", "quantward.train.crew", str(home), str(rank)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=told,
            start_new_session=True,
        )


def _until_ready(home: Path, others: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all to be up; whoever waits in a meeting cannot see that another will never come."""
    for rank, other in enumerate(others, 1):
        while not (home / f"ready-{rank}").exists():
            if other.poll() is not None:
                raise _ended(home, rank)
            time.sleep(0.05)


def _soon(other: subprocess.Popen[bytes]) -> int | None:
    try:
        return other.wait(5)
    except subprocess.TimeoutExpired:
        return None


def _ended(home: Path, rank: int) -> Refused:
    said = (home / f"{rank}.log").read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
    return Refused(
        f"Expected all processes of the training to go on; number {rank + 1} ended ({said or 'without a word'}). "
        "Give the same command again to go on, or train with --devices 1."
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _not_alone(parent: int) -> None:
    """End with the process that started this one, however it ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    try:
        work(Path(sys.argv[1]), int(sys.argv[2]))
    except QuantwardError as error:
        sys.exit(str(error))
