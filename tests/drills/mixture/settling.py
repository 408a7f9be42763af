"""After the mixture: whether every slot is back, and nothing runs that nobody knows of."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

from slotway.drivers import open_driver
from slotway.rundir import run_dir
from slotway.v1.cluster_pb2 import Cluster, RouterStatus
from slotway.v1.ledger_pb2 import CONTAINER_STATE_READY, ContainerRecord
from tests.drills.mixture.load import FULL, STEADY, Load
from tests.integration.gathering import Gathering, listen
from tests.integration.parts import Parts

SETTLE_S = 60.0
HOUSE_S = 25.0
POLL_S = 0.5
WAKES = 10


async def settle(parts: Parts, load: Load) -> Iterator[str]:
    """Gives every promise that is broken."""
    broken = await all_back(parts, load, [kind.name for kind in (*FULL, *STEADY)])
    broken += await _orphans(parts)
    return iter(broken)


async def all_back(parts: Parts, load: Load, names: Sequence[str]) -> list[str]:
    """Whether the cluster comes to rest, these actions are served, and every slot can be used at
    once; what is not so."""
    await parts.until_live()
    broken = await _come_to_rest(parts)
    broken += [f"{name} is not served any more" for name in names if not await _served(load, name)]
    broken += await _come_to_rest(parts)
    broken += await _full_house(parts, load)
    return broken


async def _come_to_rest(parts: Parts) -> list[str]:
    try:
        async with asyncio.timeout(SETTLE_S):
            while _restless(await parts.show()):
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return [f"it does not come to rest: {_restless(await parts.show())[:5]}"]
    return []


async def _served(load: Load, name: str) -> bool:
    """Has a container of the action there, whatever the mixture left behind."""
    for _ in range(WAKES):
        if await load.one(name, {"sleep_s": 0}) == "ok":
            return True
        await asyncio.sleep(POLL_S)
    return False


def _restless(cluster: Cluster) -> list[str]:
    """Containers that come or go, and slots that are neither free nor idle; also those of Routers
    that were killed: they end with their containers, once the others have given theirs back."""
    live = {one.incarnation for one in cluster.routers if one.state == RouterStatus.STATE_LIVE}
    idle: Counter[str] = Counter()
    for router in cluster.routers:
        for share in (share for demand in router.demand for share in demand.idle):
            idle[share.container_id] += share.idle
    found = []
    for record in (container.record for container in cluster.containers):
        missing = sum(record.shares.values()) - idle[record.id]
        if record.state != CONTAINER_STATE_READY:
            found.append(f"{record.id} of {record.action} is in state {record.state}")
        elif gone := record.shares.keys() - live:
            found.append(f"{record.id} of {record.action} has slots of the Routers {gone}")
        elif missing > 0:
            found.append(f"{missing} slots of {record.id}, {record.action}, run")
    return found


def _ready(cluster: Cluster) -> list[ContainerRecord]:
    records = [container.record for container in cluster.containers]
    return [record for record in records if record.state == CONTAINER_STATE_READY]


async def _full_house(parts: Parts, load: Load) -> list[str]:
    """As many requests as the whole capacity run at once, on the containers that are there.

    A Router that the barrier's own load keeps from reporting is taken for silent, and then what
    idles there is rightly not counted on: so a container too many is forgiven once.
    """
    broken = ["it was not tried"]
    for _ in range(2):
        if not (broken := await _try_full_house(parts, load)):
            break
        await asyncio.sleep(2)
    return broken


async def _try_full_house(parts: Parts, load: Load) -> list[str]:
    before = _ready(await parts.show())
    places = [record.action for record in before for _ in range(record.capacity)]
    outcomes: list[str] = []
    with listen(parts.driver, parts.cluster, parts.places.here) as listener:
        async with Gathering(listener, len(places)) as barrier:
            arguments = {"mood": "gather", "gather": barrier.address}
            calls = [
                load.one(name, arguments, router=number % len(parts.clients))
                for number, name in enumerate(places)
            ]
            house = asyncio.gather(*calls)
            try:
                async with asyncio.timeout(HOUSE_S):
                    await barrier.full.wait()
            except TimeoutError:
                pass
            arrived = barrier.arrived
            barrier.full.set()
            outcomes = await house
    made = {record.id for record in _ready(await parts.show())} - {one.id for one in before}
    print(f"full house: {arrived} of {len(places)} in {len(before)} containers", flush=True)
    broken = []
    if arrived != len(places):
        broken.append(f"of {len(places)} slots only {arrived} could be used at once")
        broken.append(f"the others: {Counter(outcomes)}")
    if made:
        broken.append(f"containers were made for the full house: {made}")
    return broken


async def _orphans(parts: Parts) -> list[str]:
    """The engine's containers against the ledger's."""
    options = (parts.cluster, parts.data_dir, run_dir(parts.data_dir), parts.docker)
    driver = open_driver(parts.driver, *options)
    await driver.start()
    try:
        there = {one.label.id for one in await driver.list() if one.running}
    finally:
        await driver.close()
    recorded = {container.record.id for container in (await parts.show()).containers}
    broken = []
    if orphans := there - recorded:
        broken.append(f"containers run that no record speaks of: {orphans}")
    if ghosts := recorded - there:
        broken.append(f"recorded containers do not run: {ghosts}")
    return broken
