"""A small world around the plan: a ledger, routers and messages in the air, without any server.

Nothing is lost here, only delayed: losses are the ledger's business. Messages of one router keep
their order, as on a stream; which router's comes next is the test's choice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from slotway.manager.plan import (
    ActionView,
    ContainerView,
    Decisions,
    Phase,
    RouterView,
    Share,
    plan_action,
)


@dataclass
class Container:
    capacity: int
    phase: Phase = Phase.COMING
    shares: dict[str, int] = field(default_factory=dict)
    targets: dict[str, int] = field(default_factory=dict)
    changed_at: dict[str, float] = field(default_factory=dict)
    raised_at: dict[str, float] = field(default_factory=dict)
    unspread: bool = True

    @property
    def free(self) -> int:
        return self.capacity - sum(self.shares.values())


@dataclass
class Router:
    waiting: int = 0
    held: dict[str, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    obeyed: int = 0
    orders: deque[tuple[int, str, int]] = field(default_factory=deque)
    reports: deque[tuple[int, int, dict[str, int], dict[str, int]]] = field(default_factory=deque)

    def dispatch(self) -> None:
        for container, slots in self.held.items():
            step = min(self.waiting, max(0, slots - self.running.get(container, 0)))
            self.running[container] = self.running.get(container, 0) + step
            self.waiting -= step

    def report(self) -> None:
        idle = {c: max(0, n - self.running.get(c, 0)) for c, n in self.held.items()}
        done = {c: n for c, n in self.held.items() if self.running.get(c, 0) <= n}
        self.reports.append((self.obeyed, self.waiting, idle, done))


class World:
    def __init__(self, capacity: int, routers: int, room: int = 10_000) -> None:
        self.capacity, self.room, self.now = capacity, room, 0.0
        self.containers: dict[str, Container] = {}
        self.routers = {f"r{i}": Router() for i in range(routers)}
        self.seen: dict[str, tuple[int, int, dict[str, int]]] = {}
        self.unseen: dict[str, deque[tuple[int, str, int]]] = {r: deque() for r in self.routers}
        self.then: dict[tuple[str, str], int] = {}
        self.newest: dict[tuple[str, str], int] = {}
        self.counter = 0
        self.created = 0
        self.recalled = 0

    def __repr__(self) -> str:
        return f"{self.containers} {self.routers} seen: {self.seen} {plan_action(self.view())}"

    # The Manager's side.

    def view(self) -> ActionView:
        containers = []
        for name, container in self.containers.items():
            shares = {}
            for router, slots in container.shares.items():
                target = container.targets[router]
                idle = self.idle(router, name, target)
                seen = self.newest[router, name] <= self.seen.get(router, (0, 0, {}))[0]
                changed_at = container.changed_at[router]
                raised_at = container.raised_at[router]
                shares[router] = Share(slots, target, idle, changed_at, seen, raised_at)
            containers.append(
                ContainerView(
                    name,
                    1,
                    container.phase,
                    container.capacity,
                    container.free,
                    shares,
                    container.unspread,
                )
            )
        routers = [RouterView(r, waiting=self.seen.get(r, (0, 0, {}))[1]) for r in self.routers]
        room = self.room - len(self.containers)
        return ActionView("a/b", 1, self.capacity, containers, routers, room, self.now)

    def idle(self, router: str, container: str, target: int) -> int:
        _, _, idle = self.seen.get(router, (0, 0, {}))
        return max(0, idle.get(container, 0) + target - self.then.get((router, container), 0))

    def plan(self) -> Decisions:
        view = self.view()
        decisions = plan_action(view)
        assert plan_action(view) == decisions
        for order in decisions.grants:
            container = self.containers[order.container]
            assert order.target > container.shares.get(order.router, 0)
            container.shares[order.router] = order.target
            assert container.free >= 0, "more than the capacity is promised"
            self.send(order.router, order.container, order.target)
        for order in decisions.recalls:
            assert 0 <= order.target <= self.containers[order.container].shares[order.router]
            if order.target < self.containers[order.container].targets[order.router]:
                self.recalled += 1
            self.send(order.router, order.container, order.target)
        for name in decisions.spread:
            self.containers[name].unspread = False
        for _ in range(decisions.create):
            self.created += 1
            self.containers[f"c{self.created:04}"] = Container(self.capacity)
        for name, _ in decisions.drains:
            self.containers[name].phase = Phase.DRAINING
        for name, _ in decisions.destroys:
            assert not self.containers[name].shares
            del self.containers[name]
        return decisions

    def send(self, router: str, container: str, target: int) -> None:
        self.counter += 1
        if target > self.containers[container].targets.get(router, 0):
            self.containers[container].raised_at[router] = self.now
        self.containers[container].targets[router] = target
        self.containers[container].changed_at[router] = self.now
        self.unseen[router].append((self.counter, container, target))
        self.newest[router, container] = self.counter
        self.routers[router].orders.append((self.counter, container, target))

    # What happens.

    def arrive(self, router: str, count: int = 1) -> None:
        self.routers[router].waiting += count
        self.routers[router].dispatch()
        self.routers[router].report()

    def finish(self, router: str, more: int = 0) -> None:
        """One request ends, as `more` arrive; the containers take turns."""
        it = self.routers[router]
        for container in [name for name, running in it.running.items() if running][:1]:
            it.running[container] = it.running.pop(container) - 1
        it.waiting += more
        it.dispatch()
        it.report()

    def obey(self, router: str) -> bool:
        it = self.routers[router]
        if not it.orders:
            return False
        it.obeyed, container, target = it.orders.popleft()
        it.held[container] = target
        it.dispatch()
        it.report()
        return True

    def hear(self, router: str) -> bool:
        it = self.routers[router]
        if not it.reports:
            return False
        obeyed, waiting, idle, done = it.reports.popleft()
        self.seen[router] = (obeyed, waiting, idle)
        unseen = self.unseen[router]
        while unseen and unseen[0][0] <= obeyed:
            _, container, target = unseen.popleft()
            self.then[router, container] = target
        for name, holding in done.items():
            there = self.containers.get(name)
            if there is None or router not in there.shares:
                continue
            if self.newest[router, name] <= obeyed and holding < there.shares[router]:
                there.shares[router] = holding
                if not holding:
                    del there.shares[router]
        return True

    def start(self) -> bool:
        for container in self.containers.values():
            if container.phase is Phase.COMING:
                container.phase = Phase.READY
                return True
        return False

    def settle(self, turns: int = 10_000) -> None:
        """Everything in the air arrives, everything created starts, until nothing is left to do."""
        for _ in range(turns):
            before = self.now
            moved = self.start()
            for router in self.routers:
                moved = self.obey(router) or moved
                moved = self.hear(router) or moved
            decisions = self.plan()
            moved = bool(decisions.grants or decisions.recalls or decisions.create) or moved
            if not moved:
                if decisions.wake_at is None:
                    return
                self.now = max(self.now, decisions.wake_at)
                assert self.now > before, "woken for nothing"
        raise AssertionError("it never comes to rest")

    def total(self, router: str) -> int:
        return sum(c.shares.get(router, 0) for c in self.containers.values())

    def waiting(self) -> int:
        return sum(router.waiting for router in self.routers.values())

    def running(self) -> int:
        return sum(sum(router.running.values()) for router in self.routers.values())
