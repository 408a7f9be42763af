"""The store's contract, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from slotway.activations import (
    Claim,
    Finish,
    Outcome,
    Policy,
    State,
    Status,
    Store,
    StoreUnavailableError,
    Submission,
    Want,
)
from slotway.activations.database import Database
from slotway.activations.schema import metadata
from slotway.errors import SlotwayError

from .postgres import PostgresServer

NOW = 1_000_000
LEASE = 5_000
AGE = Policy().age_max_ms


def submissions(count: int, action: str = "ns/act", first: int = 0) -> list[Submission]:
    names = (f"{action}-{number:06}".replace("/", "-") for number in range(first, first + count))
    return [Submission(name, action, b'{"n": 1}') for name in names]


def outcome(text: bytes = b'{"ok": true}') -> Outcome:
    return Outcome(Status.SUCCESS, text, NOW + 5, 1_500, "r1", "c1")


def claim(store: Store, count: int = 1, now_ms: int = NOW, action: str = "ns/act") -> list[Claim]:
    return store.claim([Want(action, count, LEASE)], now_ms)


def state_of(store: Store, id: str) -> State:
    found = store.get(id)
    assert found is not None
    return found.state


@pytest.fixture
def other(store: Store, store_url: str) -> Iterator[Store]:
    """The same store, opened once more, as another Router does."""
    opened = Store(store_url)
    yield opened
    opened.close()


def test_from_submit_to_the_recorded_result(store: Store) -> None:
    assert store.submit([Submission("a1", "ns/act", b'{"x": 1}')], NOW) == ["a1"]
    (one,) = claim(store)
    assert (one.id, one.action, one.payload, one.attempt) == ("a1", "ns/act", b'{"x": 1}', 1)
    assert one.submitted_at_ms == NOW
    assert store.finish([Finish("a1", one.token, outcome())], NOW + 9) == [State.DONE]
    found = store.get("a1")
    assert found is not None
    assert (found.state, found.outcome, found.finished_at_ms) == (State.DONE, outcome(), NOW + 9)
    assert found.payload == b'{"x": 1}'
    assert store.get("a2") is None


def test_a_late_finish_changes_nothing(store: Store) -> None:
    store.submit(submissions(1), NOW)
    (first,) = claim(store)
    assert store.lapse(NOW + LEASE) == 1
    later = NOW + LEASE + 1_000
    (second,) = claim(store, now_ms=later)
    assert (second.id, second.attempt) == (first.id, 2)
    before = store.get(first.id)
    late = [Finish(first.id, first.token, outcome(b'{"late": 1}'))]
    assert store.finish(late, later) == [None]
    assert store.finish([Finish(first.id, first.token, "late too")], later) == [None]
    assert store.get(first.id) == before
    assert store.finish([Finish(second.id, second.token, outcome())], later) == [State.DONE]
    done = store.get(first.id)
    for token in (first.token, second.token):
        assert store.finish([Finish(first.id, token, outcome(b"{}"))], later + 1) == [None]
        assert store.finish([Finish(first.id, token, "no")], later + 1) == [None]
    assert store.get(first.id) == done
    assert store.finish([Finish("nobody", 1, outcome())], later) == [None]


def test_what_fails_is_tried_again_later_and_then_is_a_dead_letter(store: Store) -> None:
    store.submit(submissions(1), NOW)
    now = NOW
    for attempt, wait in enumerate((1_000, 2_000, 4_000, 8_000), 1):
        (one,) = claim(store, now_ms=now)
        assert one.attempt == attempt
        assert store.finish([Finish(one.id, one.token, "lost")], now) == [State.QUEUED]
        assert claim(store, now_ms=now + wait - 1) == []
        now += wait
    (one,) = claim(store, now_ms=now)
    assert store.finish([Finish(one.id, one.token, "lost")], now) == [State.DEAD]
    assert claim(store, now_ms=now + AGE // 2) == []
    (dead,) = store.dead()
    assert (dead.id, dead.attempts, dead.reason) == (one.id, 5, "lost (attempt 5 of 5)")
    assert store.redrive(now, action="ns/other") == []
    assert store.redrive(now, ids=["nobody"]) == []
    assert store.redrive(now, ids=[one.id]) == [one.id]
    assert store.redrive(now) == []
    (again,) = claim(store, now_ms=now)
    assert (again.id, again.attempt) == (one.id, 1)


def test_dead_letters_are_listed_and_redriven_in_pages(store: Store) -> None:
    store.submit(submissions(7), NOW)
    assert store.lapse(NOW + AGE, limit=5) == 5
    assert store.lapse(NOW + AGE, limit=5) == 2
    first = store.dead(limit=4)
    rest = store.dead(after=first[-1].id)
    assert [one.id for one in first + rest] == [one.id for one in submissions(7)]
    assert "maximum age" in first[0].reason
    assert store.dead_count() == 7
    assert len(store.redrive(NOW, limit=4)) == 4
    assert store.dead_count() == 3
    assert [one.id for one in store.dead()] == [one.id for one in rest]


def test_a_key_names_one_activation(store: Store, other: Store) -> None:
    def ask(store: Store, id: str, key: str | None, action: str = "ns/act", now: int = NOW) -> str:
        return store.submit([Submission(id, action, b"{}", key)], now)[0]

    assert ask(store, "a1", "k") == "a1"
    assert ask(other, "a2", "k") == "a1"
    assert ask(store, "a3", "k", action="ns/other") == "a3"
    assert ask(store, "a4", "l") == "a4"
    twice = [Submission(id, "ns/act", b"{}", "m") for id in ("a5", "a6")]
    both = [*twice, Submission("a7", "ns/act", b"{}"), Submission("a8", "ns/act", b"{}", "k")]
    assert store.submit(both, NOW) == ["a5", "a5", "a7", "a1"]
    assert [store.get(id) for id in ("a2", "a6", "a8")] == [None, None, None]
    day = 86_400_000
    for one in claim(store, 10):
        store.finish([Finish(one.id, one.token, outcome())], NOW)
    store.purge(NOW + day - 1, 0, 0)
    assert ask(store, "b1", "k", now=NOW + day - 1) == "a1"
    store.purge(NOW + day, 0, 0)
    assert ask(store, "b2", "k", now=NOW + day) == "b2"


def test_a_key_that_many_use_at_once(store: Store, other: Store) -> None:
    barrier = threading.Barrier(8)
    told: list[str] = []

    def submit(number: int) -> None:
        opened = (store, other)[number % 2]
        barrier.wait(10)
        keys = [f"k{(number + turn) % 8}" for turn in range(8)]
        batch = [Submission(f"{key}-{number}", "ns/act", b"{}", key) for key in keys]
        told.extend(opened.submit(batch, NOW))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(told) == 64
    assert sorted(set(told)) == sorted(one.id for one in store.newest("ns"))
    assert len(set(told)) == 8


def test_a_batch_is_queued_as_a_whole_or_not_at_all(store: Store) -> None:
    store.submit([Submission("a2", "ns/act", b"{}")], NOW)
    with pytest.raises(StoreUnavailableError):
        store.submit([Submission(id, "ns/act", b"{}", id) for id in ("a1", "a2", "a3")], NOW)
    assert [one.id for one in store.newest("ns")] == ["a2"]
    assert store.submit([Submission("a4", "ns/act", b"{}", "a1")], NOW) == ["a4"]


def test_no_two_claim_the_same(store: Store, other: Store) -> None:
    store.submit(submissions(200), NOW)
    barrier = threading.Barrier(4)
    claimed: list[str] = []

    def work(store: Store) -> None:
        barrier.wait(10)
        while claims := claim(store, 7):
            claimed.extend(one.id for one in claims)

    threads = [threading.Thread(target=work, args=(one,)) for one in (store, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(claimed) == [one.id for one in submissions(200)]


def test_claims_are_in_order_and_of_the_wanted_actions_alone(store: Store) -> None:
    store.submit(submissions(3), NOW + 1)
    store.submit(submissions(3, first=3), NOW)
    store.submit(submissions(1_000, "flood/act"), NOW - 1)
    wants = [Want("ns/act", 4, LEASE), Want("ns/none", 4, LEASE), Want("flood/act", 2, LEASE)]
    ids = [one.id for one in store.claim(wants, NOW + 1)]
    assert ids[:4] == [f"ns-act-{number:06}" for number in (3, 4, 5, 0)]
    assert ids[4:] == ["flood-act-000000", "flood-act-000001"]


def test_what_waits_is_told_by_action(store: Store) -> None:
    assert store.waiting(NOW, 10) == []
    store.submit(submissions(3, "b/two"), NOW)
    store.submit(submissions(20, "a/one"), NOW + 5)
    store.submit(submissions(2, "b/two", first=3), NOW + 5)
    told = [(one.action, one.count, one.due_at_ms) for one in store.waiting(NOW + 5, 10)]
    assert told == [("a/one", 10, NOW + 5), ("b/two", 5, NOW)]
    assert [(one.action, one.count) for one in store.waiting(NOW, 10)] == [("b/two", 3)]
    claim(store, 5, NOW + 5, "b/two")
    assert [one.action for one in store.waiting(NOW + 5, 10)] == ["a/one"]


def test_a_namespace_is_listed_newest_first(store: Store) -> None:
    store.submit(submissions(5), NOW)
    store.submit(submissions(2, "ns/b"), NOW)
    store.submit(submissions(2, "ns2/act"), NOW)
    claims = claim(store, 2)
    store.finish([Finish(one.id, one.token, outcome()) for one in claims], NOW)
    names = [one.id for one in store.newest("ns")]
    assert len(names) == 7
    assert names == sorted(names, reverse=True)
    assert [one.id for one in store.newest("ns", limit=3)] == names[:3]
    assert [one.id for one in store.newest("ns", before=names[2])] == names[3:]
    assert [one.action for one in store.newest("ns", action="ns/b")] == ["ns/b"] * 2
    assert len(store.newest("ns", state=State.DONE)) == 2
    assert len(store.newest("ns", state=State.QUEUED)) == 5


def test_records_are_kept_by_age_and_count(store: Store) -> None:
    store.submit(submissions(8), NOW)
    for number, one in enumerate(claim(store, 6)):
        store.finish([Finish(one.id, one.token, outcome())], NOW + number)
    assert store.purge(NOW + 100, age_ms=1_000, count_max=100) == 0
    assert store.purge(NOW + 100, age_ms=99, count_max=100) == 2
    assert store.purge(NOW + 100, age_ms=1_000, count_max=3, limit=1) == 1
    assert store.purge(NOW + 100, age_ms=1_000, count_max=2) == 1
    left = {one.id for one in store.newest("ns")}
    assert left == {f"ns-act-{number:06}" for number in (4, 5, 6, 7)}  # 6 and 7 are not done
    assert store.purge(NOW + 100, age_ms=0, count_max=0) == 2


def test_a_bell_rings_for_what_others_queue(store: Store, other: Store) -> None:
    with closing(store.bell()) as bell:
        assert not bell.wait(0)
        other.submit(submissions(1), NOW)
        assert bell.wait(10)
        rung = threading.Event()
        waiter = threading.Thread(target=lambda: rung.set() if bell.wait(30) else None)
        waiter.start()
        other.lapse(NOW + AGE)
        other.redrive(NOW)
        assert rung.wait(10)
        waiter.join(10)


def test_the_migrations_make_the_tables_that_the_code_uses(store: Store, store_url: str) -> None:
    database = Database(store_url)
    with database.reads() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.close()


def test_many_may_open_a_new_store_at_once(store_url: str) -> None:
    opened: list[Store] = []
    barrier = threading.Barrier(4)

    def enter() -> None:
        barrier.wait(10)
        opened.append(Store(store_url))

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(opened) == 4
    for store in opened:
        store.close()


def test_a_new_file_that_another_process_prepares_is_waited_for(tmp_path: Path) -> None:
    path, opened = tmp_path / "activations.db", threading.Event()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE prepared (id)")

    def enter() -> None:
        Store(f"sqlite:///{path}").close()
        opened.set()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(0.3)  # it used to fail at once
    assert thread.is_alive()
    assert not opened.is_set()
    other.execute("COMMIT")
    other.close()
    thread.join(30)
    assert opened.is_set()


def test_a_store_of_a_newer_version_is_refused(store: Store, store_url: str) -> None:
    database = Database(store_url)
    with database.writes() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(SlotwayError, match="newer Slotway"):
        Store(store_url)


@pytest.mark.parametrize(
    "url", ["", "sqlite://", "sqlite:///:memory:", "mysql://localhost/x", "activations.db"]
)
def test_a_bad_url_is_refused_with_what_it_should_be(url: str) -> None:
    with pytest.raises(SlotwayError, match="sqlite:////absolute"):
        Store(url)


def test_a_place_that_cannot_be_reached_is_told() -> None:
    with pytest.raises(SlotwayError, match="/nowhere/activations"):
        Store("sqlite:////nowhere/activations.db")
    with pytest.raises(StoreUnavailableError, match="nowhere"):
        Store("postgresql://slotway@/postgres?host=/nowhere")


@pytest.mark.parametrize("setting", ["synchronous_commit=off", "synchronous_commit=local"])
def test_a_postgresql_that_does_not_keep_commits_is_refused(
    postgres: PostgresServer, setting: str
) -> None:
    name, _, value = setting.partition("=")
    role = f"{name}_{value}"
    postgres.psql(f"CREATE ROLE {role} LOGIN; ALTER ROLE {role} SET {name} = {value}")
    with pytest.raises(SlotwayError, match=f"{name} = {value}"):
        Store(postgres.url(role))


def test_a_file_that_is_no_database_is_told(store: Store, store_url: str) -> None:
    if not store_url.startswith("sqlite"):
        pytest.skip("a file is SQLite's")
    path = store_url.removeprefix("sqlite:///") + ".txt"
    with open(path, "w", encoding="utf-8") as file:
        file.write("this is not a database" * 100)
    with pytest.raises(StoreUnavailableError, match="not a database"):
        Store(f"sqlite:///{path}")
    assert sqlite3.sqlite_version_info >= (3, 35)
