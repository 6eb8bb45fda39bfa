"""A store on any URL: whole for everybody or not there, whatever dies while it is written and whatever is torn."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="the extra [ray] is not installed")

from quantward.core.errors import Refused, UsageError
from quantward.core.store import digest_file
from quantward.study import shared
from quantward.study.remote import Remote, remote
from quantward.study.shared import SINGLY, SharedStore, open_store
from quantward.study.store import FolderStore
from quantward.study.values import Done, Failed, Step, Store

KEY = hashlib.sha256(b"a step").hexdigest()
Machine = Callable[..., SharedStore]


def keys(n: int, start: int = 0) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(start, start + n)]


def work(store: Store, key: str = KEY, text: str = "answers", value: float = 1.0) -> Done:
    """What a step does: leave two files, one in a folder, and facts."""
    folder = store.scratch(key)
    (folder / "plan").mkdir(exist_ok=True)
    (folder / "plan" / "weights.bin").write_bytes(bytes(range(256)) * 20)
    (folder / "predictions.csv").write_text(text, encoding="utf-8")
    return store.keep(Step(key, "plan", "a plan"), {"value": value, "list": [1, None]}, 2.5)


@pytest.fixture(params=["memory", "file"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place that several machines reach: objects without folders, and a drive."""
    if request.param == "file":
        return (tmp_path / "drive").as_uri()
    return f"memory://{uuid.uuid4().hex}/study"


@pytest.fixture
def machine(address: str, tmp_path: Path) -> Machine:
    """A machine of its own: the same address, another cache."""

    def make(name: str, *, many: bool = False) -> SharedStore:
        return SharedStore(address, tmp_path / "machines" / name, many=many)

    return make


class Counted:
    """A file system that counts what is asked of it and can fail at the n-th time."""

    def __init__(self, files: Any, fails_at: int = 0) -> None:
        self.files, self.fails_at, self.calls = files, fails_at, [""][:0]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.files, name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) == self.fails_at:
                raise ConnectionResetError("the line is cut")
            return found(*args, **options)

        return call


def counted(store: SharedStore, fails_at: int = 0) -> Counted:
    files = Counted(store.there.files, fails_at)
    store.there = Remote(store.there.address, files, store.there.root)
    return files


def spoil(store: SharedStore, name: str, content: bytes, key: str = KEY) -> None:
    store.there.write(f"{key[:2]}/{key}/{name}", content)


def test_what_one_machine_keeps_is_whole_on_another(machine: Machine) -> None:
    a, b = machine("a"), machine("b")
    assert a.find(KEY) is None and b.find(KEY) is None
    done = work(a)
    assert done.facts == {"value": 1.0, "list": [1, None]}
    assert set(done.files) == {"plan/weights.bin", "predictions.csv"}
    assert b.find(KEY) == done == machine("c").find(KEY)
    folder = b.folder(KEY)
    assert {name: digest_file(folder / name) for name in done.files} == dict(done.files)


def test_a_result_is_fetched_once(machine: Machine) -> None:
    work(machine("a"))
    b = machine("b")
    b.folder(KEY)
    files = counted(b)
    assert b.find(KEY) is not None and (b.folder(KEY) / "predictions.csv").exists()
    again = machine("b")
    more = counted(again)
    assert again.find(KEY) is not None and (again.folder(KEY) / "predictions.csv").exists()
    assert files.calls == more.calls == []


def test_a_folder_store_and_a_url_of_the_same_folder_are_one_store(tmp_path: Path) -> None:
    home = tmp_path / "drive"
    url, plain = SharedStore(home.as_uri(), tmp_path / "cache", many=False), FolderStore(str(home))
    one, two = keys(2)
    by_folder, by_url = work(plain, one), work(url, two)
    assert url.find(one) == by_folder
    assert plain.find(two) == by_url
    assert (url.folder(one) / "predictions.csv").read_bytes() == (plain.folder(two) / "predictions.csv").read_bytes()


def test_cut_off_at_any_moment_leaves_nothing_or_all(address: str, machine: Machine) -> None:
    whole = machine("whole")
    steps = len((counted(whole), work(whole, keys(1)[0]))[0].calls)
    assert steps > 4
    for moment in range(1, steps + 1):
        key = keys(1, start=moment)[0]
        dying = machine(f"dying-{moment}")
        counted(dying, fails_at=moment)
        with pytest.raises(Refused, match="Expected to reach the store"):
            work(dying, key)
        other = machine(f"other-{moment}")
        seen = other.find(key)
        if seen is not None:
            assert (other.folder(key) / "predictions.csv").read_text(encoding="utf-8") == "answers"
        back = machine(f"dying-{moment}")  # the machine starts again: what it had finished is not carried out again
        assert back.find(key) is not None
        assert machine(f"third-{moment}").folder(key).joinpath("plan/weights.bin").exists()


def test_who_finishes_first_stays(machine: Machine) -> None:
    first, second = machine("a"), machine("b")
    first.find(KEY), second.find(KEY)
    done = work(first, text="first", value=1.0)
    assert work(second, text="second", value=2.0) == done
    assert (second.folder(KEY) / "predictions.csv").read_text(encoding="utf-8") == "first"
    assert second.find(KEY) == machine("c").find(KEY) == done


def test_what_is_torn_on_its_way_is_fetched_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    work(machine("a"))
    b, torn = machine("b"), []
    fetch = Remote.fetch

    def once(self: Remote, path: str, here: Path) -> bool:
        came = fetch(self, path, here)
        if not torn and path.endswith(".bin"):
            torn.append(path)
            here.write_bytes(b"half")
        return came

    monkeypatch.setattr(Remote, "fetch", once)
    assert (b.folder(KEY) / "plan" / "weights.bin").stat().st_size == 20 * 256
    assert torn


