"""The store against a model of it: random calls by the same seeds each time, all compared."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from slotway.activations import (
    Finish,
    Outcome,
    Policy,
    State,
    Status,
    Store,
    Submission,
    Want,
)
from slotway.activations.database import Database

POLICY = Policy(
    attempts_max=3, back_off_ms=100, back_off_max_ms=150, age_max_ms=1_000, key_kept_ms=1_500
)
LEASE = 300
ACTIONS = ("a/x", "a/y", "b/x")


@dataclass
class Entry:
    """What the model holds of an activation."""

    id: str
    action: str
    state: State = State.QUEUED
    attempts: int = 0
    token: int | None = None
    due: int = 0
    expires: int = 0
    lease: int = 0
    ended: int = 0
    result: bytes | None = None

    def again(self, now: int) -> None:
        """An attempt without an outcome is over."""
        due = now + {1: 100}.get(self.attempts, 150)
        is_over = self.attempts == 3 or due >= self.expires
        self.state, self.token = State.DEAD if is_over else State.QUEUED, None
        self.due = self.due if is_over else due


class Comparison(RuleBasedStateMachine):
    """Does the same to the store and to the model."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000
        self.entries: dict[str, Entry] = {}
        self.keys: dict[tuple[str, str], tuple[str, int]] = {}
        self.attempts: list[tuple[str, int]] = []
        self.next = 0

    @rule(
        asked=st.lists(
            st.tuples(st.sampled_from(ACTIONS), st.sampled_from([None, "k", "l"])),
            min_size=1,
            max_size=4,
        )
    )
    def submit(self, asked: list[tuple[str, str | None]]) -> None:
        batch, expected = [], []
        for action, key in asked:
            self.next += 1
            one = Submission(f"{self.next:05}", action, b"{}", key)
            batch.append(one)
            id = one.id
            if key is not None:
                id, _ = self.keys.setdefault((action, key), (one.id, self.now + 1_500))
            if id == one.id:
                self.entries[id] = Entry(id, action, due=self.now, expires=self.now + 1_000)
            expected.append(id)
        assert self.store.submit(batch, self.now) == expected

    @rule(counts=st.tuples(*[st.integers(0, 3)] * 3))
    def claim(self, counts: tuple[int, ...]) -> None:
        wants = [Want(action, n, LEASE) for action, n in zip(ACTIONS, counts, strict=True) if n]
        expected = []
        for want in wants:
            due = [
                entry
                for entry in self.entries.values()
                if entry.action == want.action
                and entry.state is State.QUEUED
                and entry.due <= self.now < entry.expires
            ]
            expected += sorted(due, key=lambda entry: (entry.due, entry.id))[: want.count]
        claims = self.store.claim(wants, self.now)
        assert [(one.id, one.attempt) for one in claims] == [
            (entry.id, entry.attempts + 1) for entry in expected
        ]
        for entry, claim in zip(expected, claims, strict=True):
            entry.state, entry.token, entry.attempts = State.CLAIMED, claim.token, claim.attempt
            entry.lease = self.now + LEASE
            self.attempts.append((claim.id, claim.token))

    @rule(data=st.data(), succeeds=st.booleans(), is_foreign=st.sampled_from([False] * 5 + [True]))
    def finish(self, data: st.DataObject, succeeds: bool, is_foreign: bool) -> None:
        if not self.attempts:
            return
        chosen = dict(data.draw(st.lists(st.sampled_from(self.attempts), min_size=1, max_size=3)))
        batch: list[Finish] = []
        expected: list[State | None] = []
        for id, token in chosen.items():
            result = b'{"n": %d}' % len(self.attempts)
            outcome = Outcome(Status.SUCCESS, result, self.now, 1, "r", "c")
            batch.append(Finish(id, token + is_foreign, outcome if succeeds else "failed"))
            entry = self.entries.get(id)
            if is_foreign or entry is None or entry.token != token:
                expected.append(None)
                continue
            if succeeds:
                entry.state, entry.token, entry.result = State.DONE, None, result
                entry.ended = self.now
            else:
                entry.again(self.now)
            expected.append(entry.state)
        assert self.store.finish(batch, self.now) == expected

    @rule(ms=st.sampled_from([1, 99, 100, 150, 300, 699]))
    def wait(self, ms: int) -> None:
        self.now += ms

    @rule()
    def lapse(self) -> None:
        count = 0
        for entry in self.entries.values():
            if entry.state is State.QUEUED and entry.expires <= self.now:
                entry.state, count = State.DEAD, count + 1
            elif entry.state is State.CLAIMED and entry.lease <= self.now:
                entry.again(self.now)
                count += 1
        assert self.store.lapse(self.now) == count

    @rule(action=st.sampled_from([None, *ACTIONS]))
    def redrive(self, action: str | None) -> None:
        expected = []
        for entry in self.entries.values():
            if entry.state is State.DEAD and action in (None, entry.action):
                entry.state, entry.attempts = State.QUEUED, 0
                entry.due, entry.expires = self.now, self.now + 1_000
                expected.append(entry.id)
        assert sorted(self.store.redrive(self.now, action=action)) == expected

    @rule(age=st.sampled_from([0, 200]))
    def purge(self, age: int) -> None:
        old = [
            entry.id
            for entry in self.entries.values()
            if entry.state is State.DONE and entry.ended <= self.now - age
        ]
        for id in old:
            del self.entries[id]
        self.keys = {pair: kept for pair, kept in self.keys.items() if kept[1] > self.now}
        assert self.store.purge(self.now, age, count_max=1_000) == len(old)

    @invariant()
    def all_is_equal(self) -> None:
        found = [one for space in ("a", "b") for one in self.store.newest(space, limit=1_000)]
        assert {
            one.id: (one.state, one.attempts, one.outcome and one.outcome.result) for one in found
        } == {
            entry.id: (entry.state, entry.attempts, entry.result) for entry in self.entries.values()
        }
        due = [
            entry.action
            for entry in self.entries.values()
            if entry.state is State.QUEUED and entry.due <= self.now
        ]
        told = {one.action: one.count for one in self.store.waiting(self.now, 1_000)}
        assert told == {action: due.count(action) for action in set(due)}
        dead = [one.id for one in self.store.dead()]
        assert dead == [one.id for one in self.entries.values() if one.state is State.DEAD]


@pytest.mark.slow
def test_the_store_does_what_the_model_does(store_url: str) -> None:
    store = Store(store_url, POLICY)
    database = Database(store_url)

    class OnEmpty(Comparison):
        def __init__(self) -> None:
            super().__init__()
            self.store = store
            with database.writes() as connection:
                connection.execute(text("DELETE FROM activation"))
                connection.execute(text("DELETE FROM idempotency"))

    run_state_machine_as_test(
        OnEmpty,
        settings=settings(
            max_examples=100 if store_url.startswith("sqlite") else 30,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    store.close()
    database.close()
