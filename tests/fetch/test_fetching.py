"""Fetching as a whole: from a server, from copies at hand, stopped anywhere, done twice, done wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fetch_minis import Mini, mini, picture, zipped

from quantward.cli import main
from quantward.core.errors import Refused, UsageError
from quantward.core.lock import only_run
from quantward.data import check, open_dataset
from quantward.fetch import File, Item, fetch, listed, where
from quantward.fetch import fetching as module
from quantward.fetch.trees import Tree

Offer = Callable[[str], Mini]
Put = Callable[[dict[str, bytes], Path], Path]
PICTURES = {f"set/{label}/{i}.png": picture(10 * k + i) for k, label in enumerate("ab") for i in range(3)}
ARCHIVE = zipped(PICTURES)
MD5 = hashlib.md5(ARCHIVE).hexdigest()


@dataclass(frozen=True)
class Small:
    """A set with a checksum that can be met."""

    title: ClassVar[str] = "Small set"
    page: ClassVar[str] = "https://example.org/small"
    licence: ClassVar[str] = "CC0"
    citation: ClassVar[str] = "Nobody. Small set. 2026."
    files: ClassVar[tuple[File, ...]] = (
        File("small.zip", "https://nowhere.invalid/small.zip", len(ARCHIVE), f"md5:{MD5}"),
    )
    classes: ClassVar[tuple[str, ...]] = ("a", "b")
    images: ClassVar[int] = 6
    counts: ClassVar[Mapping[str, int]] = {"a": 3, "b": 3}
    group: ClassVar[str] = "patient"
    note: ClassVar[str] = "Made up."

    def items(self, tree: Tree) -> Iterator[Item]:
        for label in self.classes:
            for name, path in tree.pictures(label):
                yield Item(f"{label}/{name}", label, path, group=f"p{name[0]}")


@dataclass(frozen=True)
class Locked(Small):
    """The same behind a login."""

    files: ClassVar[tuple[File, ...]] = (File("small.zip"),)


NAME = "test-fetching"  # sets are called by their module


@pytest.fixture
def mirror(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server holds the small set."""
    server.files[f"/{NAME}/small.zip"] = ARCHIVE
    monkeypatch.setenv("QUANTWARD_MIRROR", server.address + "/")
    return server


def remains(folder: Path) -> list[str]:
    """What lies beside a set, hidden or not."""
    return sorted(p.name for p in folder.iterdir() if p.name not in ("home", "tools"))


