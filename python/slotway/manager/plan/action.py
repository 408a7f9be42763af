"""The plan for one action: who gets which slots, what moves, what is created, what ends.

In this order, each step working with what the one before has left:
1. containers that must go: of other revisions, drained ones, ones that only vanished routers held;
2. free slots go to routers with demand, max-min fair; what is left of the containers that this
   touched, and of new ones, is spread evenly over all routers;
3. slots that idle at one router move to routers with demand, by lowering them there;
4. what is still missing is folded into containers to be created, as is the minimum, once the
   routers whose slots may idle without our knowledge have been asked;
5. where limits forbid those, slots are lowered until the shares are max-min fair, and
   containers that silent routers hold are drained;
6. routers without slots are told their peers.
"""

from __future__ import annotations

from slotway.manager.plan.fair import by_router, fair
from slotway.manager.plan.view import (
    ActionView,
    ContainerView,
    Decisions,
    Order,
    Phase,
    RouterView,
    Share,
    Tempo,
)


def plan_action(view: ActionView, tempo: Tempo | None = None) -> Decisions:
    """Decides for one action. The view is not changed; a plan of the unchanged view is the same."""
    return _Plan(view, tempo or Tempo()).run()


class _Plan:
    """The working state of one plan."""

    def __init__(self, view: ActionView, tempo: Tempo) -> None:
        self.view, self.tempo, self.now = view, tempo, view.now
        self.out = Decisions()
        self.routers = {router.id: router for router in view.routers}
        self.ready: list[ContainerView] = []
        self.coming = 0
        self.free: dict[str, int] = {}
        self.target: dict[tuple[str, str], int] = {}  # (container, router): after this plan
        self.idle: dict[tuple[str, str], int] = {}
        self.shares: dict[tuple[str, str], Share] = {}

    def run(self) -> Decisions:
        self._sort_out()
        need = self._need()
        self._take_back(need)
        self._grant(need)
        short = sum(need.values()) - self._on_the_way(need) - self._move(need)
        short -= self.coming * self.view.capacity
        if short > 0 and not self._ask():
            self._create(short, need)
        self._fill_up()
        self._name_peers()
        self._emit()
        return self.out

    # 1. What must go, and what there is.

    def _sort_out(self) -> None:
        for container in sorted(self.view.containers, key=lambda container: container.id):
            holders = [self._router(router) for router in container.shares]
            if container.phase is Phase.ENDING:
                continue
            if holders and all(router.vanished for router in holders):
                self.out.destroys.append((container.id, "the routers that used it are gone"))
            elif container.phase is Phase.DRAINING:
                if not holders:
                    self.out.destroys.append((container.id, ""))  # it was told why it drains
                self._lower_all(container)
            elif container.revision != self.view.revision:
                why = "the action was updated" if self.view.revision else "the action was deleted"
                self._drain(container, why)
            elif container.phase is Phase.COMING:
                self.coming += 1
            else:
                self.ready.append(container)
                self.free[container.id] = container.free
                for router, share in container.shares.items():
                    self.target[container.id, router] = share.target
                    self.idle[container.id, router] = share.idle
                    self.shares[container.id, router] = share

    def _router(self, name: str) -> RouterView:
        return self.routers.get(name) or RouterView(name, known=False, fresh=False)

    def _drain(self, container: ContainerView, reason: str) -> None:
        self.out.drains.append((container.id, reason))
        self._lower_all(container)

    def _lower_all(self, container: ContainerView) -> None:
        for router, share in container.shares.items():
            if share.target and self._router(router).known:
                self.out.recalls.append(Order(container.id, router, 0))

    # 2. Free slots.

    def _usable(self, router: RouterView) -> bool:
        """Its facts count, and it does what it is told."""
        return router.known and router.fresh and not router.vanished

    def _open(self, router: RouterView) -> bool:
        """It may be given slots."""
        return self._usable(router) and not (router.stuck or router.leaving)

    def _need(self) -> dict[str, int]:
        """Requests per router for which nothing idles there."""
        if not self.view.revision:
            return {}
        idle = by_router(self.idle)
        return {
            router.id: router.waiting - idle[router.id]
            for router in self.view.routers
            if self._open(router) and router.waiting > idle[router.id]
        }

    def _take_back(self, need: dict[str, int]) -> None:
        """A lowering that nobody else waits for any more is undone where slots are missed."""
        for router in sorted(need):
            others = sum(need.values()) - need[router]
            surplus = sum(amount for *_, amount in self._lowerings()) - others
            for container, holder, amount in self._lowerings():
                back = min(need[router], amount, surplus)
                if holder == router and back > 0:
                    self._shift(container, router, back)
                    need[router] -= back
                    surplus -= back

    def _lowerings(self) -> list[tuple[str, str, int]]:
        """(container, router, slots) that were ordered away before, and are not back yet."""
        return [
            (container.id, router, share.slots - self.target[container.id, router])
            for container in self.ready
            for router, share in container.shares.items()
            if share.slots > self.target[container.id, router]
        ]

    def _shift(self, container: str, router: str, amount: int) -> None:
        key = (container, router)
        self.target[key] = self.target.get(key, 0) + amount
        self.idle[key] = self.idle.get(key, 0) + amount

    def _grant(self, need: dict[str, int]) -> None:
        open_to = [router for router in self.view.routers if self._open(router)]
        wants = {router.id: need[router.id] for router in open_to if need.get(router.id)}
        gains = fair(sum(self.free.values()), by_router(self.target), wants)
        touched = {container.id for container in self.ready if container.unspread}
        for router in sorted(gains):
            touched.update(self._place(router, gains[router], self.ready))
            need[router] -= gains[router]
        everyone = [router.id for router in open_to if not router.restarted]
        rest = [c for c in self.ready if c.id in touched]
        supply = sum(self.free[c.id] for c in rest)
        if everyone and rest:
            spread = fair(supply, by_router(self.idle), dict.fromkeys(everyone, supply))
            for router in sorted(spread):
                self._place(router, spread[router], rest)
            self.out.spread.extend(c.id for c in rest if c.unspread)

    def _place(self, router: str, amount: int, containers: list[ContainerView]) -> list[str]:
        """Takes the router's gain from the fullest containers, so that others stay empty.

        A restarted router takes from those that nobody else uses, if there are any.
        """
        alone = self._router(router).restarted

        def order(container: ContainerView) -> tuple[bool, int, str]:
            shared = alone and any(holder != router for holder in container.shares)
            return (shared, self.free[container.id] - container.capacity, container.id)

        used = []
        for container in sorted(containers, key=order):
            step = min(amount, self.free[container.id])
            if step > 0:
                self.free[container.id] -= step
                self._shift(container.id, router, step)
                used.append(container.id)
                amount -= step
        assert amount == 0
        return used

    # 3. Moves.

    def _on_the_way(self, need: dict[str, int]) -> int:
        """Slots whose lowering was ordered a moment ago: they will be free soon.

        Once the router has obeyed, and still not acknowledged, requests run in them: nobody knows
        for how long. Until then it may only be slow.
        """
        slots = 0
        for container, router, amount in self._lowerings():
            share = self._share(container, router)
            due_at = share.changed_at + self.tempo.settle_s
            if not self._usable(self._router(router)) or (share.confirmed and due_at <= self.now):
                continue
            slots += amount
            if any(need.values()) and due_at > self.now:
                self._wake(due_at)
        return slots

    def _share(self, container: str, router: str) -> Share:
        new = Share(0, 0, 0, self.now, raised_at=self.now)
        return self.shares.get((container, router), new)

    def _wake(self, at: float) -> None:
        self.out.wake_at = at if self.out.wake_at is None else min(at, self.out.wake_at)

    def _move(self, need: dict[str, int]) -> int:
        """Lowers idle shares elsewhere as far as they are needed.

        Returns all slots that idle elsewhere and may be moved, now or when they have settled.
        """
        wanted = sum(need.values()) - self._on_the_way(need)
        idle = by_router({key: n for key, n in self.idle.items() if not self._doubtful(key)})
        spare = {
            router.id: idle[router.id] - router.waiting
            for router in self.view.routers
            if self._usable(router) and idle[router.id] > router.waiting
        }
        if wanted <= 0 or not spare:
            return sum(spare.values())
        settled = self._settled(self.idle)
        most = by_router(settled)
        now = {r: min(amount, most[r]) for r, amount in spare.items()}
        step = min(wanted, sum(now.values()))
        keep = fair(sum(now.values()) - step, {}, now)
        for router in sorted(now):
            self._lower(router, now[router] - keep.get(router, 0), settled)
        return sum(spare.values())

    def _settled(self, what: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
        """The part of `what` that may be lowered now; asks to be woken for the rest. That others of
        a share leave does not hold it up, for demand is told piece by piece."""
        result = {}
        for key, amount in what.items():
            due_at = self._share(*key).raised_at + self.tempo.settle_s
            if amount and due_at > self.now:
                self._wake(due_at)
            elif amount and not self._doubtful(key):
                result[key] = amount
        return result

    def _doubtful(self, key: tuple[str, str]) -> bool:
        """The share was raised long enough ago, and no report has seen that yet: who knows what
        idles. A lowering that is undone brings nothing if requests run in all of its slots."""
        share = self._share(*key)
        raised = share.raised_at >= share.changed_at and not share.confirmed
        return raised and share.raised_at + self.tempo.settle_s <= self.now

    def _lower(self, router: str, amount: int, most: dict[tuple[str, str], int]) -> None:
        """Lowers the router's shares by `amount`, at most by `most`, in the emptiest containers."""
        for container in sorted(self.ready, key=lambda c: (c.capacity - c.free, c.id)):
            key = (container.id, router)
            step = min(amount, most.get(key, 0))
            if step > 0:
                self.target[key] -= step
                self.idle[key] = max(0, self.idle[key] - step)
                amount -= step

    # 4. and 5. What is missing.

    def _ask(self) -> bool:
        """Asks routers where nobody waits whether their busy slots idle by now: what became idle is
        reported once in a period only. And those that have yet to report what a raise brought them.
        Returns whether their answers are to be waited for."""
        held, idle = by_router(self.target), by_router(self.idle)
        doubtful = {key[1] for key, amount in self.idle.items() if amount and self._doubtful(key)}
        self.out.ask = [
            router.id
            for router in self.view.routers
            if self._usable(router)
            and not router.waiting
            and ((router.behind and held[router.id] > idle[router.id]) or router.id in doubtful)
        ]
        since = self.now if self.view.asked_at is None else self.view.asked_at
        due_at = since + self.tempo.ask_s
        if not self.out.ask or due_at <= self.now:
            return False
        self._wake(due_at)
        return True

    def _reconsider(self) -> int:
        """Undoes lowerings that do not come: the router had begun to use some of the slots.

        It cannot give the others up before those requests end, and its reports do not show them.
        With its target back it reports what really idles. Returns the slots of these lowerings.
        """
        slots = 0
        for container, router, amount in self._lowerings():
            share = self._share(container, router)
            late = share.changed_at + self.tempo.settle_s <= self.now and share.confirmed
            older = self.target[container, router] == share.target  # not of this plan
            if late and older and self._open(self._router(router)):
                self.target[container, router] += amount
                slots += amount
        return slots

    def _create(self, short: int, need: dict[str, int]) -> None:
        if self.view.room > 0:
            short -= self._reconsider()
        if short <= 0:
            return
        wanted = -(-short // self.view.capacity)
        self.out.create = min(wanted, max(0, self.view.room))
        self.out.unmet = max(0, short - self.out.create * self.view.capacity)
        for container in list(self.ready):
            holders = [self._router(router) for router in container.shares]
            if any(router.vanished for router in holders):
                self._give_up(container, "slots of it went with a router")
            elif self.out.unmet and any(self._long_silent(router) for router in holders):
                self._give_up(container, "slots of it are with a silent router")
        if self.out.unmet:
            self._level(need)

    def _fill_up(self) -> None:
        """Up to the minimum: what serves the demand counts for it."""
        below = self.view.minimum - len(self.ready) - self.coming - self.out.create
        if self.view.revision and below > 0:
            more = min(below, max(0, self.view.room - self.out.create))
            self.out.create += more
            self.out.missing = below - more

    def _long_silent(self, router: RouterView) -> bool:
        if router.silent_since is None:
            return False
        due_at = router.silent_since + self.tempo.silent_grace_s
        if due_at > self.now:
            self._wake(due_at)
        return due_at <= self.now

    def _give_up(self, container: ContainerView, reason: str) -> None:
        self.ready.remove(container)
        for router in container.shares:
            self.target.pop((container.id, router), None)
            self.idle.pop((container.id, router), None)
        self._drain(container, reason)

    def _level(self, need: dict[str, int]) -> None:
        """Lowers shares, busy slots too, until no router is above its max-min fair part."""
        usable = {router.id: router for router in self.view.routers if self._usable(router)}
        held, idle = by_router(self.target), by_router(self.idle)
        pool = sum(container.capacity for container in self.ready) - sum(
            share.slots
            for container in self.ready
            for router, share in container.shares.items()
            if router not in usable
        )
        wants = {r: held[r] - idle[r] + router.waiting for r, router in usable.items()}
        parts = fair(pool, {}, wants, prefer=held)
        missing = sum(max(0, min(need.get(r, 0), parts.get(r, 0) - held[r])) for r in usable)
        missing -= sum(amount for _, router, amount in self._lowerings() if router in usable)
        excess = {r: held[r] - parts.get(r, 0) for r in usable if held[r] > parts.get(r, 0)}
        settled = self._settled({key: slots for key, slots in self.target.items() if slots})
        most = by_router(settled)
        excess = {r: min(amount, most[r]) for r, amount in excess.items()}
        keep = fair(sum(excess.values()) - max(0, missing), {}, excess)
        for router in sorted(excess):
            self._lower(router, excess[router] - keep.get(router, 0), settled)

    # 6. Peers.

    def _name_peers(self) -> None:
        """A router without slots forwards to those that have some, unless slots are coming."""
        held = by_router(self.target)
        slots_come = self.coming or self.out.create or any(self.free[c.id] for c in self.ready)
        holders = sorted(
            r
            for r in held
            if held[r] and self._usable(self._router(r)) and not self._router(r).leaving
        )
        for router in self.view.routers:
            if router.known:
                forwards = not held[router.id] and not slots_come
                self.out.peers[router.id] = holders if forwards else []

    def _emit(self) -> None:
        for container in self.ready:
            names = [r for r in self.routers if (container.id, r) in self.target]
            for router in sorted(names):
                share = container.shares.get(router) or Share(0, 0, 0, self.now)
                target = self.target[container.id, router]
                order = Order(container.id, router, target)
                if target > share.slots:
                    self.out.grants.append(order)
                elif target != share.target:
                    self.out.recalls.append(order)
