"""Many Routers' sessions in one process: `python -m drills.sessions SETTINGS`, JSON.

Each is a Router's own session code with a data plane of its own that nobody sends requests to.
SETTINGS: "cluster", "etcd" (endpoints), "name" (a prefix), "count". Prints {"led": n} when the
number of those that a leader has greeted changes.
"""

import asyncio
import json
import os
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing

from slotway import log
from slotway._slotcore import DataPlane
from slotway.config import LogConfig
from slotway.descriptors import raise_limit
from slotway.etcd import Access, Client
from slotway.members import managers
from slotway.records import Keys
from slotway.router.attachment import Identity
from slotway.router.session import Session
from slotway.signals import until_signalled

LOOK_S = 0.02
DESCRIPTORS_EACH = 12
DAY_MS = 86_400_000


async def lists(queue: asyncio.Queue[Mapping[str, str]]) -> AsyncIterator[Mapping[str, str]]:
    """What `follow` puts there."""
    while True:
        yield await queue.get()


async def follow(
    settings: dict[str, object], queues: list[asyncio.Queue[Mapping[str, str]]]
) -> None:
    """Tells all sessions of the Managers, by one watch."""
    async with (
        Client(Access(tuple(settings["etcd"]))) as etcd,
        aclosing(managers(etcd, Keys(str(settings["cluster"])))) as found,
    ):
        async for listed in found:
            for queue in queues:
                queue.put_nowait(listed)


async def main(settings: dict[str, object]) -> None:
    """Runs until a signal."""
    count = int(str(settings["count"]))
    log.configure(LogConfig(level="error", format="json"))
    raise_limit(DESCRIPTORS_EACH * count + 100, "some for every session")
    sessions, queues = [], []
    with tempfile.TemporaryDirectory(prefix="slotway-") as folder:
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                upstream, incarnation = os.path.join(folder, "none.sock"), uuid.uuid4().hex
                plane = DataPlane(listen="127.0.0.1:0", upstream=upstream, incarnation=incarnation)
                identity = Identity(f"{settings['name']}-{number}", incarnation, plane.address)
                session = Session(plane, identity, give_back_ms=DAY_MS)
                queue: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
                tasks.create_task(session.run(lists(queue)))
                sessions.append(session)
                queues.append(queue)
            tasks.create_task(follow(settings, queues))
            said = 0
            while True:
                led = sum(session.leader is not None for session in sessions)
                if led != said:
                    said = led
                    print(json.dumps({"led": led}), flush=True)
                await asyncio.sleep(LOOK_S)


if __name__ == "__main__":
    asyncio.run(until_signalled(main(json.loads(sys.argv[1]))))
