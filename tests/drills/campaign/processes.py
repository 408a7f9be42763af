"""Faults of processes: SIGKILL, SIGSTOP and SIGCONT of each kind of part, and a rolling restart."""

from __future__ import annotations

import asyncio
import os
import random
import signal

from slotway.cli.child import Child
from slotway.etcd.server import EtcdServer
from tests.drills.campaign.ground import Ground, NoEffect, died, until
from tests.drills.mixture.faults import children, supervisors

DOWN_S = (0.2, 1.5)
"""Between a part's death and its new beginning."""
STOOD_S = (1.0, 3.0)
CONTAINER_STOOD_S = (0.5, 1.5)
"""Less than the timeout of the actions."""
CONTAINER_S = 20.0
STOP_S = 40.0


async def _kill(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)
    if await child.wait() != -signal.SIGKILL:
        raise NoEffect(f"{child.name} had ended by itself")


async def kill_leader(ground: Ground, rng: random.Random) -> str:
    """SIGKILL; another one takes over before it is started again."""
    before, child = await ground.term(), await ground.leader()
    await _kill(child)
    after = await ground.until_new_term(before)
    await child.start()
    await ground.until_whole()
    return f"{child.name} died, term {before[1]} -> {after[1]}"


async def kill_standby(ground: Ground, rng: random.Random) -> str:
    """SIGKILL; the leader stays."""
    before, child = await ground.term(), await ground.standby(rng)
    await _kill(child)
    await asyncio.sleep(rng.uniform(*DOWN_S))
    await child.start()
    await ground.until_whole()
    same = await ground.term() == before
    return f"{child.name} died, the leader {'stayed' if same else 'changed'}"


async def kill_router(ground: Ground, rng: random.Random) -> str:
    """SIGKILL; a new process of the same name and address."""
    child = ground.router(rng)
    await _kill(child)
    await asyncio.sleep(rng.uniform(*DOWN_S))
    await child.start()
    await ground.until_whole()
    return f"{child.name} died"


async def kill_etcd(ground: Ground, rng: random.Random) -> str:
    """SIGKILL to one member of three."""
    server = ground.etcd(rng)
    process = server.process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    if await process.wait() != -signal.SIGKILL:
        raise NoEffect(f"{server.name} had ended by itself")
    await asyncio.sleep(rng.uniform(*DOWN_S))
    await server.start()
    await ground.until_whole()
    return f"{server.name} died"


async def _runtime(ground: Ground, rng: random.Random) -> tuple[str, int]:
    """A container in use, and the process that runs its code."""
    deadline = asyncio.get_running_loop().time() + CONTAINER_S
    while asyncio.get_running_loop().time() < deadline:
        busy = {name for name, seen in ground.witness.containers.items() if seen.running}
        found = [
            (name, pid)
            for name, record in supervisors(ground.parts.data_dir)
            if name in busy
            for pid in children(record.pid)[:1]
        ]
        if found:
            return rng.choice(sorted(found))
        await asyncio.sleep(0.02)
    raise NoEffect("no container ran anything")


async def kill_container(ground: Ground, rng: random.Random) -> str:
    """SIGKILL to the code's own process, while it runs requests."""
    container, pid = await _runtime(ground, rng)
    cut = ground.witness.cut
    os.kill(pid, signal.SIGKILL)
    await until(lambda: died(pid), f"container {container} lives")
    await until(
        lambda: container not in dict(supervisors(ground.parts.data_dir)),
        f"the end of container {container} is not proved",
    )
    return f"a container died with {ground.witness.cut - cut} runs"


async def stop_leader(ground: Ground, rng: random.Random) -> str:
    """SIGSTOP until another one leads; then both run."""
    before, child = await ground.term(), await ground.leader()
    async with ground.stopped(child.pid):
        after = await ground.until_new_term(before)
        await asyncio.sleep(rng.uniform(0, 1))
    await ground.until_whole()
    return f"{child.name} stood still, term {before[1]} -> {after[1]}"


async def _stop(ground: Ground, rng: random.Random, name: str, pid: int) -> str:
    seconds = rng.uniform(*STOOD_S)
    async with ground.stopped(pid):
        await asyncio.sleep(seconds)
    await ground.until_whole()
    return f"{name} stood still for {seconds:.1f} s"


async def stop_standby(ground: Ground, rng: random.Random) -> str:
    """SIGSTOP for a while."""
    child = await ground.standby(rng)
    return await _stop(ground, rng, child.name, child.pid)


async def stop_router(ground: Ground, rng: random.Random) -> str:
    """SIGSTOP for a while; it is silent, and has its slots."""
    child = ground.router(rng)
    return await _stop(ground, rng, child.name, child.pid)


async def stop_etcd(ground: Ground, rng: random.Random) -> str:
    """SIGSTOP for a while to one member of three."""
    server = ground.etcd(rng)
    assert server.process is not None
    return await _stop(ground, rng, server.name, server.process.pid)


async def stop_container(ground: Ground, rng: random.Random) -> str:
    """SIGSTOP for a while to the code's own process, while it runs requests."""
    _, pid = await _runtime(ground, rng)
    seconds = rng.uniform(*CONTAINER_STOOD_S)
    async with ground.stopped(pid):
        await asyncio.sleep(seconds)
    return f"a container stood still for {seconds:.1f} s"


async def restart_all(ground: Ground, rng: random.Random) -> str:
    """Every part ends in order, and is started again before the next one ends."""
    parts: list[Child | EtcdServer] = [
        *ground.parts.managers,
        *ground.parts.routers,
        *ground.parts.etcds,
    ]
    rng.shuffle(parts)
    for part in parts:
        if isinstance(part, EtcdServer):
            await part.stop()
        else:
            await part.stop(asyncio.Event(), STOP_S)
            if await part.wait() == -signal.SIGKILL:
                raise NoEffect(f"{part.name} did not end in order")
        await part.start()
        await ground.until_whole()
    return f"{len(parts)} parts"
