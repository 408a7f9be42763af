"""A whole Router, with a real etcd and data plane, a scripted Manager and a scripted container."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from slotway.aio import CallError
from slotway.aio import Client as Caller
from slotway.config import EtcdConfig, RouterConfig
from slotway.etcd import Client, Put
from slotway.etcd.server import EtcdServer
from slotway.records import Keys, encode
from slotway.router.server import COLD_PATH, Router
from slotway.v1 import ledger_pb2 as ledger
from slotway.v1 import manager_pb2 as pb
from tests.integration.door import ACTION, Container
from tests.unit.scripted import SECONDS_MAX, ScriptedManager, Stream, scripted_manager

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
COMMAND = "from slotway.cli.main import app; app(['router', *__import__('sys').argv[1:]])"


async def listed(etcd: Client, cluster: str, manager: ScriptedManager) -> None:
    """Has the Manager found by Routers."""
    member = ledger.MemberRecord(schema=1, id="m1", address=manager.address, incarnation="i")
    await etcd.txn([], [Put(Keys(cluster).member("m1"), encode(member))])


def config_of(endpoint: str, cluster: str, **settings: Any) -> RouterConfig:
    return RouterConfig(
        cluster=cluster, name="r1", etcd=EtcdConfig(endpoints=(endpoint,)), **settings
    )


@pytest.fixture
async def manager() -> AsyncIterator[ScriptedManager]:
    async with scripted_manager() as manager:
        yield manager


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[Container]:
    async with Container(tmp_path / "c.sock") as container:
        yield container


@pytest.fixture
async def router(etcd_server: EtcdServer, cluster: str) -> AsyncIterator[Router]:
    async with Router(config_of(etcd_server.endpoint, cluster)) as router:
        yield router


@asynccontextmanager
async def health(address: str, service: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        yield health_pb2_grpc.HealthStub(channel).Watch(request, timeout=SECONDS_MAX)


def described(container: Container, slots: int, counter: int) -> pb.ShareOrder:
    known = pb.Container(action=ACTION, revision=1, address=container.address, capacity=10)
    known.timeout.FromSeconds(60)
    return pb.ShareOrder(container_id="c-1", target=slots, counter=counter, container=known)


async def grant(stream: Stream, container: Container, slots: int) -> None:
    await stream.send((1, 5), orders=[described(container, slots, counter=1)])


async def until_refused(caller: Caller) -> CallError:
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            try:
                await caller.invoke(ACTION, {"do": "echo"})
            except CallError as error:
                return error


async def test_health_follows_the_leader(
    router: Router, etcd: Client, cluster: str, manager: ScriptedManager
) -> None:
    async with health(router.address, COLD_PATH) as cold, health(router.address, "") as whole:
        assert (await cold.read()).status == NOT_SERVING
        assert (await whole.read()).status == SERVING
        await listed(etcd, cluster, manager)
        stream = await manager.stream()
        await stream.welcome((1, 5))
        assert (await cold.read()).status == SERVING
        stream.over.set()
        assert (await cold.read()).status == NOT_SERVING
        await router.stop()
        assert (await whole.read()).status == NOT_SERVING


async def test_reflection_lists_all_services(router: Router) -> None:
    async with grpc.aio.insecure_channel(router.address) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {service.name for service in (await call.read()).list_services_response.service}
        symbol = "slotway.v1.RouterService"
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        assert (await call.read()).file_descriptor_response.file_descriptor_proto
        await call.done_writing()
    assert names == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "slotway.v1.ActionService",
        "slotway.v1.ClusterService",
        "slotway.v1.RouterService",
    }


async def test_without_a_leader_only_what_is_cold_is_refused(router: Router) -> None:
    async with Caller(router.address) as caller:
        with pytest.raises(CallError) as caught:
            await caller.cluster()
        assert caught.value.reason == "NO_LEADER"


async def test_a_request_waits_is_reported_and_served(
    router: Router, etcd: Client, cluster: str, manager: ScriptedManager, container: Container
) -> None:
    await listed(etcd, cluster, manager)
    stream = await manager.stream()
    await stream.welcome((1, 5))
    async with Caller(router.address) as caller:
        waiting = asyncio.create_task(caller.invoke(ACTION, {"do": "echo"}, timeout=SECONDS_MAX))
        report = await stream.next("demand")
        assert [(d.action, d.waiting) for d in report.demand] == [(ACTION, 1)]
        await grant(stream, container, 3)
        assert (await waiting).result == {"value": {"do": "echo"}}


async def test_warm_requests_go_on_without_manager_and_etcd(
    own_etcd: EtcdServer, container: Container
) -> None:
    config = config_of(own_etcd.endpoint, "own", give_back=timedelta(milliseconds=100))
    async with scripted_manager() as manager, Router(config) as router:
        async with Client(config.etcd.access()) as etcd:
            await listed(etcd, "own", manager)
        stream = await manager.stream()
        await stream.welcome((1, 5), period_ms=20)
        await grant(stream, container, 2)
        async with Caller(router.address) as caller:
            await caller.invoke(ACTION, {"do": "echo"}, timeout=SECONDS_MAX)
            await own_etcd.stop()
            await manager.stop()
            async with health(router.address, COLD_PATH) as cold:
                while (await cold.read()).status != NOT_SERVING:
                    pass
            for _ in range(20):
                await caller.invoke(ACTION, {"do": "echo"}, timeout=SECONDS_MAX)
            # The Manager comes back at its address, while etcd is still away.
            await manager.start(manager.address)
            hello = await (await manager.stream()).welcome((1, 5))
            assert [(h.container_id, h.held) for h in hello.holdings] == [("c-1", 2)]


async def test_stops_in_order(
    router: Router, etcd: Client, cluster: str, manager: ScriptedManager, container: Container
) -> None:
    await listed(etcd, cluster, manager)
    stream = await manager.stream()
    await stream.welcome((1, 5), period_ms=50)
    await grant(stream, container, 2)
    async with Caller(router.address) as caller:
        running = asyncio.create_task(caller.invoke(ACTION, {"do": "hold"}, timeout=SECONDS_MAX))
        await container.until(lambda: container.running == 1)
        stopping = asyncio.create_task(router.stop())
        assert (await until_refused(caller)).reason == "STOPPING"
        container.gate.set()
        assert (await running).result
        while not (message := await stream.next("acknowledgements")).leaving:
            pass
        last = message.acknowledgements[-1]
        assert (last.container_id, last.holding) == ("c-1", 0)
        await stopping
        assert stream.over.is_set()


async def test_the_data_plane_takes_back_what_was_never_described(
    router: Router, etcd: Client, cluster: str, manager: ScriptedManager, container: Container
) -> None:
    await listed(etcd, cluster, manager)
    stream = await manager.stream()
    await stream.welcome((1, 5))
    back = pb.ShareOrder(container_id="c-1", target=0, counter=1)
    await stream.send((1, 5), orders=[back, described(container, 1, counter=2)])
    # What it is was learnt from the order that had it serve.
    async with Caller(router.address) as caller:
        await caller.invoke(ACTION, {"do": "echo"}, timeout=SECONDS_MAX)


async def test_an_address_in_use_says_what_to_do(router: Router) -> None:
    with pytest.raises(Exception, match="choose another address with --listen"):
        Router(config_of("127.0.0.1:1", "any", listen=router.address))


@pytest.mark.parametrize("signals", [1, 2])
async def test_the_command_ends_by_signals(
    signals: int,
    etcd_server: EtcdServer,
    etcd: Client,
    cluster: str,
    manager: ScriptedManager,
    container: Container,
) -> None:
    await listed(etcd, cluster, manager)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COMMAND),
        *("--name", "r1", "--cluster", cluster, "--etcd", etcd_server.endpoint),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        stream = await manager.stream()
        await stream.welcome((1, 5), period_ms=50)
        await grant(stream, container, 2)
        async with Caller(stream.opened.address) as caller:
            running = asyncio.create_task(caller.invoke(ACTION, {"do": "hold"}))
            await container.until(lambda: container.running == 1)
            process.send_signal(signal.SIGTERM)
            if signals == 2:
                async with health(stream.opened.address, "") as whole:
                    while (await whole.read()).status != NOT_SERVING:
                        pass
                process.send_signal(signal.SIGTERM)
            else:
                container.gate.set()
                assert (await running).result
            async with asyncio.timeout(SECONDS_MAX):
                assert await process.wait() == signals - 1
            if signals == 2:
                with pytest.raises(CallError):
                    await running
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
