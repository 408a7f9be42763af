"""An etcd of several members on the loopback interface, as children of this process.

Their ports are written down beside their data: a member finds the others by them when it starts
again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from slotway.etcd.server import EtcdServer, EtcdServerError, free_port

PORTS = "ports.json"


def etcd_servers(
    data_dir: Path, logs: Path, members: int, options: Sequence[str] = ()
) -> list[EtcdServer]:
    """The members, not started. One member keeps its data in `data_dir` itself.

    EtcdServerError if there is data of another number of them.
    """
    known = len(_written(data_dir)) or int((data_dir / "member").exists())
    if known not in (0, members):
        raise EtcdServerError(
            f"{data_dir} has an etcd of {known} members: start as many, or use another folder"
        )
    if members == 1:
        return [EtcdServer(data_dir, logs / "etcd.log", options=options)]
    names = [f"etcd-{number}" for number in range(1, members + 1)]
    ports = _ports(data_dir, names)
    peers = {name: f"http://127.0.0.1:{ports[name][1]}" for name in names}
    return [
        EtcdServer(
            data_dir / name,
            logs / f"{name}.log",
            options=options,
            endpoint=f"http://127.0.0.1:{ports[name][0]}",
            name=name,
            peers=peers,
        )
        for name in names
    ]


def _ports(data_dir: Path, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """For each member the port for clients and that for the other members."""
    if known := _written(data_dir):
        return known
    chosen = {name: (free_port(), free_port()) for name in names}
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (data_dir / PORTS).write_text(json.dumps(chosen))
    return chosen


def _written(data_dir: Path) -> dict[str, tuple[int, int]]:
    try:
        known: dict[str, tuple[int, int]] = json.loads((data_dir / PORTS).read_text())
    except FileNotFoundError:
        return {}
    return known


async def start_all(servers: Sequence[EtcdServer]) -> None:
    """Starts them at once: none answers before most of them run. EtcdServerError."""
    try:
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.start())
    except* EtcdServerError as errors:
        raise errors.exceptions[0] from None
