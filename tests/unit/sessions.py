"""A Router's session, run against scripted Managers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from slotway.router.attachment import Identity
from slotway.router.session import Session
from slotway.v1 import manager_pb2 as pb
from tests.unit.scripted import ScriptedManager, ScriptedPlane

CONTAINER = pb.Container(action="ns/a", revision=7, address="unix:/c1", capacity=10)


class Members:
    """The list of Managers, as etcd would tell it."""

    def __init__(self) -> None:
        self.lists: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()

    async def follow(self) -> AsyncIterator[Mapping[str, str]]:
        while True:
            yield await self.lists.get()


@asynccontextmanager
async def running_session(
    plane: ScriptedPlane, *managers: ScriptedManager
) -> AsyncIterator[tuple[Session, Members]]:
    members = Members()
    session = Session(plane, Identity("r1", "inc", "h:1"), give_back_ms=60_000)
    members.lists.put_nowait({f"m{n}": manager.address for n, manager in enumerate(managers)})
    task = asyncio.create_task(session.run(members.follow()))
    try:
        yield session, members
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


def leader_of(session: Session) -> str:
    return session.leader.manager if session.leader is not None else ""


def order(
    counter: int, target: int, container: pb.Container | None = CONTAINER, name: str = "c1"
) -> pb.ShareOrder:
    return pb.ShareOrder(container_id=name, target=target, counter=counter, container=container)
