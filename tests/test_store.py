"""The store under everything that happens to stores: kills, crowds, full disks, wrong files."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import multiprocessing
import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import storewriters
from histoclick.store import PAGE, Conflict, Store, Unavailable, postgresql, sqlite
from histoclick.types import HistoclickError
from storewriters import add_slide, row, whole

SERVER = "HISTOCLICK_POSTGRES"  # address of a PostgreSQL server where databases may be made
forks = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX processes")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for a new store."""
    if request.param == "sqlite":
        yield str(tmp_path / "store.sqlite")
        return
    server = os.environ.get(SERVER)
    if not server or importlib.util.find_spec("psycopg") is None:
        pytest.skip(f"no PostgreSQL server (or no psycopg); set {SERVER}=postgresql://...")
    name = f"histoclick_{uuid.uuid4().hex}"
    admin = sa.create_engine(
        sa.make_url(server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        add_slide(opened)
        yield opened


def spawn(work: Callable[..., None], *arguments: Any) -> Any:
    """Another process, without a copy of this one's threads and open files."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["histoclick.store", "psycopg"])  # once, not a hundred times
    process = context.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def run(work: Callable[..., None], *arguments: Any) -> None:
    process = spawn(work, *arguments)
    process.join(60)
    assert process.exitcode == 0


def test_events_come_back_as_they_were(store: Store, url: str) -> None:
    rows = [row(1), row(2, result=None), row(3, size=0), row(4, size=500_000)]
    for event in rows:
        store.append("slide", event)
    assert list(store.events("slide")) == rows
    assert list(store.events("slide", after=2)) == rows[2:]
    assert list(store.events("slide", after=4)) == []
    with Store.open(url, must_exist=True) as again:
        assert list(again.events("slide")) == rows


def test_pages_have_no_seams(store: Store) -> None:
    for seq in range(1, 2 * PAGE + 1):
        store.append("slide", row(seq, size=10))
    assert [event["seq"] for event in store.events("slide")] == list(range(1, 2 * PAGE + 1))


def test_who_reads_slowly_is_in_nobodys_way(store: Store) -> None:
    for seq in range(1, PAGE + 2):
        store.append("slide", row(seq, size=10))
    reader = store.events("slide")
    assert next(reader)["seq"] == 1
    store.append("slide", row(PAGE + 2))
    assert [event["seq"] for event in reader] == list(range(2, PAGE + 3))


def test_slides_are_remembered(store: Store, url: str) -> None:
    assert [slide["key"] for slide in store.slides()] == ["slide"]
    store.append("slide", row(1))
    add_slide(store, "b")
    moved = {"name": "b.svs", "path": "/elsewhere/b.svs", "width": 9, "height": 8, "mpp": None}
    store.slide("b", **moved)  # type: ignore[arg-type]
    with Store.open(url) as again:
        assert again.slides() == [
            moved | {"key": "b", "events": 0},
            {"key": "slide", "name": "slide.svs", "path": "/slides/slide.svs", "width": 9,
             "height": 8, "mpp": 0.25, "events": 1},
        ]  # fmt: skip


def test_what_is_taken_is_a_conflict_and_changes_nothing(store: Store) -> None:
    store.append("slide", row(1, "a"))
    store.append("slide", row(2, "b"))
    for taken in (row(2, "c"), row(1, "c"), row(2, "b"), row(3, "a"), row(9, "a")):
        with pytest.raises(Conflict):
            store.append("slide", taken)
    assert list(store.events("slide")) == [row(1, "a"), row(2, "b")]
    add_slide(store, "other")
    store.append("other", row(1, "a"))  # another slide, another log
    assert len(list(store.events("slide"))) == 2


def test_no_gaps_and_no_unknown_slides(store: Store) -> None:
    with pytest.raises(ValueError, match="cannot follow event 0"):
        store.append("slide", row(2))
    with pytest.raises(ValueError, match="add it first"):
        store.append("nowhere", row(1))
    assert list(store.events("slide")) == []
    assert list(store.events("nowhere")) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"seq": 0}, {"seq": True}, {"seq": 1.0}, {"id": 7}, {"id": "a\0b"}, {"user": "\ud800"},
        {"time": math.nan}, {"time": math.inf}, {"time": "now"}, {"facts": {"quality": math.nan}},
        {"action": None}, {"action": "click"}, {"result": "text"},
    ],
)  # fmt: skip
def test_what_would_not_come_back_as_it_was_is_refused(file: Path, wrong: dict[str, Any]) -> None:
    with Store.open(str(file)) as store:
        add_slide(store)
        with pytest.raises(ValueError, match=r"event|JSON"):
            store.append("slide", row(1) | wrong)
        with pytest.raises(ValueError, match="an event has"):
            store.append("slide", {key: value for key, value in row(1).items() if key != "user"})
        store.append("slide", row(1))
        assert list(store.events("slide")) == [row(1)]


values = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.fixed_dictionaries(
        {"client": names, "user": names, "time": st.floats(allow_nan=False, allow_infinity=False),
         "action": st.dictionaries(st.text(), values), "facts": st.dictionaries(st.text(), values),
         "result": st.none() | st.binary()}
    )
)  # fmt: skip
def test_any_event_comes_back_as_it_was(store: Store, about: dict[str, Any]) -> None:
    seq = 1 + sum(1 for _ in store.events("slide"))
    event = row(seq, uuid.uuid4().hex) | about
    store.append("slide", event)
    assert list(store.events("slide", seq - 1)) == [event]


@forks
def test_kill_9_a_hundred_times(url: str, tmp_path: Path) -> None:
    """Whatever was acknowledged is there, whole, in order; at most one event more, also whole."""
    acks, waits, seen = tmp_path / "acks", random.Random(), 0
    acks.touch()
    for _ in range(100):
        process = spawn(storewriters.write_until_killed, url, str(acks))
        if waits.random() < 0.8:  # else it dies while it opens the store
            before, until = acks.stat().st_size, time.monotonic() + 30
            while acks.stat().st_size == before and time.monotonic() < until:
                time.sleep(0.001)
        time.sleep(waits.uniform(0, 0.04))
        process.kill()
        process.join()
        assert process.exitcode == -9
        acknowledged = [int(line) for line in acks.read_text().split()]
        with Store.open(url) as store:
            fresh = list(store.events("slide", seen))
            assert all(whole(event) for event in fresh)
            seen += len(fresh)
            assert acknowledged == sorted(set(acknowledged))
            assert set(acknowledged) <= set(range(1, seen + 1))
    with Store.open(url) as store:
        events = list(store.events("slide"))
    assert len(events) == seen > 100
    assert [event["seq"] for event in events] == list(range(1, seen + 1))
    assert [event["id"] for event in events] == [f"event-{i}" for i in range(1, seen + 1)]
    assert seen - len(acknowledged) <= 100  # committed, and killed before it could say so
    if "://" not in url:
        with closing(sqlite3.connect(url)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@forks
def test_processes_beside_each_other(url: str) -> None:
    """Four at once, who also make the store at once: nothing lost, nothing twice, all in order."""
    names, each = ("a", "b", "c", "d"), 40
    crowd = [spawn(storewriters.write_beside_others, url, name, each) for name in names]
    for process in crowd:
        process.join(120)
        assert process.exitcode == 0
    with Store.open(url) as store:
        events = list(store.events("slide"))
    assert [event["seq"] for event in events] == list(range(1, len(names) * each + 1))
    for name in names:
        mine = [event["id"] for event in events if event["client"] == name]
        assert mine == [f"{name}-{i}" for i in range(each)]
    assert all(whole(event) for event in events)


def test_threads_beside_each_other(store: Store) -> None:
    add_slide(store, "shared")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            mine = f"of {number}"
            add_slide(store, mine)
            for i in range(1, 21):
                store.append(mine, row(i))
                while True:
                    seq = 1 + sum(1 for _ in store.events("shared"))
                    try:
                        store.append("shared", row(seq, f"{number}-{i}"))
                        break
                    except Conflict:
                        continue
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    ids = [event["id"] for event in store.events("shared")]
    assert sorted(ids) == sorted(f"{number}-{i}" for number in range(6) for i in range(1, 21))
    assert [slide["events"] for slide in store.slides() if slide["key"] != "slide"] == [20] * 6 + [
        120
    ]


@forks
def test_a_full_disk_is_one_sentence_and_loses_nothing(file: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    run(storewriters.fill_disk, str(file), 400_000, str(told))
    stored, readable, message = told.read_text().split(" ", 2)
    assert int(stored) > 5
    assert readable == stored
    assert message.startswith(f"{file}: the last action was not stored, the disk ")
    with Store.open(str(file)) as store:
        events = list(store.events("slide"))
        assert len(events) == int(stored) + 1
        assert all(whole(event) for event in events)


def test_sqlites_word_for_a_full_disk(file: Path) -> None:
    with Store.open(str(file)) as store:
        add_slide(store)
        with store._engine.connect() as connection:  # the pool's only one, used again below
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 5}")
        seq = 1
        with contextlib.suppress(HistoclickError):
            while seq < 100:
                store.append("slide", row(seq))
                seq += 1
        with pytest.raises(HistoclickError, match="not stored, the disk is full; free some space"):
            store.append("slide", row(seq))
        assert all(whole(event) for event in store.events("slide"))
        assert len(list(store.events("slide"))) == seq - 1 > 0


@forks
@pytest.mark.parametrize("what", ["file", "folder", "everything"])
def test_without_rights(what: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, told = folder / "stores" / "store.sqlite", folder / "told"
        folder.chmod(0o777)
        path.parent.mkdir()
        with Store.open(str(path)) as store:
            add_slide(store)
            store.append("slide", row(1))
        before = path.read_bytes()
        path.chmod({"file": 0o444, "folder": 0o666, "everything": 0o000}[what])
        path.parent.chmod({"file": 0o777, "folder": 0o555, "everything": 0o555}[what])
        run(storewriters.without_rights, str(path), str(told))
        path.parent.chmod(0o777)
        message = told.read_text()
        assert message.startswith(f"{path}: ")
        assert "check" in message
        assert "\n" not in message
        assert path.read_bytes() == before
        path.chmod(0o666)
        with Store.open(str(path)) as store:
            assert list(store.events("slide")) == [row(1)]


def test_a_locked_file_is_told_after_a_while(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    with Store.open(str(file)) as store:
        add_slide(store)
        store.append("slide", row(1))
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(
                HistoclickError, match="not stored, another program keeps it locked"
            ):
                store.append("slide", row(2))
            assert list(store.events("slide")) == [row(1)]  # reading goes on
            with pytest.raises(HistoclickError, match="cannot be opened, another program keeps it"):
                Store.open(str(file))
            other.execute("COMMIT")
        store.append("slide", row(2))


def test_who_waits_gets_in(file: Path) -> None:
    with Store.open(str(file)) as store:
        add_slide(store)
        other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.execute, ["COMMIT"]).start()
        store.append("slide", row(1))
        other.close()


def test_commits_are_forced_to_disk(file: Path) -> None:
    with Store.open(str(file)) as store, store._engine.connect() as connection:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value


def foreign(path: Path, *statements: str) -> bytes:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path.read_bytes()


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (["CREATE TABLE events (a)"], "is the database of another program"),
        (["PRAGMA application_id = 7", "CREATE TABLE a (a)"], "is the database of another program"),
        (["PRAGMA journal_mode = WAL", "CREATE TABLE a (a)"], "is the database of another program"),
        (
            [f"PRAGMA application_id = {sqlite.APPLICATION_ID}", "PRAGMA user_version = 99"],
            r"made by a newer histoclick \(version 99 of a store, this one knows 1\); update",
        ),
    ],
)
def test_a_database_that_is_not_ours_is_not_touched(
    file: Path, statements: list[str], told: str
) -> None:
    content = foreign(file, *statements)
    with pytest.raises(HistoclickError, match=told):
        Store.open(str(file))
    assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("content", [b"x", b"SQLite format 3\0", b"<html>" * 500, b"\0" * 4096])
def test_a_file_that_is_no_database_is_not_touched(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(HistoclickError, match="is no store of histoclick; choose another file"):
        Store.open(str(file))
    assert file.read_bytes() == content


def test_places_where_no_store_is(file: Path) -> None:
    with pytest.raises(HistoclickError, match="there is no such store; check the path"):
        Store.open(str(file), must_exist=True)
    assert not file.exists()
    with pytest.raises(HistoclickError, match="there is no such folder"):
        Store.open(str(file.parent / "missing" / "store.sqlite"))
    with pytest.raises(HistoclickError, match="cannot be opened as a store"):
        Store.open(str(file.parent))
    for address in ("http://a/b", "sqlite://", "sqlite:///:memory:", "mysql://a/b", "://", "a://["):
        with pytest.raises(HistoclickError, match="store"):
            Store.open(address)


def test_a_damaged_store_is_told(file: Path) -> None:
    with Store.open(str(file)) as store:
        add_slide(store)
        for seq in range(1, 40):
            store.append("slide", row(seq))
    content = bytearray(file.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    file.write_bytes(content)
    with pytest.raises(HistoclickError, match="damaged") as told, Store.open(str(file)) as store:
        list(store.events("slide"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM events WHERE seq = 2", "UPDATE events SET action = '{' WHERE seq = 2"],
)
def test_events_that_somebody_spoilt_are_told(file: Path, change: str) -> None:
    with Store.open(str(file)) as store:
        add_slide(store)
        for seq in (1, 2, 3):
            store.append("slide", row(seq))
        foreign(file, change)
        with pytest.raises(HistoclickError, match=r"missing|damaged"):
            list(store.events("slide"))


def test_a_network_drive_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = f"/dev/vda / ext4 rw 0 0\nserver:/home {file.parent} nfs4 rw 0 0\n"
    monkeypatch.setattr(sqlite, "_MOUNTS", file.parent / "mounts")
    (file.parent / "mounts").write_text(mounts)
    with pytest.raises(HistoclickError, match=r"network drive \(nfs4\).*postgresql"):
        Store.open(str(file))
    assert not file.exists()
    (file.parent / "mounts").write_text(mounts.replace("nfs4", "xfs"))
    Store.open(str(file)).close()


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(HistoclickError, match="cannot be opened, there is no connection") as told:
        Store.open("postgresql://ada:secret@127.0.0.1:1/none")
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_lost_connection_is_told_as_what_it_is(store: Store, url: str) -> None:
    """A commit whose answer was lost may have happened: who repeats it is told the truth."""
    if "://" not in url:
        pytest.skip("of PostgreSQL")
    store.append("slide", row(1))
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        def cut(*_: Any) -> None:
            connection.exec_driver_sql(query)

        sa.event.listen(store._engine, "commit", cut)
        with pytest.raises(HistoclickError, match="it is not known whether the last action was"):
            store.append("slide", row(2))
        sa.event.remove(store._engine, "commit", cut)
    engine.dispose()
    with contextlib.suppress(Conflict):
        store.append("slide", row(2))
    assert list(store.events("slide")) == [row(1), row(2)]


def test_servers_databases_that_are_not_ours(store: Store, url: str) -> None:
    if "://" not in url:
        pytest.skip("of PostgreSQL")
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(postgresql.MARK.update().values(version=99))
    with pytest.raises(HistoclickError, match="made by a newer histoclick"):
        Store.open(url)
    with engine.begin() as connection:
        connection.execute(postgresql.MARK.update().values(version=1))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE histoclick_store")
    with pytest.raises(HistoclickError, match="is the database of another program"):
        Store.open(url)
    engine.dispose()


@pytest.mark.parametrize("gone", ["moved", "deleted", "replaced"])
def test_nothing_is_written_to_a_file_that_nobody_finds_again(file: Path, gone: str) -> None:
    with closing(Store.open(str(file))) as store:
        add_slide(store)
        store.append("slide", row(1))
        if gone == "deleted":
            file.unlink()
        else:
            file.rename(file.with_name("elsewhere"))
        if gone == "replaced":
            file.write_bytes(file.with_name("elsewhere").read_bytes())
        with pytest.raises(Unavailable, match="moved or deleted while it was in use") as told:
            store.append("slide", row(2))
        assert str(file) not in told.value.sentence
        if gone == "moved":
            file.with_name("elsewhere").rename(file)
            store.append("slide", row(2))
