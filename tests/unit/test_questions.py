"""How often Routers are asked what idles there: two that wait for one another's slots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from slotway._slotcore import Ledger
from slotway.drivers.fake import FakeDriver
from slotway.manager.action import Action
from slotway.manager.books import Books
from slotway.manager.container import Container
from slotway.manager.inbox import Inbox
from slotway.manager.messages import ASK_S_MIN, Messages
from slotway.manager.policy import Policy
from slotway.manager.routers import Router, Routers
from slotway.manager.sessions import Session
from slotway.records import Keys
from slotway.v1 import ledger_pb2
from slotway.v1 import manager_pb2 as pb

TERM = (1, 10)
STEP_S = 0.0005
"""From a question to its answer, and between two turns."""
ACTIONS = {"r0": "demo/a", "r1": "demo/b"}
"""What each Router waits for, and the other one runs; the cluster has room for no more."""


class Leader:
    """A leader's turns, on a clock of its own, without commits: nothing here changes the ledger."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        ledger, routers = Ledger(), Routers(Inbox(), 60.0, lambda: self.now)
        policy = Policy(containers_max=2, residence_s=3600.0)
        driver = FakeDriver("test", folder)
        self.books = Books(ledger, routers, driver, Keys("test"), TERM, policy, lambda: self.now)
        self.messages = Messages("m0", self.books)
        self.asked: dict[str, list[float]] = {name: [] for name in ACTIONS}
        sessions = []
        for name in ACTIONS:
            opening = pb.Open(router=name, incarnation=name, address="127.0.0.1:1", stream=1)
            sessions.append(Session(opening))
            routers.open(sessions[-1], has_shares=False)
            ledger.attach(name, 1)
        shares = {name: {other: 1} for name, other in zip(ACTIONS, reversed(ACTIONS), strict=True)}
        ledger.lead(TERM, 0, [(name, 1, shares[name]) for name in ACTIONS])
        for name, action in ACTIONS.items():
            self._serve(name, action)
        for name, other in zip(ACTIONS, reversed(ACTIONS), strict=True):
            ledger.hello(name, 1, TERM, [(other, 1, 1)])
            self.router(name).facts.hold([(other, 1)])

    def _serve(self, container: str, action: str) -> None:
        wanted = ledger_pb2.ActionRecord(
            name=action, revision=1, concurrency=1, memory_mib=256, kind="python:3"
        )
        self.books.actions[action] = Action(wanted, 1)
        record = ledger_pb2.ContainerRecord(
            id=container,
            action=action,
            revision=1,
            capacity=1,
            memory_mib=256,
            state=ledger_pb2.CONTAINER_STATE_READY,
        )
        self.books.enlist(Container(record, self.now))

    def router(self, name: str) -> Router:
        found = self.books.routers.get(name)
        assert found is not None
        return found

    def turn(self, said: dict[str, int]) -> set[str]:
        """Hears how many wait at these Routers; returns those that are asked."""
        self.now += STEP_S
        self.messages.turn += 1
        for name, waiting in said.items():
            router = self.router(name)
            router.facts.reported_at = self.now
            demand = [pb.ActionDemand(action=ACTIONS[name], waiting=waiting)]
            # It has heard the turn before.
            message = pb.AttachRequest(demand=demand, turn=self.messages.turn - 1)
            self.books.dirty |= router.facts.report(message, TERM, self.messages.turn)
            self.books.dirty.update(self.books.asked_at)
        self.books.wake()
        for action, decisions in self.books.plan().items():
            self.messages.tell(action, decisions)
        assert not self.books.ledger.staged
        asked = set()
        for name in ACTIONS:
            session = self.router(name).session
            assert session is not None
            if session.draft.ask_demand:
                asked.add(name)
                self.asked[name].append(self.now)
            session.flush(TERM, self.messages.turn)
            session.discard()
        return asked

    def turns(self, seconds: float, waiting: Callable[[], int]) -> None:
        """Whoever is asked answers with the next turn."""
        said = dict.fromkeys(ACTIONS, waiting())
        for _ in range(round(seconds / STEP_S)):
            said = {name: waiting() for name in self.turn(said)}


@pytest.fixture
async def leader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leader:
    leader = Leader(tmp_path)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: leader.now)
    return leader


async def test_an_answer_is_no_question_to_the_other(leader: Leader) -> None:
    leader.turns(0.5, lambda: 1)
    assert {name: len(times) for name, times in leader.asked.items()} == {"r0": 1, "r1": 1}


async def test_whose_demand_grows_is_asked_for_only_so_often(leader: Leader) -> None:
    counts = iter(range(1, 100_000))
    leader.turns(0.5, lambda: next(counts))
    for times in leader.asked.values():
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert len(pauses) > 10
        assert min(pauses) >= ASK_S_MIN
