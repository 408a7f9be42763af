"""The Manager's other services: health, reflection, watching, and what a standby says."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from slotway.manager.server import LEADER
from slotway.status import from_rpc_error
from slotway.v1 import action_pb2, cluster_pb2
from slotway.v1.action_pb2_grpc import ActionServiceStub
from slotway.v1.cluster_pb2_grpc import ClusterServiceStub
from tests.integration.manager_world import WAIT_S, World
from tests.integration.scripted_router import ScriptedRouter

SERVING = health_pb2.HealthCheckResponse.SERVING


async def test_health_tells_of_the_server_and_of_leading(world: World) -> None:
    async with world.lead(), grpc.aio.insecure_channel(world.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        assert (await health.Check(request, timeout=WAIT_S)).status == SERVING
        async with asyncio.timeout(WAIT_S):
            async for answer in health.Watch(health_pb2.HealthCheckRequest(service=LEADER)):
                if answer.status == SERVING:
                    break


async def test_reflection_lists_every_service(world: World) -> None:
    async with world.lead(), grpc.aio.insecure_channel(world.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async with asyncio.timeout(WAIT_S):
            answers = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]
        names = {service.name for service in answers[0].list_services_response.service}
        assert {f"slotway.v1.{name}Service" for name in ("Manager", "Action", "Cluster")} < names
        assert "grpc.health.v1.Health" in names


async def test_a_watch_tells_of_changes_only(world: World) -> None:
    async with world.lead(), grpc.aio.insecure_channel(world.address) as channel:
        call = ClusterServiceStub(channel).WatchCluster(cluster_pb2.WatchClusterRequest())
        async with asyncio.timeout(WAIT_S):
            seen = [await call.read()]
            await world.put()
            async with ScriptedRouter("r0", world.address) as router:
                await router.arrive("demo/hello")
                while True:
                    answer = await call.read()
                    assert isinstance(answer, cluster_pb2.WatchClusterResponse)
                    seen.append(answer)
                    containers = answer.cluster.containers
                    if containers and dict(containers[0].record.shares) == {"r0-1": 1}:
                        break
        call.cancel()
        assert len({str(answer) for answer in seen}) == len(seen)


async def test_a_standby_names_the_leader_and_takes_over(world: World) -> None:
    async with world.run(id="two") as second:
        await world.until(lambda: world.leads(second))
        running = world.running
        assert running is not None
        async with world.run(id="one") as first:
            await world.until(lambda: first.leader_address == second.address)
            async with grpc.aio.insecure_channel(first.address) as channel:
                request = action_pb2.GetActionRequest(name="demo/hello")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ActionServiceStub(channel).GetAction(request, timeout=WAIT_S)
            error = from_rpc_error(caught.value)
            assert (error.reason, error.metadata) == ("NOT_LEADER", {"leader": second.address})
            router = ScriptedRouter("r0", first.address)
            router.open()
            await router.until(
                lambda: [m.leader_address for m in router.messages] == [second.address]
            )
            assert router.term is None
            running.cancel()
            await router.until(lambda: router.term is not None)
            await world.until(lambda: world.leads(first))
            await router.close()
