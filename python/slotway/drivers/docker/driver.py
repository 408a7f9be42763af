"""The Docker driver; `docs/docker.md` says what it promises.

The engine is the truth, and the driver keeps nothing that it could not ask for again: any number of
drivers may use one engine, after one another or at once. A container's name is its id. It has ended
when the engine says that it has exited *and* has removed it, under the engine's own id: until then
somebody could start it again. After that a tomb holds its name, so that nobody who decided long ago
to create it still can; the name is free for an instant only, and who takes it then is ended too.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from ipaddress import IPv4Network
from types import TracebackType
from typing import Any, Self

from slotway.drivers.base import (
    LOG_BYTES_MAX,
    Addresses,
    ContainerFound,
    ContainerId,
    ContainerSpec,
    DriverError,
    EndedLoadingError,
    UnfitError,
)
from slotway.drivers.docker import container as containers
from slotway.drivers.docker.burials import Burials
from slotway.drivers.docker.container import CONCURRENCY, ID, TOMB, Found, State, name_of
from slotway.drivers.docker.engine import Engine, EngineError
from slotway.drivers.docker.network import CLUSTER, Network, Subnet
from slotway.drivers.docker.options import DockerOptions
from slotway.drivers.docker.outside import Outside
from slotway.drivers.init import post_init

CREATE_S = 30.0
START_S = 20.0
RETRY_S = 0.5
ENDING_S = 2.0
"""For the engine to say how a container ended that breaks its connections."""
TOMBS_MAX = 500
"""The newest ones are kept. A Manager that sleeps while more containers end may create one again;
it gets no code, as that takes a commit, and is removed as a stray."""
logger = logging.getLogger(__name__)


class DockerDriver:
    """Containers of one cluster on one engine; see `base.Driver`."""

    name = "docker"

    def __init__(
        self,
        cluster: str,
        options: DockerOptions,
        *,
        reconcile: timedelta = timedelta(seconds=5),
        answer: timedelta = timedelta(seconds=10),
    ) -> None:
        """ValueError if a subnet is none, or they overlap."""
        self._cluster, self._options = cluster, options
        self._subnet = Subnet(options.subnet)
        self.numbered: Addresses | None = self._subnet.addresses
        self._engine = Engine(options.socket, answer.total_seconds())
        self.network = Network(self._engine, cluster, self._subnet)
        self._outside = Outside(self._engine, cluster, options.out_subnet)
        if options.out_subnet and self._subnet.network.overlaps(IPv4Network(options.out_subnet)):
            raise ValueError(f"the subnets {options.subnet} and {options.out_subnet} overlap")
        self._period_s = reconcile.total_seconds()
        self._engine_id = ""
        self._burials = Burials(self._engine, cluster)
        self._following = False
        """Whether the engine's events are heard."""
        self._tasks: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Finds the engine and the containers that are there."""
        try:
            await self._engine.open()
            self._engine_id = (await self._engine.call("GET", "/info"))["ID"]
            await self._burials.open()
            following: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._own(self._follow_for_ever(following))
            await following
        except BaseException:
            await self.close()
            raise
        self._own(self._reconcile_for_ever())

    async def close(self) -> None:
        """Lets go of everything. Containers live on."""
        await self._stop_tasks()
        await self._burials.close()
        await self._engine.close()

    def engine(self) -> str:
        """The engine's own id: it stays when the engine or the machine restarts."""
        return f"docker/{self._engine_id}"

    def address(self, container: ContainerId, number: int = 0) -> str:
        """The address with this number, whoever gets it."""
        return self._subnet.address(number)

    # Creating.

    async def check(self, kind: str, image: str, capacity: int) -> None:
        """Asks the engine what the image declares, if that matters."""
        chosen = self._image(kind, image)
        if capacity > 1:
            await self._check_concurrency(chosen, capacity)

    def _image(self, kind: str, image: str) -> str:
        chosen = image or self._options.images.get(kind)
        if chosen is None:
            kinds = ", ".join(sorted(self._options.images))
            raise UnfitError("kind", f"no image is configured for {kind}; there are: {kinds}")
        return chosen

    async def create(self, spec: ContainerSpec) -> None:
        """Creates and starts it; see `base.Driver`. Cancelled, it leaves the container to
        `list`."""
        if spec.label.cluster != self._cluster:
            raise DriverError(f"this driver is for the cluster {self._cluster!r}")
        container = spec.label.id
        if container in self._burials.creating:
            raise DriverError(f"container {container} is being created")
        self._burials.creating[container] = ""
        try:
            async with asyncio.timeout(CREATE_S):
                await self._create(spec)
        except TimeoutError as error:
            raise DriverError(f"container {container} took more than {CREATE_S:g} s") from error
        finally:
            del self._burials.creating[container]

    async def _create(self, spec: ContainerSpec) -> None:
        image = self._image(spec.kind, spec.image)
        if spec.capacity > 1 and not spec.concurrent:
            await self._check_concurrency(image, spec.capacity)
        network = await self.network.ensure(spec.ledger)
        name = name_of(self._cluster, spec.label.id)
        body = containers.hardened(spec, image, network, self._options.cpus)
        try:
            made = await self._engine.call(
                "POST", "/containers/create", body, timeout_s=START_S, name=name
            )
            engine_id = made["Id"]
        except EngineError as error:
            if error.status == 404:
                raise _no_image(image) from error
            if error.status != 409:
                raise
            engine_id = await self._adopt(spec)
        self._burials.seen.add(spec.label.id)
        if spec.network:
            await self._outside.attach(engine_id)
        await self._start(engine_id)
        if self._following:
            self._burials.sure[spec.label.id] = spec.address
        await self._until_it_accepts(spec, engine_id)

    async def _check_concurrency(self, image: str, capacity: int) -> None:
        try:
            found = await self._engine.call("GET", f"/images/{image}/json")
        except EngineError as error:
            if error.status != 404:
                raise
            raise _no_image(image) from error
        if (found["Config"]["Labels"] or {}).get(CONCURRENCY) != "true":
            raise UnfitError(
                "capacity",
                f"the image {image} does not say that it runs activations side by side (its label"
                f" {CONCURRENCY}=true): put the action with a concurrency of 1, not {capacity}; or"
                " with --concurrent, if you know that it can",
            )

    async def _adopt(self, spec: ContainerSpec) -> str:
        """The engine's id of what has this name; DriverError if it is not to be used."""
        found = await self._burials.inspect(spec.label.id)
        if found is None or found.state in (State.TOMB, State.EXITED):
            raise DriverError(f"container {spec.label.id} has ended")
        if found.label.cluster != self._cluster or found.address != spec.address:
            raise DriverError(f"container {spec.label.id} is there, but not as recorded")
        return found.engine_id

    async def _start(self, engine_id: str) -> None:
        """Starts it, by the engine's id: what was removed meanwhile stays so."""
        try:
            await self._engine.call("POST", f"/containers/{engine_id}/start", timeout_s=START_S)
        except EngineError:
            self.network.doubt()
            self._outside.doubt()
            with contextlib.suppress(DriverError):
                await self._burials.remove(engine_id)
            raise

    async def _until_it_accepts(self, spec: ContainerSpec, engine_id: str) -> None:
        host, _, port = spec.address.rpartition(":")
        attempts = 0
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
            attempts += 1
            if attempts % 10 == 0:
                found = await self._burials.inspect(spec.label.id)
                if found is None or found.engine_id != engine_id or found.state != State.RUNNING:
                    # Whoever noticed first has removed it.
                    await self._burials.bury(spec.label.id, kill=False)
                    ending = self._burials.creating[spec.label.id] or "it was removed"
                    raise DriverError(f"container {spec.label.id} has ended: {ending}")
            await asyncio.sleep(0.01)

    async def init(
        self, container: ContainerId, value: dict[str, object], timeout: timedelta
    ) -> None:
        """`POST /init`, if the engine says that the container runs: now, or before, with all its
        events heard since."""
        address = self._burials.sure.get(container) or await self._address_of(container)
        try:
            await post_init(address, value, timeout)
        except EndedLoadingError as error:
            with contextlib.suppress(DriverError, TimeoutError):
                async with asyncio.timeout(ENDING_S):
                    # Its connections break before the engine has noticed.
                    while not await self._burials.bury(container, kill=False):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
            raise EndedLoadingError(self.ending(container)) from error
        except DriverError:
            await self._address_of(container)  # a better reason, if it has ended
            raise

    async def _address_of(self, container: ContainerId) -> str:
        """As its label tells. DriverError unless it runs."""
        found = await self._burials.inspect(container)
        if found is None or found.state != State.RUNNING:
            raise DriverError(f"container {container} has ended")
        return found.address

    # Ending.

    async def destroy(self, container: ContainerId) -> None:
        """Begins to end the container; a name that never was one is used up."""
        name_of(self._cluster, container)
        self._burials.begin(container, kill=True)

    async def has_ended(self, container: ContainerId) -> bool:
        """Whether nothing of it is left. A name that was never used is used up by asking, unless
        this driver is just creating it."""
        if container in self._burials.creating:
            return False
        return await self._burials.bury(container, kill=False)

    def ending(self, container: ContainerId) -> str:
        """As the engine told it before the container was removed."""
        return self._burials.ends.how(container)

    # Seeing.

    async def log(self, container: ContainerId) -> bytes:
        """The files that the engine keeps; they go with the container."""
        found = await self._burials.inspect(container)
        if found is None or found.state is State.TOMB:
            raise DriverError(
                f"no log is kept of container {container}: the end of it is in the Manager's log"
            )
        return await self._engine.log(found.engine_id, bytes_max=LOG_BYTES_MAX)

    async def list(self) -> builtins.list[ContainerFound]:
        """What carries this cluster's label, and has not ended."""
        found = []
        for each in await self._listing():
            if each.state in (State.CREATED, State.RUNNING):
                try:
                    label = each.label
                except DriverError as error:
                    logger.error("%s", error)
                    continue
                found.append(ContainerFound(label, each.state is State.RUNNING, each.address))
        return found

    def ends(self) -> AsyncIterator[ContainerId]:
        """Ends as they are proved, each at least once. For one reader."""
        return self._burials.ends.read()

    async def _listing(self) -> builtins.list[Found]:
        """The newest first."""
        answer: builtins.list[dict[str, Any]] = await self._engine.call(
            "GET", "/containers/json", all="true", filters=self._filter()
        )
        return [containers.of_listing(each) for each in answer]

    def _filter(self, **more: builtins.list[str]) -> str:
        return json.dumps({"label": [f"{CLUSTER}={self._cluster}"], **more})

    async def _follow_for_ever(self, following: asyncio.Future[None]) -> None:
        """Looks at each container that the engine's events speak of, and at all of them whenever
        the events begin anew."""
        query = self._filter(type=["container"], event=["die", "destroy"])
        while True:
            try:
                async with self._engine.events(filters=query) as events:
                    self._following = True
                    await self._reconcile()
                    if not following.done():
                        following.set_result(None)
                    async for event in events:
                        labels = event.get("Actor", {}).get("Attributes") or {}
                        if ID in labels and TOMB not in labels:
                            self._burials.begin(ContainerId(labels[ID]), kill=False)
            except DriverError as error:
                if not following.done():
                    following.set_exception(error)
                    return
                logger.warning("%s", error)
            self._following = False
            self._burials.sure.clear()
            await asyncio.sleep(RETRY_S)

    async def _reconcile_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self._reconcile()
            except DriverError as error:
                self._burials.sure.clear()
                logger.warning("the engine does not tell its containers: %s", error)

    async def _reconcile(self) -> None:
        found = [each for each in await self._listing() if each.id]
        running = {each.id for each in found if each.state is State.RUNNING}
        exited = {each.id for each in found if each.state is State.EXITED}
        self._burials.seen |= running
        for container in exited | (self._burials.seen - running - self._burials.creating.keys()):
            self._burials.begin(container, kill=False)
        tombs = [each for each in found if each.state is State.TOMB]
        for each in tombs[TOMBS_MAX:]:
            await self._burials.remove(each.engine_id)

    async def dissolve(self) -> None:
        """Removes the tombs and the networks, for a cluster whose Managers and Routers are gone for
        good. DriverError while a container is left. The driver is of no use after it."""
        # Whoever still looks for ends would find a name without its tomb, and make one.
        await self._stop_tasks()
        await self._burials.finish()
        for each in await self._listing():
            if each.state is State.TOMB:
                await self._burials.remove(each.engine_id)
        await self._outside.remove()
        await self.network.remove()

    async def _stop_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _own(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _no_image(image: str) -> DriverError:
    return DriverError(
        f"the engine has no image {image}: make it with `make image`, pull it, or configure another"
        " one with `docker_images`"
    )
