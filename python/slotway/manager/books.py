"""The leader's view of one term: the ledger's shares, the containers, the actions, and the plan.

Everything here is memory: what is staged becomes true by the loop's commits. After a commit whose
outcome had to be settled the view is replaced by what etcd has; what was decided meanwhile is
decided anew, because every decision is made from states and never from the event that led to it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from slotway._slotcore import Ledger, LedgerError
from slotway.drivers.base import ContainerId, Driver, Label
from slotway.manager.action import Action
from slotway.manager.addresses import AddressCount
from slotway.manager.aging import age
from slotway.manager.cells import Cells
from slotway.manager.chain import Records, Term
from slotway.manager.container import Container
from slotway.manager.endings import Endings
from slotway.manager.plan import (
    Admission,
    Decisions,
    Outlook,
    Phase,
    Tempo,
    Wish,
    admit,
    plan_action,
)
from slotway.manager.policy import Policy
from slotway.manager.prewarm import give_cells, keep_cells
from slotway.manager.room import fits, inventory_of
from slotway.manager.routers import Router, Routers
from slotway.manager.views import view_of
from slotway.records import Keys
from slotway.v1 import ledger_pb2
from slotway.v1.ledger_pb2 import (
    CONTAINER_STATE_CREATING,
    CONTAINER_STATE_DESTROYING,
    CONTAINER_STATE_DRAINING,
    CONTAINER_STATE_INITIALISING,
    CONTAINER_STATE_PREWARMED,
    CONTAINER_STATE_READY,
)

log = structlog.get_logger(__name__)

IN_VAIN_S = 0.05
"""Wishes in vain are looked at again after this, or when a container's state changes."""
WHY_MAX = 300
"""Characters of an error that are recorded with a container."""


