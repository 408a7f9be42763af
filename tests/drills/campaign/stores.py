"""Faults of etcd beyond those of its processes: a full disk, and what an operator may do to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
from pathlib import Path

from slotway.drills.drill import DRILLS, Context
from slotway.drills.steps import Shell, Target
from slotway.etcd import Access, Client, Compare, Delete, EtcdError, Put
from slotway.etcd.server import EtcdServer
from tests.drills.campaign.ground import Fault, Ground, NoEffect

DISK_MIB = 192
"""etcd takes 128 MiB for its log at once."""
FILLER = "/drills/filler"
PIECE = b"x" * 500_000
PIECES_MAX = 200
FULL_S = 60.0
HELD_S = (1.0, 3.0)
ALARM_S = 20.0


def small_disk(path: Path) -> None:
    """Makes the folder a small disk; only within a house, which takes it along in the end."""
    path.mkdir(parents=True, mode=0o700)
    options = f"size={DISK_MIB}m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)


def no_disk(path: Path) -> None:
    """Takes the small disk away, if it is there: a folder with a mount cannot be removed."""
    if path.is_mount():
        subprocess.run(["umount", "--lazy", str(path)], check=True)


async def fill_disk(ground: Ground, rng: random.Random) -> str:
    """No byte is left on one member's disk, until the member fails of it. Then there is room again,
    and it is started anew."""
    server = ground.parts.etcds[-1]
    filler = server.data_dir / "filler"
    said = server.log.stat().st_size
    process = server.process
    assert process is not None
    async with Client(Access(ground.parts.endpoints, timeout_s=5.0)) as etcd:
        try:
            filled = await asyncio.to_thread(_fill, filler)
            await _until_failed(server, etcd)
            if os.statvfs(server.data_dir).f_bavail:
                raise NoEffect("there is room on the disk")
            await asyncio.sleep(rng.uniform(*HELD_S))
        finally:
            filler.unlink(missing_ok=True)
            if process.returncode is not None:
                await server.start()
            revision = (await etcd.txn([], [Delete(FILLER)])).revision
            await etcd.compact(revision)
    await ground.until_whole()
    why = server.log.read_bytes()[said:]
    if b"no space left on device" not in why:
        raise NoEffect(f"{server.name} ended, and not because its disk was full")
    return f"{server.name} ended: no space left on device ({filled >> 20} MiB were filled)"


def _fill(path: Path) -> int:
    """Takes all that is left; how many bytes."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\1" * (1 << 20))
        except OSError:
            return file.tell()


async def _until_failed(server: EtcdServer, etcd: Client) -> None:
    """Writes until the member has ended."""
    assert server.process is not None
    pieces = 0
    deadline = asyncio.get_running_loop().time() + FULL_S
    while server.process.returncode is None:
        if asyncio.get_running_loop().time() > deadline:
            raise NoEffect(f"{server.name} bears a full disk: {pieces} pieces were written")
        if pieces < PIECES_MAX:
            with contextlib.suppress(EtcdError):  # it was the member that is asked
                await etcd.txn([], [Put(FILLER, PIECE)])
            pieces += 1
        await asyncio.sleep(0.05)


def _context(ground: Ground, leader: str) -> Context:
    parts = ground.parts
    pids = {child.name: child.pid for child in (*parts.managers, *parts.routers)}
    for server in parts.etcds:
        if server.process is not None:
            pids[server.name] = server.process.pid
    target = Target(parts.cluster, parts.endpoints, tuple(parts.addresses), pids)
    return Context(Shell(target, lambda _: None), leader)


def drill(name: str) -> Fault:
    """An operator's drill (`slotway drill`) as a fault: what it wants changed is seen to change."""
    what = DRILLS[name]

    async def inject(ground: Ground, rng: random.Random) -> str:
        before, child = await ground.term(), await ground.leader()
        context = _context(ground, child.name)
        await what.fault(context)
        if what.end is not None:
            await asyncio.sleep(rng.uniform(*HELD_S))
            await what.end(context)
        if not what.new_leader:
            await ground.until_whole()
            return what.summary
        after = await ground.until_new_term(before)
        if name == "handover":
            await child.wait()
            await child.start()
        await ground.until_whole()
        return f"term {before[1]} -> {after[1]}"

    return inject


async def alarm(ground: Ground, rng: random.Random) -> str:
    """etcd's alarm NOSPACE is raised: it is seen to refuse a write."""
    what = DRILLS["full"]
    context = _context(ground, (await ground.leader()).name)
    assert what.end is not None
    await what.fault(context)
    try:
        said = await context.shell.etcdctl("alarm", "list")
        if "NOSPACE" not in said:
            raise NoEffect(f"no alarm: {said}")
        async with Client(Access(ground.parts.endpoints)) as etcd:
            try:
                await etcd.txn([Compare(FILLER, mod_revision=0)], [Put(FILLER, b"")])
            except EtcdError as error:
                refused = str(error)
            else:
                raise NoEffect("etcd takes writes")
        await asyncio.sleep(rng.uniform(*HELD_S))
    finally:
        await what.end(context)
        async with Client(Access(ground.parts.endpoints)) as etcd:
            await etcd.txn([], [Delete(FILLER)])
    await ground.until_whole()
    return f"a write was refused: {refused[:60]}"


async def away(ground: Ground, rng: random.Random) -> str:
    """All members stand still for a while: nothing can be written, warm requests go on."""
    seconds = rng.uniform(2, 6)
    pids = [server.process.pid for server in ground.parts.etcds if server.process is not None]
    before = ground.load.outcomes["ok"]
    async with ground.stopped(pids[0]), ground.stopped(pids[1]), ground.stopped(pids[2]):
        await asyncio.sleep(seconds)
        served = ground.load.outcomes["ok"] - before
    await ground.until_whole()
    if not served:
        raise AssertionError(f"no request was served in {seconds:.1f} s without etcd")
    return f"{seconds:.1f} s without etcd, {served} requests were served meanwhile"