@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_broken_result_is_set_aside_and_made_anew(machine: Machine, how: str) -> None:
    work(machine("a"))
    b = machine("b")
    if how == "changed":
        spoil(b, "predictions.csv", b"other answers")
    else:
        b.there.remove(f"{KEY[:2]}/{KEY}/predictions.csv")
    with pytest.raises(Refused, match=r"predictions.csv is not. They lie in .*broken-1 now. Run the study again"):
        b.folder(KEY)
    assert b.find(KEY) is None and machine("c").find(KEY) is None
    again = work(b)
    assert machine("d").find(KEY) == again
    assert (machine("d").folder(KEY) / "predictions.csv").read_text(encoding="utf-8") == "answers"
    assert any("broken-1/result.json" in name for name in b.there.names())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "other"}', b"\xff\xfe"])
def test_a_broken_record_is_no_result(machine: Machine, content: bytes) -> None:
    work(machine("a"))
    b = machine("b")
    spoil(b, "result.json", content)
    assert b.find(KEY) is None
    work(b)
    assert machine("c").find(KEY) is not None


def test_the_record_of_another_step_is_no_result(machine: Machine) -> None:
    a = machine("a")
    work(a)
    other = keys(1)[0]
    record = a.there.read(f"{KEY[:2]}/{KEY}/result.json")
    assert record is not None
    spoil(a, "result.json", record, other)
    assert machine("b").find(other) is None


def test_a_step_carried_out_anew_elsewhere_is_read_anew(machine: Machine) -> None:
    a, b = machine("a"), machine("b")
    work(a, text="old")
    assert b.find(KEY) is not None
    a.there.remove(f"{KEY[:2]}/{KEY}/result.json")
    new = work(machine("c"), text="new")
    assert (b.folder(KEY) / "predictions.csv").read_text(encoding="utf-8") == "new"
    assert b.find(KEY) == new


def test_what_this_machine_still_has_mends_an_emptied_store(machine: Machine) -> None:
    a = machine("a")
    done = work(a)
    for name in a.there.names():
        a.there.remove(name)
    assert machine("b").find(KEY) is None
    assert machine("a", many=True).find(KEY) == done
    assert (machine("b").folder(KEY) / "predictions.csv").exists()


def test_reasons_are_everybodys_until_the_step_succeeds(machine: Machine) -> None:
    a, b = machine("a"), machine("b")
    assert a.failure(KEY) is None
    failed = Failed(KEY, "plan", "a plan", "Expected more memory; got none.", because=keys(1)[0])
    a.fail(failed)
    assert b.failure(KEY) == failed and b.find(KEY) is None
    work(b)
    assert a.failure(KEY) is None and machine("c").failure(KEY) is None


def test_a_torn_reason_is_none(machine: Machine) -> None:
    machine("a").there.write(f"{KEY[:2]}/{KEY}.failed.json", b'{"key": "x"')
    assert machine("b").failure(KEY) is None


def test_a_study_of_thousands_lists_the_store_and_does_not_ask_for_each(machine: Machine) -> None:
    a = machine("a")
    present, absent = keys(4), keys(2000, start=1000)
    made = {key: work(a, key) for key in present}
    driver = machine("driver", many=True)
    files = counted(driver)
    for _ in range(2):
        assert {key: driver.find(key) for key in present} == made
        assert not any(driver.find(key) for key in absent)
        assert not any(driver.failure(key) for key in absent)
    assert len(files.calls) < 10 * SINGLY
    assert files.calls.count("find") >= 2


def test_a_listing_never_hides_news(machine: Machine) -> None:
    a, driver = machine("a"), machine("driver", many=True)
    assert driver.find(KEY) is None
    done = work(a)
    assert driver.find(KEY) == done
    second = keys(1)[0]
    assert driver.failure(second) is None
    a.fail(Failed(second, "plan", "", "Expected more; got less."))
    assert driver.failure(second) is not None


def test_a_driver_sees_each_result_the_first_time_it_asks_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "SINGLY", 3)
    worker, driver = machine("worker"), machine("driver", many=True)
    waiting = keys(8)
    assert not any(driver.find(key) for key in waiting)
    for key in waiting:
        work(worker, key)
        assert driver.find(key) is not None


def test_a_worker_sees_at_once_what_others_finish(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "SINGLY", 3)
    a, b = machine("a"), machine("b")
    for key in keys(6):
        assert b.find(key) is None
        work(a, key)
        assert b.find(key) is not None


def test_an_address_decides_the_kind_of_store(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), FolderStore)
    found = open_store((tmp_path / "x").as_uri())
    assert isinstance(found, SharedStore) and isinstance(found, Store)


def test_addresses_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="Expected an fsspec URL such as s3://BUCKET/FOLDER; got 'nowhere://x'"):
        remote("nowhere://x")

    def absent(*args: Any, **options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    import fsspec

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(UsageError, match="Install s3fs to access S3"):
        remote("s3://bucket/study")


def test_errors_say_where_but_never_a_password(tmp_path: Path) -> None:
    store = SharedStore("memory://user:secret@bucket/study", tmp_path, many=False)
    counted(store, fails_at=1)
    with pytest.raises(Refused, match="Expected to reach the store at memory://bucket/study") as error:
        store.find(KEY)
    assert "secret" not in str(error.value)
