"""A cluster from the driver's side: reached at its address, kept quiet, and shown which store the study has.

Ray talks a lot, tries for minutes to reach what is not there, and puts what it hears of its nodes on the standard
output. None of that is for the user of a study.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantward.core.errors import UsageError
from quantward.core.store import write_text
from quantward.study.remote import FOLDERS

REACH = 5.0
"""Seconds in which a cluster's head has to answer."""


def broke(error: BaseException) -> str:
    """What Ray says of a task that broke, as a sentence."""
    from ray import exceptions as lost

    if isinstance(error, lost.WorkerCrashedError):
        return (
            "Expected the step to end; its process died: it crashed, or the system stopped it for want of memory. "
            "Run the study with --engine local to see more."
        )
    if isinstance(error, lost.RayTaskError):
        error = error.cause or error
    said = str(error).strip().rpartition("\n")[2]
    return (
        f"Expected the step to end on its node; got {type(error).__name__}{f' ({said[:200]})' if said else ''}. "
        "See that every node has this version of quantward and its extras."
    )


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster; what is connected already stays so. Raises UsageError where none answers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield ray
        return
    if address.startswith("ray://"):
        raise UsageError(
            f"Expected the address of a cluster that this machine belongs to; got {address}. Run the study on a node "
            "of the cluster, with --engine ray."
        )
    _require(address)
    with _quiet():
        try:
            _join(ray, address)
            yield ray
        finally:
            ray.shutdown()  # tells what it still has to tell, so it is kept quiet too


def _join(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"Expected a Ray cluster at {address}; got: {said[:300]} Start one with ray start --head, or give its "
            "address with --engine ray:address=HOST:PORT."
        ) from None


def _require(address: str) -> None:
    """Refuse an address at which nothing listens: Ray would try for minutes, and then end this process."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"Expected a Ray cluster at {address}; nothing answers there ({error}). Start one with ray start --head, "
            "or give its address with --engine ray:address=HOST:PORT."
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Ray tells of its nodes off the standard output, where a document may stand. It has no setting for that,
    so the switch is used that its debugger uses."""
    from ray._private import worker

    before = getattr(worker, "_worker_logs_enabled", None)
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


@contextmanager
def marked(address: str) -> Iterator[str]:
    """A file in a store that is a folder, by which a node sees that it has the same one; empty for other stores."""
    protocol, separator, rest = address.partition("://")
    if separator and protocol == "memory":
        raise UsageError("Expected a store that other machines reach; got memory://. Give a shared folder or a bucket.")
    if separator and protocol not in FOLDERS:
        yield ""
        return
    mark = Path(rest if separator else address).resolve() / f".cluster-{uuid.uuid4().hex[:12]}"
    write_text(mark, "A study that runs on a cluster knows its store by this file.\n")
    try:
        yield str(mark)
    finally:
        mark.unlink(missing_ok=True)
