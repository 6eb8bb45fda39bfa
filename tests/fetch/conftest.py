"""What tests of fetching share: a server on this machine that can misbehave, and a home of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from fetch_minis import Files, Mini, mini, zipped


@dataclass
class Server:
    """What is served, by path; how it goes wrong; and what was asked for (path, Range header)."""

    address: str = ""
    files: Files = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    """The next answers end after so many bytes of the body."""
    codes: list[int] = field(default_factory=list)
    """The next answers are these errors."""
    etag: str | None = '"one"'
    ranges: bool = True
    chunked: bool = False
    kind: str = "application/octet-stream"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on 127.0.0.1."""
    world = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path, wanted = unquote(self.path.partition("?")[0]), self.headers.get("Range", "")
            world.asked.append((path, wanted))
            self.close_connection = True
            code = world.codes.pop(0) if world.codes else 200 if path in world.files else 404
            if code != 200:
                self.send_error(code)
                return
            body = whole = world.files[path]
            start = 0
            fresh = self.headers.get("If-Range") in (None, world.etag)
            if wanted and world.ranges and fresh:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(whole):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(whole)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = whole[start:]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
            else:
                self.send_response(200)
            if world.etag is not None:
                self.send_header("ETag", world.etag)
            self.send_header("Content-Type", world.kind)
            sent = body[: world.cuts.pop(0)] if world.cuts else body
            if world.chunked:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent) if sent else b"")
                if sent == body:
                    self.wfile.write(b"0\r\n\r\n")
            else:
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(sent)

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients that hang up are part of the tests."""

    monkeypatch.setenv("no_proxy", "*")
    with Quiet(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        world.address = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield world
        finally:
            listening.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sets of tests never go to the user's home."""
    home = tmp_path / "home"
    monkeypatch.setenv("QUANTWARD_DATA", str(home))
    monkeypatch.delenv("QUANTWARD_MIRROR", raising=False)
    return home


@pytest.fixture
def offered(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Mini]:
    """Puts a set's miniature on the server and makes that the place where sets come from."""

    def offer(spelled: str) -> Mini:
        small = mini(spelled)
        server.files |= {f"/{spelled.partition(':')[0]}/{name}": data for name, data in small.files.items()}
        monkeypatch.setenv("QUANTWARD_MIRROR", server.address)
        return small

    return offer


@pytest.fixture
def put() -> Callable[[Files, Path], Path]:
    """Writes some files below a folder."""

    def write(files: Files, folder: Path) -> Path:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder

    return write


@pytest.fixture
def archive_of() -> Callable[[Mapping[str, bytes]], bytes]:
    """`zipped`, for tests that make archives of their own."""
    return zipped


@pytest.fixture
def rar_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called bsdtar that unpacks the stand-ins for RAR archives, and nothing else by that name."""
    folder = tmp_path / "tools"
    folder.mkdir()
    tool = folder / "bsdtar"
    tool.write_text(
        "#!/usr/bin/env python3\n"
        "import sys, zipfile\n"
        "assert sys.argv[1] == '-xf' and sys.argv[3] == '-C', sys.argv\n"
        "try:\n"
        "    zipfile.ZipFile(sys.argv[2]).extractall(sys.argv[4])\n"
        "except zipfile.BadZipFile:\n"
        "    sys.exit('bsdtar: Unrecognized archive format')\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return tool
