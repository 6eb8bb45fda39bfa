"""One file from a server that cuts, moves, changes its mind or sends something else."""

from __future__ import annotations

import errno
import socket
import urllib.request
from collections import namedtuple
from collections.abc import Iterable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest

from quantward.core.errors import Refused
from quantward.fetch import download as module
from quantward.fetch.download import download

DATA = np.random.default_rng(0).bytes(3_000_000)
ELSEWHERE = "get it from PAGE and give it with --from."


def bring(server: Any, path: Path, pauses: list[float] | None = None, **more: Any) -> bytes:
    """Download /set/a.zip; what lies there then."""
    kept: list[float] = [] if pauses is None else pauses
    download(f"{server.address}/set/a.zip", path, elsewhere=ELSEWHERE, pause=kept.append, **more)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def served(server: Any) -> None:
    server.files["/set/a.zip"] = DATA


def test_whole_file(server: Any, tmp_path: Path) -> None:
    shown: list[tuple[str, int | None]] = []

    def track(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        shown.append((label, total))
        yield from items

    assert bring(server, tmp_path / "deep" / "a.zip", track=track) == DATA
    assert shown == [("a.zip, MiB", 3)]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.zip"]


def test_a_cut_connection_is_gone_on_with(server: Any, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 500_000]
    assert bring(server, tmp_path / "a.zip") == DATA
    assert [wanted for _, wanted in server.asked] == ["", "bytes=1000000-", "bytes=1500000-"]


@pytest.mark.parametrize("seed", range(8))
def test_however_often_it_is_cut(server: Any, tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    server.chunked = bool(seed % 2)
    server.cuts = draw.integers(1, 1_000_000, 6).tolist()
    assert bring(server, tmp_path / "a.zip") == DATA
    starts = [int(wanted.removeprefix("bytes=").rstrip("-") or 0) for _, wanted in server.asked]
    assert starts == sorted(starts)


def test_a_killed_download_is_gone_on_with(server: Any, tmp_path: Path) -> None:
    server.cuts = [2_000_000, 0, 0, 0, 0, 0]
    with pytest.raises(Refused, match=r"cut after 2\.0 MB\. Run the same command to go on, or get it from PAGE"):
        bring(server, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    server.asked.clear()
    assert bring(server, tmp_path / "a.zip") == DATA
    assert [wanted for _, wanted in server.asked] == ["bytes=2000000-"]


def test_attempts_that_bring_nothing_wait_longer_and_end(server: Any, tmp_path: Path) -> None:
    server.cuts, pauses = [0] * 9, list[float]()
    with pytest.raises(Refused, match="Expected the whole of"):
        bring(server, tmp_path / "a.zip", pauses)
    assert pauses == [1, 3, 7, 15]


def test_a_part_of_another_version_is_not_gone_on_with(server: Any, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 0, 0, 0, 0, 0]
    with pytest.raises(Refused):
        bring(server, tmp_path / "a.zip")
    server.files["/set/a.zip"], server.etag = DATA[::-1], '"two"'
    assert bring(server, tmp_path / "a.zip") == DATA[::-1]


@pytest.mark.parametrize("fault", ["no ranges", "no tag", "weak tag"])
def test_servers_that_cannot_continue_start_over(server: Any, tmp_path: Path, fault: str) -> None:
    server.ranges = fault != "no ranges"
    server.etag = {"no tag": None, "weak tag": 'W/"one"'}.get(fault, '"one"')
    server.cuts = [1_000_000]
    assert bring(server, tmp_path / "a.zip") == DATA
    assert len(server.asked) == 2


def test_a_part_that_is_whole_already(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA)
    (tmp_path / "a.zip.tag").write_text('"\\"one\\""')
    assert bring(server, tmp_path / "a.zip") == DATA
    assert server.asked == [("/set/a.zip", "bytes=3000000-")]


def test_a_part_longer_than_the_file_starts_over(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA + b"more")
    (tmp_path / "a.zip.tag").write_text('"\\"one\\""')
    assert bring(server, tmp_path / "a.zip") == DATA


def test_chunked_answers(server: Any, tmp_path: Path) -> None:
    server.chunked = True
    server.cuts = [1_000_000]
    assert bring(server, tmp_path / "a.zip") == DATA
    assert len(server.asked) == 2


def test_a_busy_server_is_asked_again(server: Any, tmp_path: Path) -> None:
    server.codes = [503, 429]
    assert bring(server, tmp_path / "a.zip") == DATA


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_an_error_is_told_with_the_way_out(server: Any, tmp_path: Path, code: int) -> None:
    server.codes = [code]
    with pytest.raises(Refused, match=rf"answered {code} .*Instead get it from PAGE and give it with --from\."):
        bring(server, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == [] and len(server.asked) == 1


def test_a_web_page_is_no_data(server: Any, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(Refused, match=r"the server sent a web page\. Instead get it from PAGE"):
        bring(server, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_no_network(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Refused, match=r"Expected to reach 127\.0\.0\.1:\d+ for a; there is no connection"):
        download(f"http://127.0.0.1:{port}/a", tmp_path / "a", elsewhere=ELSEWHERE)


def test_a_full_disk_is_seen_before(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(1 << 30, 1 << 30, 2_000_000))
    with pytest.raises(Refused, match=r"Expected room for 3\.0 MB more of a\.zip in .*; the disk is full"):
        bring(server, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_a_disk_that_fills_up(server: Any, tmp_path: Path) -> None:
    def track(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            yield item

    with pytest.raises(Refused, match="the disk is full"):
        bring(server, tmp_path / "a.zip", track=track)
    assert (tmp_path / "a.zip.part").stat().st_size == 2 << 20
    assert bring(server, tmp_path / "a.zip") == DATA
    assert server.asked[-1][1] == f"bytes={2 << 20}-"


def test_a_safe_line_is_not_left_for_an_open_one() -> None:
    handler, request = module._Redirect(), urllib.request.Request("https://a.org/x")
    with pytest.raises(HTTPError, match="not https"):
        handler.redirect_request(request, None, 302, "Found", Message(), "http://a.org/x")  # type: ignore[arg-type]
    onward = handler.redirect_request(request, None, 302, "Found", Message(), "https://b.org/x")  # type: ignore[arg-type]
    assert onward is not None and onward.full_url == "https://b.org/x"