def test_a_set_is_fetched_once(mirror: Any, tmp_path: Path) -> None:
    told: list[str] = []
    folder, record, fresh = fetch(Small(), tmp_path / "data", tell=told.append)
    assert (folder, fresh) == (tmp_path / "data", True)
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")} == {
        name.removeprefix("set/"): content for name, content in PICTURES.items()
    }
    data = open_dataset(folder)
    assert data.groups == ("p0", "p1", "p2") * 2 and not check(data).errors
    assert record.counts == {"a": 3, "b": 3} and record.differs == () and record.images == 6
    got = record.files[0]
    assert (got.checked, got.bytes, got.sha256) == (True, len(ARCHIVE), hashlib.sha256(ARCHIVE).hexdigest())
    assert remains(tmp_path) == ["data"] and told == [f"small.zip from {mirror.address}/{NAME}/small.zip"]

    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*")}
    mirror.asked.clear()
    assert fetch(Small(), tmp_path / "data") == (folder, record, False)
    assert mirror.asked == [] and before == {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*")}


def test_the_record_is_plain_json(mirror: Any, tmp_path: Path) -> None:
    folder, record, _ = fetch(Small(), tmp_path / "data")
    written = json.loads((folder / "fetched.json").read_text())
    assert written["licence"] == "CC0" and written["group"] == "patient" and written["files"][0]["checked"] is True
    assert record.sentences()[0] == "Small set: 6 images, one group a patient. Licence: CC0."


def test_a_wrong_checksum(mirror: Any, tmp_path: Path) -> None:
    mirror.files[f"/{NAME}/small.zip"] = zipped({**PICTURES, "set/a/3.png": picture(99)})
    with pytest.raises(Refused, match=r"small\.zip has not the published checksum .*Run the same command again"):
        fetch(Small(), tmp_path / "data")
    assert remains(tmp_path) == []
    _, record, _ = fetch(Small(), tmp_path / "data", as_is=True)
    assert record.differs == (
        "another checksum of small.zip than the published one",
        "7 images in all in place of 6",
        "4 of a in place of 3",
    )
    assert record.files[0].checked is False and "Not as published" in " ".join(record.sentences())


def test_a_broken_download_does_not_stand_in_the_way(mirror: Any, tmp_path: Path) -> None:
    class Unchecked(Small):
        files = (File("small.zip", "https://nowhere.invalid"),)

    mirror.files[f"/{NAME}/small.zip"] = ARCHIVE[:-30]
    with pytest.raises(Refused, match="Expected a whole archive"):
        fetch(Unchecked(), tmp_path / "data")
    assert remains(tmp_path) == []
    mirror.files[f"/{NAME}/small.zip"] = ARCHIVE
    told: list[str] = []
    _, record, _ = fetch(Unchecked(), tmp_path / "data", tell=told.append)
    assert record.files[0].checked is None and record.differs == ()
    assert told[1] == f"small.zip: no published checksum; its sha256 {hashlib.sha256(ARCHIVE).hexdigest()} " + (
        "is kept in fetched.json"
    )


def test_another_address_where_one_is_gone(server: Any, tmp_path: Path) -> None:
    server.files["/there.zip"] = ARCHIVE

    class Moved(Small):
        files = (File("small.zip", f"{server.address}/gone.zip", also=(f"{server.address}/there.zip",)),)

    class Lost(Small):
        files = (File("small.zip", f"{server.address}/gone.zip", also=(f"{server.address}/gone-too.zip",)),)

    _, record, _ = fetch(Moved(), tmp_path / "data")
    assert record.files[0].address == f"{server.address}/there.zip"
    with pytest.raises(
        Refused, match=r"gone-too\.zip; .* answered 404 Not Found\. Instead get it from https://example"
    ):
        fetch(Lost(), tmp_path / "other")


def test_a_set_that_lost_images(mirror: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zip"
    copy.write_bytes(zipped(dict(list(PICTURES.items())[:-1])))
    with pytest.raises(Refused, match="got 5 images in all in place of 6; 2 of b in place of 3"):
        fetch(Locked(), tmp_path / "data", given=[copy])
    assert remains(tmp_path) == ["copy.zip"]


def test_downloads_are_kept_when_what_follows_fails(
    mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "build", _full)
        with pytest.raises(Refused, match="disk is full"):
            fetch(Small(), tmp_path / "data")
    assert [p.name for p in (tmp_path / ".data.fetching").iterdir() if p.name != ".lock"] == ["files"]
    mirror.asked.clear()
    record = fetch(Small(), tmp_path / "data")[1]
    assert mirror.asked == [] and remains(tmp_path) == ["data"]
    assert record.files[0].address == f"{mirror.address}/{NAME}/small.zip"


def _full(*_: Any, **__: Any) -> Any:
    raise Refused("Expected room; the disk is full. Free some.")


def test_a_kill_at_any_step_leaves_nothing_half_made(mirror: Any, tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\n"
        "import test_fetching as t\nfrom quantward.fetch import fetching, fetch, obtain\n"
        "step = sys.argv[3]\nroom = fetching if hasattr(fetching, step) else obtain\nwhen = getattr(room, step)\n"
        "def die(*a, **k):\n    when(*a, **k)\n    os.kill(os.getpid(), 9)\n"
        "setattr(room, step, die)\nfetch(t.Small(), Path(sys.argv[2]))\n"
    )
    for step in ("download", "unpack", "build", "write_json"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "data"), step],
            capture_output=True, text=True, check=False, env={**os.environ, "QUANTWARD_MIRROR": mirror.address},
        )  # fmt: skip
        assert done.returncode == -9, done.stderr
        assert remains(tmp_path) == [".data.fetching"]
    mirror.asked.clear()
    folder, _, fresh = fetch(Small(), tmp_path / "data")
    assert fresh and mirror.asked == [] and len(open_dataset(folder)) == 6 and remains(tmp_path) == ["data"]


