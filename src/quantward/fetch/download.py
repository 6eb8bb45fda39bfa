"""One file from the web to the disk: resumed where it was cut, retried, and never taken for something else.

Standard library only: data sets are fetched on small machines too, and the usual download helpers start over when a
connection is cut, which is no way to get three gigabytes through a clinic's line.
"""

from __future__ import annotations

import errno
import http.client
import math
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from quantward import __version__
from quantward.core.errors import Refused
from quantward.core.progress import Track, silent
from quantward.core.store import read_json, write_json

BLOCK = 1 << 20
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as cut."""
TRIES = 5
"""Attempts in a row that bring nothing; one that brings something starts the count anew."""
SPARE = 64 << 20
LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


def download(
    address: str,
    path: Path,
    *,
    elsewhere: str,
    expected: int | None = None,
    track: Track = silent,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Bring `address` to `path`; a part that is there already (`path` + ".part") is gone on with, if the server can.

    The part is only continued where the server says that the file is still the same (ETag or date, by If-Range).
    `elsewhere` ends the sentences: where else the file can be had. `expected` is the published size.

    Raises Absent for 404 and 410; Refused for no network, other HTTP errors, a web page in place of the file, a
    connection that stays cut, a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, tag = Path(f"{path}.part"), Path(f"{path}.tag")
    empty = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _attempt(address, part, tag, path.name, expected, elsewhere, track):
                break
            why = "the connection was cut"
        except _Again as again:
            why = str(again)
        after = part.stat().st_size if part.exists() else 0
        empty = 0 if after > before else empty + 1
        if empty == TRIES:
            raise Refused(
                f"Expected the whole of {path.name} from {urlsplit(address).netloc}; {why} after {_mb(after)}. "
                f"Run the same command to go on, or {elsewhere}"
            )
        pause(2.0**empty - 1)
    part.replace(path)
    tag.unlink(missing_ok=True)


class Absent(Refused):
    """The server says that there is no such file: another address may have it."""


class _Again(Exception):
    """An attempt failed in a way that may pass."""


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from a safe line to one that others can write on."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.HTTPError(newurl, code, "redirected to an address that is not https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _attempt(
    address: str, part: Path, tag: Path, name: str, expected: int | None, elsewhere: str, track: Track
) -> bool:
    """One connection; True where the file is whole after it."""
    have = part.stat().st_size if part.exists() else 0
    known = str(read_json(tag)) if have and tag.exists() else ""
    if not known:
        have = 0
    headers = {"User-Agent": f"quantward/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    request = urllib.request.Request(address, headers=headers)
    host = urlsplit(address).netloc
    try:
        answer = urllib.request.build_opener(_Redirect).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # a part that is as long as the file, or longer than a newer one
                if error.headers.get("Content-Range") == f"bytes */{have}":
                    return True
                part.unlink(missing_ok=True)
                raise _Again("the part did not fit") from None
            if error.code in LATER:
                raise _Again(f"the server answered {error.code} {error.reason}") from None
            raise (Absent if error.code in (404, 410) else Refused)(
                f"Expected {name} at {address}; {host} answered {error.code} {error.reason}. Instead {elsewhere}"
            ) from None
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if have:
            raise _Again(f"{host} could not be reached ({reason})") from None
        raise Refused(
            f"Expected to reach {host} for {name}; there is no connection ({reason}). "
            f"Connect this machine to the network, or {elsewhere}"
        ) from None
    with answer:
        if answer.status != 206:
            have = 0
        _refuse_page(answer, name, address, elsewhere)
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        if have and not _continues(answer.headers.get("Content-Range"), have):
            part.unlink(missing_ok=True)
            raise _Again("the server continued at another place")
        size = total if total is not None else expected
        _room(part.parent, (size or 0) - have, name)
        fresh = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if fresh.startswith("W/"):
            fresh = ""  # a weak tag does not promise the same bytes
        if not have:
            write_json(tag, fresh)
        blocks = None if size is None else math.ceil((size - have) / BLOCK)
        try:
            with part.open("ab" if have else "wb") as out:
                for block in track(_blocks(answer), f"{name}, MiB", blocks):
                    out.write(block)
                    have += len(block)
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(part.parent, (size or have) - have, name) from None
            raise
    return total is None or have == total


def _blocks(answer: Any) -> Iterator[bytes]:
    """The body as it comes. Raises _Again where the connection is seen to be cut; often it just ends early."""
    while True:
        try:
            block: bytes = answer.read(BLOCK)
        except http.client.IncompleteRead as error:
            yield error.partial
            raise _Again("the connection was cut") from None
        except (OSError, http.client.HTTPException):
            raise _Again("the connection was cut") from None
        if not block:
            return
        yield block


def _continues(content_range: str | None, have: int) -> bool:
    return content_range is not None and content_range.startswith(f"bytes {have}-")


def _refuse_page(answer: Any, name: str, address: str, elsewhere: str) -> None:
    """A login or an apology comes with status 200 and as HTML: it must not become a data file."""
    if answer.headers.get_content_type() == "text/html" and not name.lower().endswith((".html", ".htm")):
        raise Refused(f"Expected {name} at {address}; the server sent a web page. Instead {elsewhere}")


def _room(folder: Path, need: int, name: str) -> None:
    if need > 0 and shutil.disk_usage(folder).free < need + SPARE:
        raise _full(folder, need, name)


def _full(folder: Path, need: int, name: str) -> Refused:
    return Refused(
        f"Expected room for {_mb(need)} more of {name} in {folder.parent}; the disk is full. "
        "Free some, or choose another folder with --out; what came so far is kept."
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
