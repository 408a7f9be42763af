"""What one router has said of its demand, and which of our orders it had obeyed by then."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from slotway.v1 import manager_pb2


class Facts:
    """The newest report of one router on its present stream. Times are the loop's seconds."""

    def __init__(self, now: float) -> None:
        self.reported_at = now
        self.obeyed = 0
        """Counter of the newest order of this term that the router had obeyed."""
        self.waiting: dict[str, int] = {}
        """Per action; no entry: none."""
        self.turn = 0
        """The newest turn of ours that the router had heard of when it reported."""
        self._waited: dict[str, int] = {}
        """Per action that waits: the turn in which more was reported last."""
        self._idle: dict[str, dict[str, int]] = {}
        self._used_at: dict[str, float] = {}
        """Per container: the newest report that showed that something had run there."""
        self._seen: dict[str, int] = {}
        self._sent: dict[str, deque[tuple[int, int]]] = {}
        self._raises: deque[tuple[int, float]] = deque()

    def hold(self, holdings: Iterable[tuple[str, int]]) -> None:
        """(container, held) as the Hello says. Everything before it is void: it was said in another
        term, whose orders were counted anew, or on another stream."""
        self.obeyed = 0
        self.turn = 0
        self.waiting.clear()
        self._waited.clear()
        self._idle.clear()
        self._used_at.clear()
        self._sent.clear()
        self._raises.clear()
        self._seen = dict(holdings)

    def sent(self, container: str, counter: int, target: int, now: float) -> None:
        """An order goes out on the router's stream."""
        sent = self._sent.setdefault(container, deque())
        before = sent[-1][1] if sent else self._seen.get(container, 0)
        sent.append((counter, target))
        if target > before:
            self._raises.append((counter, now))

    def acknowledged(self, container: str, holding: int, counter: int) -> None:
        """The router holds no more than this, whether or not the ledger could count it; it said so
        of the order with this counter (0: of another term). Orders after that one change it. Its
        next report will have seen both the order and what was given back of it."""
        orders = self._sent.get(container)
        if not orders or counter < orders[0][0]:
            self._seen[container] = holding
            return
        at = max(i for i, (sent, _) in enumerate(orders) if sent <= counter)
        sent, target = orders[at]
        orders[at] = (sent, min(target, holding))

    def forget(self, container: str) -> None:
        """The container has ended."""
        self._seen.pop(container, None)
        self._used_at.pop(container, None)
        self._sent.pop(container, None)

    def report(
        self, message: manager_pb2.AttachRequest, term: tuple[int, int], turn: int
    ) -> set[str]:
        """Takes what a report says, in this turn of ours. Returns the actions for which something
        changed, or is due."""
        changed: set[str] = set()
        self.turn = max(self.turn, message.turn)
        of = (message.obeyed.term.epoch, message.obeyed.term.revision)
        if of == term and message.obeyed.counter > self.obeyed:
            self.obeyed = message.obeyed.counter
            self._see()
        for demand in message.demand:
            name = demand.action
            idle = {share.container_id: share.idle for share in demand.idle if share.idle}
            before = self._idle.get(name, {})
            if demand.waiting or name in self.waiting or idle != before:
                changed.add(name)
            # It is told of because something ran: where, if not in what changed, nobody knows.
            ran = idle.items() ^ before.items() or idle.items()
            self._used_at.update((container, self.reported_at) for container, _ in ran)
            if demand.waiting > self.waiting.get(name, 0):
                self._waited[name] = turn
            self.waiting[name], self._idle[name] = demand.waiting, idle
            if not demand.waiting:
                del self.waiting[name]
                self._waited.pop(name, None)
            if not idle:
                del self._idle[name]
        return changed

    def refused(self, action: str) -> None:
        """What waits is told that it will not be served: none of it waits any more. The next one to
        come is reported at once."""
        self.waiting.pop(action, None)
        self._waited.pop(action, None)

    def _see(self) -> None:
        for container in list(self._sent):
            orders = self._sent[container]
            while orders and orders[0][0] <= self.obeyed:
                self._seen[container] = orders.popleft()[1]
            if not orders:
                del self._sent[container]
        while self._raises and self._raises[0][0] <= self.obeyed:
            self._raises.popleft()

    def idle(self, action: str, container: str, target: int) -> int:
        """Slots free at the router when it has obeyed `target`, as far as is known.

        Orders that the report has not seen change what it says by as much as they change the share.
        """
        idle = self._idle.get(action, {}).get(container, 0)
        return max(0, min(target, idle + target - self._seen.get(container, 0)))

    def idle_since(self, action: str, container: str, slots: int) -> float | None:
        """Since when all of its `slots` idle; None if some run, or the report has not seen all
        orders."""
        idle = self._idle.get(action, {}).get(container, 0)
        if container in self._sent or self._seen.get(container, 0) != slots or idle < slots:
            return None
        return self._used_at.get(container, self.reported_at)

    def waited(self, action: str) -> int:
        """The turn of the newest report by which more requests wait; 0 if none do.

        As many as before may be others. But routers that are asked say what waits there, too: were
        that new demand, two of them would be asked by turns without end.
        """
        return self._waited.get(action, 0)

    def confirmed(self, container: str) -> bool:
        """Whether the newest report has seen all orders on the container."""
        return container not in self._sent

    def unconfirmed_since(self) -> float | None:
        """When the oldest raise was sent that no report has seen yet."""
        return self._raises[0][1] if self._raises else None

    def demands(self) -> dict[str, tuple[int, dict[str, int]]]:
        """(waiting, idle by container) of every action that has either."""
        names = self.waiting.keys() | self._idle.keys()
        return {name: (self.waiting.get(name, 0), self._idle.get(name, {})) for name in names}
