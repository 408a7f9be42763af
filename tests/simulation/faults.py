"""What goes wrong, at random, and is well again some time later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from slotway.etcd import rpc_pb2 as pb
from slotway.records import Keys, encode
from slotway.v1.ledger_pb2 import LeaderRecord
from tests.simulation.etcd import COMMIT_S
from tests.simulation.processes import CLUSTER, EtcdMember, ManagerProcess, RouterProcess

if TYPE_CHECKING:
    from tests.simulation.world import World

AT_ONCE_MAX = 3
LONG_S = 4.0
"""Most faults last less."""


class Faults:
    """Each kind is a method: it begins a fault, and returns when it has ended it."""

    def __init__(self, world: World) -> None:
        self._world, self._rng = world, world.rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self.kinds: dict[str, tuple[int, Callable[[], Awaitable[bool]]]] = {
            "leader killed": (4, self._kill_leader),
            "standby killed": (2, self._kill_standby),
            "leader paused": (4, self._pause_leader),
            "standby paused": (1, self._pause_standby),
            "handover": (4, self._hand_over),
            "router killed": (3, self._kill_router),
            "router paused": (3, self._pause_router),
            "router stopped": (2, self._stop_router),
            "two parts cut off": (6, self._cut),
            "leader cut off from etcd": (2, self._cut_leader),
            "deposed leader's words late": (4, self._late_words),
            "connections reset": (5, self._reset),
            "a part slow": (2, self._slow),
            "etcd without quorum": (3, self._no_quorum),
            "etcd slow": (2, self._slow_etcd),
            "etcd member killed": (2, self._kill_etcd),
            "etcd member paused": (2, self._pause_etcd),
            "etcd compacted": (3, self._compact),
            "leader key deleted": (2, self._delete_key),
            "leader key of a stranger": (1, self._foreign_key),
            "leases ended": (2, self._end_leases),
            "container crashed": (4, self._crash),
            "container paused": (2, self._pause_container),
            "creations fail": (1, self._creations_fail),
            "inits fail": (1, self._inits_fail),
            "action updated": (1, self._update),
            "action deleted": (1, self._delete),
            "client hung up": (6, self._hang_up),
            "burst": (3, self._burst),
        }

        if world.seed % 5 == 4:
            self.kinds["connection to a container broken"] = (8, self._break)

    def begin_one(self) -> None:
        """A random fault, unless there are enough."""
        if len(self._tasks) >= AT_ONCE_MAX:
            return
        names = list(self.kinds)
        name = self._rng.choices(names, [self.kinds[one][0] for one in names])[0]
        task = asyncio.get_running_loop().create_task(self._run(name), name=f"fault: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, name: str) -> None:
        self._world.note(f"{name}?")
        if await self.kinds[name][1]():
            self._world.count[f"fault: {name}"] += 1
            self._world.note(f"{name}: over")

    async def end(self) -> None:
        """All is well again, as soon as what was begun has ended."""
        self._over.set()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _last(self, least_s: float = 0.05, most_s: float = LONG_S) -> None:
        """The time that a fault lasts: mostly short."""
        last_s = least_s + (most_s - least_s) * self._rng.random() ** 2
        try:
            async with asyncio.timeout(last_s):
                await self._over.wait()
        except TimeoutError:
            return

    # Processes.

    def _leader(self) -> ManagerProcess | None:
        leaders = [one for one in self._world.managers if one.leads and not one.node.paused]
        return leaders[0] if leaders else None

    def _standby(self) -> ManagerProcess | None:
        there = [one for one in self._world.managers if one.up and not one.node.paused]
        standbys = [one for one in there if not one.leads]
        return self._rng.choice(standbys) if standbys else None

    def _router(self) -> RouterProcess | None:
        up = [one for one in self._world.routers if one.accepting and not one.node.paused]
        return self._rng.choice(up) if up else None

    async def _kill(self, process: ManagerProcess | RouterProcess | None) -> bool:
        if process is None:
            return False
        process.kill()
        await self._last()
        process.start()
        return True

    async def _kill_leader(self) -> bool:
        return await self._kill(self._leader())

    async def _kill_standby(self) -> bool:
        return await self._kill(self._standby())

    async def _kill_router(self) -> bool:
        return await self._kill(self._router())

    async def _pause(self, process: ManagerProcess | RouterProcess | EtcdMember | None) -> bool:
        if process is None:
            return False
        node = process.node
        node.paused = True
        await self._last()
        self._world.loop.resume(node)
        return True

    async def _pause_leader(self) -> bool:
        return await self._pause(self._leader())

    async def _pause_standby(self) -> bool:
        return await self._pause(self._standby())

    async def _pause_router(self) -> bool:
        return await self._pause(self._router())

    async def _hand_over(self) -> bool:
        leader = self._leader()
        if leader is None:
            return False
        await leader.stop()
        await self._last(most_s=2)
        leader.start()
        return True

    async def _stop_router(self) -> bool:
        router = self._router()
        if router is None:
            return False
        await router.stop()
        await self._last(most_s=1)
        router.start()
        return True

    # The network.

    def _names(self) -> list[str]:
        world = self._world
        managers, routers, etcd = world.managers, world.routers, world.etcd
        return [
            *(one.name for one in managers),
            *(one.name for one in routers),
            *(one.name for one in etcd),
        ]

    async def _cut_between(self, pairs: list[tuple[str, str]]) -> bool:
        for pair in pairs:
            self._world.network.cut(*pair)
        await self._last()
        for pair in pairs:
            self._world.network.heal(*pair)
        return True

    async def _cut(self) -> bool:
        one, other = self._rng.sample(self._names(), 2)
        both = [(one, other), (other, one)]
        return await self._cut_between(both if self._rng.random() < 0.6 else both[:1])

    async def _cut_leader(self) -> bool:
        leader = self._leader()
        if leader is None:
            return False
        members = [one.name for one in self._world.etcd]
        pairs = [(leader.name, one) for one in members] + [(one, leader.name) for one in members]
        return await self._cut_between(pairs)

    async def _late_words(self) -> bool:
        """What a leader has persisted and said arrives when another one leads."""
        leader = self._leader()
        if leader is None:
            return False
        pairs = [
            (leader.name, router.name) for router in self._world.routers if self._rng.random() < 0.7
        ]
        for pair in pairs:
            self._world.network.cut(*pair)
        await self._last(least_s=0.05, most_s=0.4)
        await self._delete_key()
        await self._last(least_s=0.3, most_s=2)
        for pair in pairs:
            self._world.network.heal(*pair)
        return bool(pairs)

    async def _reset(self) -> bool:
        connections = list(self._world.network.connections.values())
        if not connections:
            return False
        for _ in range(self._rng.randint(1, 3)):
            self._rng.choice(connections).reset("connection reset by peer")
        return True

    async def _slow(self) -> bool:
        name = self._rng.choice(self._names())
        self._world.network.slow[name] = self._rng.choice((10, 100, 400))
        await self._last()
        self._world.network.slow.pop(name, None)
        return True

    # etcd.

    async def _no_quorum(self) -> bool:
        self._world.quorum.leave()
        await self._last()
        self._world.quorum.come_back()
        return True

    async def _slow_etcd(self) -> bool:
        quorum = self._world.quorum
        if quorum.commit_s != COMMIT_S:
            return False
        quorum.commit_s = self._rng.choice((0.05, 0.3, 0.9))
        await self._last()
        quorum.commit_s = COMMIT_S
        return True

    async def _kill_etcd(self) -> bool:
        member = self._rng.choice(self._world.etcd)
        if member.node.dead or member.node.paused:
            return False
        member.kill()
        await self._last()
        member.start()
        return True

    async def _pause_etcd(self) -> bool:
        members = [one for one in self._world.etcd if not (one.node.dead or one.node.paused)]
        return await self._pause(self._rng.choice(members) if members else None)

    async def _compact(self) -> bool:
        store = self._world.quorum.store
        if store.compacted >= store.revision:
            return False
        store.compact(store.revision)
        return True

    def _txn(self, operation: pb.RequestOp) -> bool:
        quorum = self._world.quorum
        if quorum.away:
            return False
        before = quorum.store.revision
        return quorum.store.txn(pb.TxnRequest(success=[operation])).header.revision > before

    async def _delete_key(self) -> bool:
        key = Keys(CLUSTER).leader.encode()
        return self._txn(pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key)))

    async def _foreign_key(self) -> bool:
        record = LeaderRecord(id="stranger", address="127.0.0.1:9", incarnation="stranger")
        key = Keys(CLUSTER).leader.encode()
        return self._txn(pb.RequestOp(request_put=pb.PutRequest(key=key, value=encode(record))))

    async def _end_leases(self) -> bool:
        store = self._world.quorum.store
        if self._world.quorum.away or not store.leases:
            return False
        for lease in sorted(store.leases):
            if self._rng.random() < 0.5:
                store.revoke(lease)
        return True

    # Containers and clients.

    async def _crash(self) -> bool:
        running = sorted(self._world.engine.containers)
        if not running:
            return False
        self._world.engine.end(self._rng.choice(running))
        return True

    async def _break(self) -> bool:
        """A Router hears nothing more of a request, and its code runs on."""
        containers = self._world.engine.containers
        running = [run for name in sorted(containers) for run in containers[name].runs.values()]
        if not running:
            return False
        run = self._rng.choice(running)
        run.told("broken")
        run.told = lambda how: None
        return True

    async def _pause_container(self) -> bool:
        engine = self._world.engine
        if not engine.containers:
            return False
        container = engine.containers[self._rng.choice(sorted(engine.containers))]
        engine.pause(container, paused=True)
        await self._last(most_s=6)
        engine.pause(container, paused=False)
        return True

    async def _creations_fail(self) -> bool:
        self._world.engine.create_fails = 0.7
        await self._last()
        self._world.engine.create_fails = 0.0
        return True

    async def _inits_fail(self) -> bool:
        self._world.engine.init_fails = 0.7
        await self._last()
        self._world.engine.init_fails = 0.0
        return True

    async def _update(self) -> bool:
        world = self._world
        name = self._rng.choice(sorted(world.actions))
        capacity = self._rng.choice((1, 2, 5))
        world.actions[name] = capacity
        await world.loop.spawn(world.client, world.put_action(name, capacity), "put-action")
        return True

    async def _delete(self) -> bool:
        world = self._world
        name = self._rng.choice(sorted(world.actions))
        await world.loop.spawn(world.client, world.delete_action(name), "delete-action")
        await self._last(most_s=2)
        put = world.put_action(name, world.actions[name])
        await world.loop.spawn(world.client, put, "put-action")
        return True

    async def _hang_up(self) -> bool:
        world = self._world
        waiting = [
            request
            for router in world.routers
            if router.up
            for request in router.plane.open.values()
            if not request.outcome
        ]
        if not waiting:
            return False
        request = self._rng.choice(waiting)
        request.outcome = "left"
        request.leave()
        return True

    async def _burst(self) -> bool:
        world = self._world
        action = self._rng.choice(sorted(world.actions))
        for _ in range(self._rng.randint(5, 25)):
            router = self._router()
            if router is None:
                return False
            world.invoke(router, action)
        return True