def test_two_at_once(mirror: Any, tmp_path: Path) -> None:
    code = "import sys, time\nfrom pathlib import Path\nfrom quantward.core.lock import only_run\n" + (
        "with only_run(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    work = tmp_path / ".data.fetching"
    with subprocess.Popen([sys.executable, "-c", code, str(work)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            (work / "unpacked").mkdir()
            with pytest.raises(Refused, match="Expected to be the only run"):
                fetch(Small(), tmp_path / "data")
            assert (work / "unpacked").exists()
        finally:
            other.kill()
    with only_run(tmp_path / "elsewhere"):
        fetch(Small(), tmp_path / "data")


def test_a_login_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        fetch(Locked(), tmp_path / "data")
    assert str(caught.value) == (
        f"Expected to download {NAME}; its source wants a login. Sign in at https://example.org/small, download "
        f"small.zip, then run quantward data fetch {NAME} --from small.zip"
    )
    assert remains(tmp_path) == []


@pytest.mark.parametrize("kind", ["archive", "other name", "folder", "deep folder", "folder with the archive"])
def test_copies_at_hand(tmp_path: Path, put: Put, kind: str) -> None:
    copy = tmp_path / "copy"
    files = {
        "archive": {"small.zip": ARCHIVE},
        "other name": {"archive(1).zip": ARCHIVE},
        "folder": PICTURES,
        "deep folder": {f"x/y/{name}": content for name, content in PICTURES.items()},
        "folder with the archive": {"downloads/small.zip": ARCHIVE, "downloads/notes.pdf": b""},
    }[kind]
    put(files, copy)
    given = copy / next(iter(files)) if "name" in kind or kind == "archive" else copy
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    folder, record, fresh = fetch(Small(), tmp_path / "data", given=[given])
    assert fresh and record.differs == () and len(open_dataset(folder)) == 6
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before
    assert [got.checked for got in record.files] == ([] if "folder" in kind and "archive" not in kind else [True])
    assert remains(tmp_path) == ["copy", "data"]


def test_copies_that_are_none(tmp_path: Path, put: Put) -> None:
    with pytest.raises(Refused, match=r"Expected a copy of .* at .*/absent; there is nothing"):
        fetch(Small(), tmp_path / "data", given=[tmp_path / "absent"])
    put({"x/notes.txt": b"", "odd.bin": b"?"}, tmp_path / "in")
    for given in ("in/x", "in/odd.bin"):
        with pytest.raises(Refused, match=r"none is laid out as at https|has not the published checksum"):
            fetch(Small(), tmp_path / "data", given=[tmp_path / given])
    evil = tmp_path / "small.zip"
    evil.write_bytes(zipped({"../../evil": b"", **PICTURES}))
    with pytest.raises(Refused, match="points outside of it"):
        fetch(Small(), tmp_path / "data", given=[evil], as_is=True)
    assert remains(tmp_path) == ["in", "small.zip"] and evil.exists()


def test_folders_that_are_taken(mirror: Any, tmp_path: Path, put: Put) -> None:
    put({"thesis.txt": b"dear"}, tmp_path / "data")
    with pytest.raises(Refused, match=r"Expected a new or empty folder for .*holds something else"):
        fetch(Small(), tmp_path / "data")
    (tmp_path / "empty").mkdir()
    assert fetch(Small(), tmp_path / "empty")[2]
    with pytest.raises(Refused, match="holds something else"):
        fetch("cifar10", tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Refused, match="holds something else"):
        fetch(Small(), tmp_path / "file")


def test_a_folder_nobody_may_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "/data")

    monkeypatch.setattr(module, "_make", forbidden)
    with pytest.raises(Refused, match=r"Expected to make .*; got: Permission denied \(/data\)\..*--out"):
        fetch(Small(), tmp_path / "data", given=[tmp_path])


def test_a_mirror_that_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("/srv/mirror", "file:///etc", "mirror.org"):
        monkeypatch.setenv("QUANTWARD_MIRROR", wrong)
        with pytest.raises(UsageError, match="Expected an https address in QUANTWARD_MIRROR"):
            fetch(Small(), tmp_path / "data")
    assert remains(tmp_path) == []


def test_unknown_sets_and_options() -> None:
    with pytest.raises(UsageError, match=r"Expected a data set; got 'cifar'\. Did you mean 'cifar10'"):
        fetch("cifar")
    with pytest.raises(UsageError, match="one of 28, 64, 128, 224; got '32'"):
        where("pathmnist:size=32")


def test_home_and_places(mirror: Any, tmp_path: Path, own_home: Path, offered: Offer) -> None:
    offered("breastmnist")
    offered("breastmnist:size=64")
    assert not any(row.here for row in listed())
    with pytest.raises(Refused, match=r"it was not fetched\. Run quantward data fetch breastmnist:size=64"):
        where("breastmnist:size=64")
    folder, _, _ = fetch("breastmnist", as_is=True)
    assert folder == own_home / "breastmnist" == where("breastmnist") == where("breastmnist:size=28")
    fetch("breastmnist:size=64", tmp_path / "far" / "away", as_is=True)
    assert where("breastmnist:size=64") == tmp_path / "far" / "away"
    assert {row.name: dict(row.here) for row in listed() if row.here} == {
        "breastmnist": {"breastmnist": folder, "breastmnist:size=64": tmp_path / "far" / "away"}
    }
    assert sum(row.login for row in listed()) == 2
    (tmp_path / "far" / "away" / "fetched.json").unlink()
    with pytest.raises(Refused, match="was not fetched"):
        where("breastmnist:size=64")


def test_a_home_that_cannot_be_written(mirror: Any, tmp_path: Path, own_home: Path) -> None:
    own_home.write_bytes(b"a file")
    folder, _, fresh = fetch(Small(), tmp_path / "data")
    assert fresh and (folder / "images.csv").exists() and listed()


def test_an_external_set_apart_from_another(tmp_path: Path, put: Put) -> None:
    seen = {f"set/a/{i}.png": PICTURES[f"set/a/{i}.png"] for i in (0, 2)}
    put({**seen, "set/b/9.png": picture(77)}, tmp_path / "mine")
    other = tmp_path / "mine" / "set"
    folder, record, _ = fetch(Locked(), tmp_path / "data", given=[_copy(tmp_path)], apart=other)
    data = open_dataset(folder)
    assert set(data.ids) == {"a/1.png", "b/0.png", "b/1.png", "b/2.png"} and data.groups is not None
    assert (record.images, record.left_out, dict(record.counts)) == (4, 2, {"a": 1, "b": 3})
    assert record.apart == open_dataset(other).fingerprint and not (folder / "a/0.png").exists()
    assert "Left out: 2 images that look like one of the other set." in record.sentences()
    assert not fetch(Locked(), tmp_path / "data", apart=other)[2]
    with pytest.raises(Refused, match="was made without regard to it"):
        fetch(Locked(), tmp_path / "data", apart=_folder(tmp_path, put))
    with pytest.raises(Refused, match="all of them are in it"):
        fetch(Locked(), tmp_path / "none", given=[_copy(tmp_path)], apart=_folder(tmp_path, put))
    assert not (tmp_path / "none").exists()


def _copy(home: Path) -> Path:
    (home / "any.zip").write_bytes(ARCHIVE)
    return home / "any.zip"


def _folder(home: Path, put: Put) -> Path:
    return put(PICTURES, home / "whole") / "set"


@pytest.fixture
def quantward(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """`quantward ARGUMENTS`, which must leave with `code`: what it printed, and what it told on stderr."""

    def run(*arguments: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["quantward", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        assert left.value.code in ((None, 0) if code == 0 else (code,)), said
        return said.out, said.err

    return run


def test_the_verbs(quantward: Callable[..., tuple[str, str]], tmp_path: Path, offered: Offer, own_home: Path) -> None:
    offered("kvasir")
    assert "login" in quantward("data", "list")[0]
    out, told = quantward("data", "fetch", "kvasir", "--json", code=5)
    assert out == "" and "got 16 images in all in place of 8,000" in told and "--as-is" in told
    made = json.loads(quantward("data", "fetch", "kvasir", "--as-is", "--json")[0])
    assert (made["folder"], made["fresh"], made["images"]) == (str(own_home / "kvasir"), True, 16)
    assert quantward("data", "where", "kvasir")[0] == f"{own_home / 'kvasir'}\n"
    assert json.loads(quantward("data", "where", "kvasir", "--json")[0])["folder"] == str(own_home / "kvasir")
    assert quantward("data", "fetch", "kvasir")[0].splitlines()[-1] == f"was there: {own_home / 'kvasir'}"
    rows = json.loads(quantward("data", "list", "--json")[0])["sets"]
    assert {row["name"]: row["here"] for row in rows}["kvasir"] == {"kvasir": str(own_home / "kvasir")}
    assert json.loads(quantward("check", own_home / "kvasir", "--json", "--lenient")[0])["findings"] is not None
    (tmp_path / "a.zip").write_bytes(mini("covid-radiography").files["archive.zip"])
    out, _ = quantward("data", "fetch", "covid-radiography", "--from", tmp_path / "a.zip", "--as-is", "--out",
                       tmp_path / "chest", "--apart", own_home / "kvasir")  # fmt: skip
    assert "Not as published" in out and (tmp_path / "chest" / "images.csv").exists()
    assert quantward("data", "where", "covid-radiography")[0] == f"{tmp_path / 'chest'}\n"


def test_offline_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quantward", "data", "fetch", "kvasir", "--out", str(tmp_path / "x")],
        capture_output=True, text=True, check=False, env={**os.environ, "QUANTWARD_MIRROR": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert done.returncode == 5 and "Traceback" not in done.stderr
    assert done.stderr.count("Expected") == 1 and "there is no connection" in done.stderr and "--from" in done.stderr
    assert remains(tmp_path) == []
