"""Which faults there are, and in which order a seed has them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from tests.drills.campaign import clocks, links, processes, stores
from tests.drills.campaign.ground import Fault, Ground


async def nothing(ground: Ground, rng: random.Random) -> str:
    """No fault, for a while: the leader stays (I6)."""
    before = await ground.term()
    await asyncio.sleep(3.0)
    after = await ground.term()
    if before != after:
        raise AssertionError(f"I6: without a fault the term went from {before} to {after}")
    return f"term {after[1]} all the time"


PROCESSES: Mapping[str, Fault] = {
    "nothing": nothing,
    "kill leader": processes.kill_leader,
    "kill standby": processes.kill_standby,
    "kill router": processes.kill_router,
    "kill container": processes.kill_container,
    "kill etcd member": processes.kill_etcd,
    "stop leader": processes.stop_leader,
    "stop standby": processes.stop_standby,
    "stop router": processes.stop_router,
    "stop container": processes.stop_container,
    "stop etcd member": processes.stop_etcd,
    "rolling restart": processes.restart_all,
}
STORES: Mapping[str, Fault] = {
    "etcd away": stores.away,
    "etcd alarm NOSPACE": stores.alarm,
    **{
        name: stores.drill(name)
        for name in (
            "handover",
            "delete-key",
            "revoke-lease",
            "foreign-leader",
            "move-etcd-leader",
            "compact",
        )
    },
}
CLOCKS: Mapping[str, Fault] = {
    "leader's clock": clocks.jump_leader,
    "router's clock": clocks.jump_router,
    "containers' clock": clocks.jump_containers,
}
DISK: Mapping[str, Fault] = {"disk full under etcd": stores.fill_disk}
NETWORK: Mapping[str, Fault] = {
    **{f"{pair}, {way}": links.cut(pair, way) for pair in links.PAIRS for way in links.WAYS},
    "slow link": links.slow,
}


def rounds(seed: int, names: list[str]) -> list[str]:
    """One round: each fault once, in an order of the seed's; and first none."""
    rng = random.Random(seed)
    rest = [name for name in names if name != "nothing"]
    rng.shuffle(rest)
    return ["nothing", *rest]