class Books:
    """See the module. One object per term; the ledger and the routers outlive it."""

    def __init__(
        self,
        ledger: Ledger,
        routers: Routers,
        driver: Driver,
        keys: Keys,
        term: Term,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        self.ledger, self.routers, self.term, self.policy = ledger, routers, term, policy
        self.containers: dict[str, Container] = {}
        self.actions: dict[str, Action] = {}
        self.dirty: set[str] = set()
        """Actions to be planned in this turn."""
        self.hungry: set[str] = set()
        """Actions that want more than they got: planned anew whenever something ends."""
        self.asked_at: dict[str, float] = {}
        """Per action: since when routers are being asked what idles there."""
        self.look_at = 0.0  # when all containers are looked at next
        self.revision = 0
        """Of the newest commit."""
        self._by_action: dict[str, set[str]] = {}
        self._wishes: dict[str, Wish] = {}
        """Of the hungry actions' newest plans: containers that could not be created yet."""
        self._in_vain: list[tuple[str, int]] | None = None
        """Wishes of which none could be granted, and nothing has changed since."""
        self._again = 0.0
        self.outlook: Outlook | None = None
        """In the middle of a plan: what the cluster had when it began."""
        self._wakes: dict[str, float] = {}
        self._driver, self._keys, self._clock = driver, keys, clock
        self.addresses = AddressCount(driver.numbered, keys)
        self.cells = Cells(policy.prewarm)
        self.endings = Endings()
        self.began_at = clock()
        self._tempo = Tempo(silent_grace_s=policy.silence_grace_s)

    # What etcd has.

    def adopt(
        self, records: Records, *, taken_over: bool = False
    ) -> list[tuple[str, int, dict[str, int]]]:
        """Replaces the view by what etcd has; returns (container, capacity, shares) for the ledger.

        What this leader's own tasks have found out meanwhile is kept. With `taken_over`, inits are
        given up: nobody knows how far another leader's came. Raises RecordError.
        """
        now, before = self._clock(), self.containers
        self.revision = records.revision
        self.containers, self._by_action, self._wishes = {}, {}, {}
        self.cells.clear()
        shares = []
        for item in records.containers:
            record = records.read(ledger_pb2.ContainerRecord, item)
            container = before.get(record.id) or Container(record, now)
            if container.record.state != record.state:
                container.since = now
            container.record, container.mod_revision = record, item.mod_revision
            if taken_over and record.state == CONTAINER_STATE_INITIALISING:
                container.failed = True
            self.enlist(container)
            shares.append((record.id, record.capacity, dict(record.shares)))
            if not record.shares:
                container.idle_since = container.idle_since or now
        actions = self.actions
        self.actions = {}
        for item in records.actions:
            known = records.read(ledger_pb2.ActionRecord, item)
            action = actions.get(known.name)
            if action is None or action.record.revision != known.revision:
                action = Action(known, item.mod_revision)
            action.record, action.mod_revision = known, item.mod_revision
            self.actions[known.name] = action
        self.addresses.adopt(records.addresses)
        self.dirty.update(self.actions, self._by_action)
        return shares

    def resume(self) -> None:
        """Stages what containers' states ask for after `adopt`, once the ledger has the records."""
        for container in list(self.containers.values()):
            if container.ended:
                self.ledger.remove(container.id)
            else:
                self.advance(container)

    def enlist(self, container: Container) -> None:
        """The container is there, or comes: an action's, or a stem cell."""
        self.containers[container.id] = container
        if container.is_cell:
            self.cells.add(container)
            return
        self._by_action.setdefault(container.record.action, set()).add(container.id)

    def forget(self, name: str) -> None:
        """The container's record is gone."""
        container = self.containers.pop(name, None)
        self.cells.discard(name)
        if container is not None:
            ids = self._by_action.get(container.record.action, set())
            ids.discard(name)
            if not ids:
                self._by_action.pop(container.record.action, None)
            self.touched(container)

    def touched(self, container: Container) -> None:
        """Something of the container changed: its action is planned in this turn, and so are those
        that wait for room."""
        if not container.is_cell:
            self.dirty.add(container.record.action)
        if container.is_cell or container.phase in (Phase.ENDING, Phase.DRAINING):
            self._in_vain = None
            self.dirty.update(self.hungry)

    def of(self, action: str) -> Iterable[Container]:
        """The action's containers."""
        return [self.containers[name] for name in sorted(self._by_action.get(action, ()))]

    # Containers' lives.

    def label(self, container: Container) -> Label:
        """What the container carries with it."""
        return Label(
            self._keys.cluster, self.term[0], ContainerId(container.id), container.record.term
        )

    def advance(self, container: Container) -> None:
        """Stages the state that follows from what the driver said."""
        now = self._clock()
        if container.ended:
            return
        if container.failed and container.phase is Phase.COMING:
            why = f": {container.why[:WHY_MAX]}" if container.why else ""
            reason = f"it did not come to serve{why}"
            self.enter(container, CONTAINER_STATE_DESTROYING, reason)
        elif container.done == container.state == CONTAINER_STATE_CREATING:
            cell = container.is_cell
            self.enter(
                container, CONTAINER_STATE_PREWARMED if cell else CONTAINER_STATE_INITIALISING
            )
        elif container.done == container.state == CONTAINER_STATE_INITIALISING:
            self.enter(container, CONTAINER_STATE_READY)
            container.unspread, container.idle_since = True, now

    def enter(
        self, container: Container, state: ledger_pb2.ContainerState.ValueType, reason: str = ""
    ) -> None:
        """Stages a change of state."""
        self._in_vain = None
        container.enter(state, self._clock(), reason)
        self.ledger.touch(container.id)
        self.touched(container)
        log.info(
            "container",
            id=container.id,
            action=container.record.action,
            state=ledger_pb2.ContainerState.Name(state).removeprefix("CONTAINER_STATE_").lower(),
            reason=reason or None,
        )

    def drain(self, container: Container, reason: str) -> None:
        """Ends a container when its routers have given their slots back; one that does not serve
        yet, and one that nobody holds, at once."""
        if container.state == CONTAINER_STATE_READY and self.ledger.staged_shares(container.id):
            self.enter(container, CONTAINER_STATE_DRAINING, reason)
        elif container.phase in (Phase.COMING, Phase.READY):
            self.enter(container, CONTAINER_STATE_DESTROYING, reason)

    def end(self, container: Container) -> list[str]:
        """The engine has proved the end. Stages the deletion; returns the routers to be told."""
        container.ended = True
        holders = list(self.ledger.shares(container.id))
        self.ledger.remove(container.id)
        for router in self.routers.by_id.values():
            router.facts.forget(container.id)
        self.touched(container)
        return holders

    def look(self) -> None:
        """What only time brings about: deadlines, keep-warm, overruns, silence."""
        now = self._clock()
        if now >= self.look_at:
            self.look_at = now + self.policy.look_s
            age(self, now)
            keep_cells(self, now)
        for router in self.routers.by_id.values():
            fresh = self.routers.fresh(router, now)
            if fresh != router.was_fresh:
                router.was_fresh = fresh
                self.changed(router)
        self.dirty.update(self.hungry)

    def changed(self, router: Router) -> None:
        """What is known of a router changed: everything that it has a part in is planned."""
        self.dirty.update(router.facts.waiting)
        self.dirty.update(self._by_action)

    def ordered(self, router: Router, containers: Iterable[str]) -> None:
        """The ledger orders by itself what a router holds: a lowering as if it were planned now."""
        for name in containers:
            if name in self.containers:
                self.containers[name].changed_at[router.id] = self._clock()

    def wake(self) -> float | None:
        """Marks the actions that wanted to be planned by now; returns when the next one does."""
        now = self._clock()
        due = [name for name, at in self._wakes.items() if at <= now]
        for name in due:
            del self._wakes[name]
        self.dirty.update(due)
        return min(self._wakes.values(), default=None)

    # The plan.

    def plan(self) -> dict[str, Decisions]:
        """Plans the dirty actions, stages what was decided, and returns it."""
        plans: dict[str, Decisions] = {}
        wishing, self.outlook = False, None
        names, self.dirty = sorted(self.dirty), set()
        for name in names:
            self.hungry.discard(name)
            self._wishes.pop(name, None)
            decisions = plan_action(view_of(self, name, self._clock()), self._tempo)
            plans[name] = decisions
            before = self.asked_at.pop(name, self._clock())
            if decisions.ask:
                self.asked_at[name] = before
            self._stage(name, decisions)
            action = self.actions.get(name)
            if action is not None and decisions.create:
                memory_mib, since = action.record.memory_mib, action.admitted_at
                self._wishes[name] = Wish(name, decisions.create, memory_mib, since)
                wishing = True
            if decisions.create or decisions.unmet or decisions.missing:
                self.hungry.add(name)
        if wishing:
            self._admit()
        return plans

    def wake_at(self, at: float, name: str) -> None:
        """Has the action planned at that time, whatever happens until then."""
        self._wakes[name] = min(at, self._wakes.get(name, at))

    def _stage(self, name: str, decisions: Decisions) -> None:
        now = self._clock()
        for order in decisions.grants:
            try:
                self.ledger.grant(order.container, order.router, order.target)
            except LedgerError:
                log.exception("the ledger refused a grant", order=order)
                continue
            container = self.containers[order.container]
            container.changed_at[order.router] = container.raised_at[order.router] = now
            container.idle_since = None
        for order in decisions.recalls:
            before = self.ledger.target(order.container, order.router)
            try:
                self.ledger.recall(order.container, order.router, order.target)
            except LedgerError:
                log.exception("the ledger refused a recall", order=order)
                continue
            container = self.containers[order.container]
            container.changed_at[order.router] = now
            if order.target > before:  # a lowering is undone
                container.raised_at[order.router] = now
        for container_id in decisions.spread:
            self.containers[container_id].unspread = False
        for container_id, reason in decisions.drains:
            self.drain(self.containers[container_id], reason)
        for container_id, reason in decisions.destroys:
            self.enter(self.containers[container_id], CONTAINER_STATE_DESTROYING, reason)
        if decisions.wake_at is not None:
            self.wake_at(decisions.wake_at, name)

    def _admit(self) -> None:
        now = self._clock()
        left = give_cells(self, list(self._wishes.values()), now)
        self._wishes = {wish.action: wish for wish in left}
        if self.addresses.left() == 0:
            return  # no eviction would help
        wishes = [(wish.action, wish.count) for wish in left]
        if fits(self, left):
            admission = Admission(create={wish.action: wish.count for wish in left})
        elif wishes == self._in_vain and now < self._again:
            return  # nothing has changed but the time
        else:
            admission = admit(inventory_of(self, now), left)
            vain = not (admission.create or admission.evict or admission.retire)
            self._in_vain, self._again = (wishes if vain else None), now + IN_VAIN_S
        for name in admission.evict:
            self.drain(self.containers[name], "another action needs its room")
        for name in admission.retire:
            self.drain(self.containers[name], "another action has less than its part")
        for name, count in admission.create.items():
            wish, action = self._wishes[name], self.actions[name]
            self._wishes[name] = replace(wish, count=wish.count - count)
            action.admitted_at = now
            for _ in range(count):
                if self.addresses.left() == 0:
                    return
                self._start(action.record)

    def _start(self, action: ledger_pb2.ActionRecord) -> None:
        self.cells.started(action, self._clock())
        self.create(
            ledger_pb2.ContainerRecord(
                action=action.name,
                revision=action.revision,
                capacity=action.concurrency,
                timeout_ms=action.timeout_ms,
                kind=action.kind,
                made_for=action.concurrency,
                memory_mib=action.memory_mib,
            )
        )

    def create(self, what: ledger_pb2.ContainerRecord) -> None:
        """Stages a new container; `what` says whose, and what for."""
        name = ContainerId(secrets.token_hex(8))
        record = ledger_pb2.ContainerRecord(
            id=name,
            state=CONTAINER_STATE_CREATING,
            address=self._driver.address(name, self.addresses.take()),
            driver=self._driver.name,
            engine=self._driver.engine(),
            term=f"{self.term[0]}.{self.term[1]}",
            created_at_ms=time.time_ns() // 1_000_000,
        )
        record.MergeFrom(what)
        container = Container(record, self._clock())
        self.enlist(container)
        self.ledger.add(name, record.capacity)
        log.info("container", id=name, action=record.action or None, state="creating")
