"""The simulated etcd passes the contract suite that the real one passes: the very same tests."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from slotway.etcd import Access, Client
from slotway.records import Keys
from tests.contract import test_etcd, test_etcd_watch, test_leader
from tests.simulation.etcd import Member, Quorum
from tests.simulation.loop import Node, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.server import Server
from tests.simulation.sources import Log, buried, replaced

Case = Callable[..., Coroutine[Any, Any, None]]
REAL_ONLY = {
    "test_a_member_without_its_quorum_refuses_and_is_named",  # three processes
    "test_a_full_etcd_may_have_applied_what_it_refuses",  # a disk
    "test_the_second_waits_for_the_first",  # a socket
}
_numbers = itertools.count(1)


class SimulatedServer:
    """What the suite asks of `slotway.etcd.server.EtcdServer`."""

    def __init__(self, loop: VirtualLoop, network: Network, rng: Random, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.quorum = Quorum(rng)
        self._loop, self._network = loop, network
        self._node = Node("etcd")
        self._port = 0
        loop.spawn(Node("leases"), self.quorum.expire(), "leases")

    @property
    def endpoint(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Begins anew if its data is gone. It takes its time, in which clients see the end of the
        one before."""
        await asyncio.sleep(0.05)
        if not self.data_dir.exists() and self._port:
            self.quorum.wipe()
        self.data_dir.mkdir(exist_ok=True)
        self._node = Node("etcd")

        async def serve() -> None:
            server = Server(self._network)
            Member(self.quorum).add_to(server)
            self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")

        await self._loop.spawn(self._node, serve(), "etcd")
        self.quorum.store.renew(self._loop.time())

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it."""
        self._network.kill(self._node)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It stands still in the body."""
        self._node.paused = True
        try:
            yield
        finally:
            self._loop.resume(self._node)


class Fixtures:
    """The suite's fixtures, over the simulation."""

    def __init__(self, loop: VirtualLoop, network: Network, rng: Random, folder: Path) -> None:
        self._loop, self._network, self._rng, self._folder = loop, network, rng, folder
        self._cluster = f"test-{next(_numbers)}"
        self._server: SimulatedServer | None = None

    async def etcd_server(self, stack: AsyncExitStack) -> SimulatedServer:
        """Shared by all who ask for it in a test."""
        if self._server is None:
            self._server = await self.own_etcd(stack)
        return self._server

    async def own_etcd(self, stack: AsyncExitStack) -> SimulatedServer:
        """One of the test's own."""
        folder = self._folder / f"{next(_numbers)}"
        server = SimulatedServer(self._loop, self._network, self._rng, folder)
        await server.start()
        return server

    async def etcd(self, stack: AsyncExitStack) -> Client:
        """A client of the shared one."""
        server = await self.etcd_server(stack)
        return await stack.enter_async_context(Client(Access((server.endpoint,))))

    async def cluster(self, stack: AsyncExitStack) -> str:
        """A name of the test's own."""
        return self._cluster

    async def keys(self, stack: AsyncExitStack) -> Keys:
        """Of that name."""
        return Keys(self._cluster)

    async def monkeypatch(self, stack: AsyncExitStack) -> pytest.MonkeyPatch:
        """Undone at the end."""
        return stack.enter_context(pytest.MonkeyPatch.context())

    @asynccontextmanager
    async def given(self, names: list[str]) -> AsyncIterator[dict[str, Any]]:
        """What a test asks for by name."""
        async with AsyncExitStack() as stack:
            yield {name: await getattr(self, name)(stack) for name in names}


def variants(case: Case) -> list[dict[str, Any]]:
    """A test's parameters, as `pytest.mark.parametrize` gives them."""
    found: list[list[dict[str, Any]]] = []
    for mark in getattr(case, "pytestmark", []):
        names, values = mark.args
        names = [names] if isinstance(names, str) else list(names)
        found.append([dict(zip(names, v if len(names) > 1 else [v], strict=True)) for v in values])
    return [
        {name: value for part in parts for name, value in part.items()}
        for parts in itertools.product(*found)
    ]


def cases() -> Iterator[Any]:
    """Every test of the suite."""
    for module in (test_etcd, test_etcd_watch, test_leader):
        for name, case in vars(module).items():
            if name.startswith("test_") and inspect.iscoroutinefunction(case):
                if name in REAL_ONLY:
                    continue
                for number, variant in enumerate(variants(case)):
                    yield pytest.param(case, variant, id=f"{name}-{number}")


@pytest.mark.parametrize(("case", "variant"), list(cases()))
def test_the_simulated_etcd(case: Case, variant: dict[str, Any], tmp_path: Path) -> None:
    with buried():
        failures = passes(case, variant, tmp_path)
    assert not failures


def passes(case: Case, variant: dict[str, Any], folder: Path) -> list[str]:
    """Runs a test; returns what nobody caught in it."""
    loop, rng = VirtualLoop(), Random(1)
    network = Network(loop, rng)

    async def run() -> None:
        fixtures = Fixtures(loop, network, rng, folder)
        names = [name for name in inspect.signature(case).parameters if name not in variant]
        async with fixtures.given(names) as given:
            await case(**given, **variant)

    async def main() -> None:
        await loop.spawn(Node("test"), run(), "test")

    log = Log(loop, show=False)
    with replaced(loop, network, rng, log):
        try:
            loop.run(main())
        finally:
            log.mute()
            loop.abandon()
    return loop.failures


def test_the_suite_is_there() -> None:
    assert len(list(cases())) > 50
