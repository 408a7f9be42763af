"""The ends of containers: from whatever is there by a name to a tomb that holds it for good.

An exited container could be started again, by a request that was on its way. So it is removed,
under the engine's own id, which no later start can name. The name is then taken by a tomb, a
container without a program: who decided long ago to create the container finds it. Between the two
somebody may take the name; it is looked at again until the tomb is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from slotway.drivers.base import ContainerId, DriverError
from slotway.drivers.docker import container as containers
from slotway.drivers.docker.container import Found, State, name_of
from slotway.drivers.docker.engine import Engine, EngineError
from slotway.drivers.docker.network import CLUSTER
from slotway.drivers.ends import Ends

REQUEST_S = 20.0
EXIT_S = 10.0
RETRY_S, RETRY_S_MAX = 0.5, 5.0
BUSY_S = 0.05
LAST_LINES = 20
TOMB_IMAGE = "slotway/tomb:1"
EMPTY_ARCHIVE = bytes(1024)
"""A tar file with nothing in it."""
logger = logging.getLogger(__name__)


class Burials:
    """One driver's view of how its cluster's containers end."""

    def __init__(self, engine: Engine, cluster: str) -> None:
        self._engine, self._cluster = engine, cluster
        self.ends = Ends()
        self.seen: set[ContainerId] = set()
        """Were seen to run, and their end is yet to be told."""
        self.creating: dict[ContainerId, str] = {}
        """What this driver creates just now, and how it ended meanwhile, for people."""
        self.sure: dict[ContainerId, str] = {}
        """Addresses of containers that the engine has started here, while its events are followed
        and there is no reason to doubt that they run: it need not be asked."""
        self._tasks: dict[ContainerId, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Makes the image of the tombs, if it is not there."""
        try:
            await self._engine.call("GET", f"/images/{TOMB_IMAGE}/json")
        except EngineError as error:
            if error.status != 404:
                raise
            repository, _, tag = TOMB_IMAGE.partition(":")
            query = {"fromSrc": "-", "repo": repository, "tag": tag}
            await self._engine.send(
                "POST", "/images/create", EMPTY_ARCHIVE, "application/x-tar", REQUEST_S, query
            )

    async def close(self) -> None:
        """Stops ending things."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self) -> None:
        """Waits for all that were begun."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def inspect(self, container: ContainerId) -> Found | None:
        """What there is by its name."""
        name = name_of(self._cluster, container)
        try:
            return containers.of_inspection(
                await self._engine.call("GET", f"/containers/{name}/json")
            )
        except EngineError as error:
            if error.status != 404:
                raise
            return None

    def begin(self, container: ContainerId, *, kill: bool) -> None:
        """Begins to bury it, and goes on until it has; with `kill`, though it runs."""
        self.sure.pop(container, None)
        if container not in self._tasks:
            task = asyncio.create_task(self._bury_at_last(container, kill=kill))
            self._tasks[container] = task
            task.add_done_callback(lambda _: self._tasks.pop(container, None))
        elif kill:
            # It is being looked at, without force: what is running then is killed next.
            self._tasks[container].add_done_callback(
                lambda task: None if task.cancelled() else self.begin(container, kill=True)
            )

    async def _bury_at_last(self, container: ContainerId, *, kill: bool) -> None:
        pause_s = RETRY_S
        while True:
            try:
                if await self.bury(container, kill=kill) and kill:
                    self.ends.tell(container)
            except DriverError as error:
                logger.warning("container %s cannot be ended yet: %s", container, error)
                await asyncio.sleep(pause_s)
                pause_s = min(RETRY_S_MAX, 2 * pause_s)
            else:
                return

    async def bury(self, container: ContainerId, *, kill: bool) -> bool:
        """Brings a container that has exited to its proved end; with `kill` any. Whether it has
        ended."""
        self.sure.pop(container, None)
        while True:
            found = await self.inspect(container)
            if found is None:
                if await self._entomb(container):
                    break
                continue
            if found.state is State.TOMB:
                break
            if found.labels.get(CLUSTER) != self._cluster:
                raise DriverError(
                    f"somebody else has named a container {name_of(self._cluster, container)}"
                )
            if found.state is State.EXITED:
                self.ends.explain(container, found.ending)
                ending = await self._ending_of(found)
                logger.info("container %s has ended: %s", container, ending)
                if container in self.creating:
                    self.creating[container] = ending
                await self.remove(found.engine_id)
            elif not kill:
                return False
            elif found.state is State.CREATED:
                await self.remove(found.engine_id)
            else:
                await self._kill(found.engine_id)
        if container in self.seen:
            self.seen.discard(container)
            self.ends.tell(container)
        return True

    async def _ending_of(self, found: Found) -> str:
        """How it ended, and what it said last: both are gone with it."""
        with contextlib.suppress(EngineError):
            log = await self._engine.log(found.engine_id, str(LAST_LINES))
            if said := log.decode("utf-8", "replace").strip():
                return f"{found.ending}; the end of its log:\n{said}"
        return found.ending

    async def _entomb(self, container: ContainerId) -> bool:
        """Takes the name for good; False if somebody else has it."""
        body = containers.tomb(self._cluster, container, TOMB_IMAGE)
        name = name_of(self._cluster, container)
        try:
            await self._engine.call(
                "POST", "/containers/create", body, timeout_s=REQUEST_S, name=name
            )
        except EngineError as error:
            if error.status != 409:
                raise
            await asyncio.sleep(BUSY_S)
            return False
        return True

    async def _kill(self, engine_id: str) -> None:
        """Kills it and waits; whether it helped is asked anew."""
        try:
            await self._engine.call("POST", f"/containers/{engine_id}/kill", signal="KILL")
            await self._engine.call(
                "POST",
                f"/containers/{engine_id}/wait",
                timeout_s=EXIT_S,
                condition="not-running",
            )
        except EngineError as error:
            if error.status not in (404, 409):
                raise
            await asyncio.sleep(BUSY_S)

    async def remove(self, engine_id: str) -> None:
        """Removes it unless it runs; whether it helped is asked anew."""
        try:
            await self._engine.call(
                "DELETE", f"/containers/{engine_id}", timeout_s=REQUEST_S, v="true"
            )
        except EngineError as error:
            if error.status not in (404, 409):
                raise
            await asyncio.sleep(BUSY_S)
