"""Front doors that have no slots forward to one that has: once, and never what may have run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest

from slotway.v1 import router_pb2, router_pb2_grpc

from .door import ACTION, PATIENCE_S, Container, Door, connect, invoke, open_door, refused


@dataclass
class Cluster:
    """Three front doors; a client of the first."""

    origin: Door
    peers: list[Door]
    client: router_pb2_grpc.RouterServiceAsyncStub
    container: Container

    def name_peers(self, *waiting: int) -> None:
        """Names the peers to the origin, with what was last reported waiting there."""
        named = zip(self.peers, waiting, strict=True)
        listed = [(f"r-{i}", peer.address, count) for i, (peer, count) in enumerate(named, 1)]
        self.origin.plane.peers(ACTION, listed)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        container = await stack.enter_async_context(Container(tmp_path / "c.sock"))
        doors = [
            await stack.enter_async_context(open_door(tmp_path / "none.sock", f"r-{i}"))
            for i in range(3)
        ]
        client = await stack.enter_async_context(connect(doors[0].address))
        yield Cluster(doors[0], doors[1:], client, container)


async def test_a_request_runs_at_the_peer_that_has_a_slot(cluster: Cluster) -> None:
    cluster.peers[0].give(cluster.container, 1)
    cluster.name_peers(0, 5)
    answer = await invoke(cluster.client, number=1)
    assert answer.container_id == "c-1"
    assert (await invoke(cluster.client, "raise")).application_error.status == 502
    assert cluster.origin.plane.counters()["forwarded"] == 2
    assert cluster.peers[0].plane.counters()["requests"] == 2
    assert cluster.origin.waiting() == 0


async def test_an_error_of_the_peer_is_told_as_it_is(cluster: Cluster) -> None:
    cluster.peers[0].give(cluster.container, 1)
    cluster.name_peers(0, 5)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await invoke(cluster.client, "break")
    assert refused(error.value).reason == "CONTAINER_LOST"


async def test_the_fewest_waiters_are_asked_first(cluster: Cluster) -> None:
    for number, peer in enumerate(cluster.peers):
        peer.give(cluster.container, 1, id=f"c-{number}")
    cluster.name_peers(1, 0)
    calls = [invoke(cluster.client, "hold") for _ in range(2)]
    await cluster.container.until(lambda: cluster.container.running == 2)
    cluster.container.gate.set()
    answers = await asyncio.gather(*calls)
    assert {answer.container_id for answer in answers} == {"c-0", "c-1"}


async def test_a_peer_without_a_share_says_so_and_the_next_is_asked(cluster: Cluster) -> None:
    cluster.peers[1].give(cluster.container, 1)
    cluster.name_peers(0, 7)
    await invoke(cluster.client)
    counters = cluster.peers[0].plane.counters()
    assert counters["errors.not_here"] == 1
    await invoke(cluster.client)  # and is left out from then on
    assert cluster.peers[0].plane.counters()["requests"] == 1
    cluster.name_peers(0, 7)  # until a newer list names it
    await invoke(cluster.client)
    assert cluster.peers[0].plane.counters()["requests"] == 2


async def test_with_no_peer_left_a_request_waits_here_and_counts_here(cluster: Cluster) -> None:
    cluster.name_peers(0, 0)
    await asyncio.to_thread(cluster.peers[1].plane.close)
    waits = invoke(cluster.client)
    await cluster.origin.until_waiting(1)
    assert cluster.peers[0].waiting() == 0
    cluster.origin.give(cluster.container, 1)
    await waits


async def test_what_waits_at_a_peer_comes_back_when_its_share_goes(cluster: Cluster) -> None:
    peer = cluster.peers[0]
    peer.give(cluster.container, 1)
    async with connect(peer.address) as local:
        runs = invoke(local, "hold")
        await cluster.container.until(lambda: cluster.container.running == 1)
        cluster.name_peers(0, 9)
        forwarded = invoke(cluster.client, who="forwarded")
        await peer.until_waiting(1)
        stays = invoke(local, who="local")
        await peer.until_waiting(2)
        peer.give(cluster.container, 0)
        await cluster.origin.until_waiting(1)
        assert peer.waiting() == 1  # its own request stays where it waits
        cluster.origin.give(cluster.container, 1, id="c-2")
        assert (await forwarded).container_id == "c-2"
        cluster.container.gate.set()
        await runs
        stays.cancel()


async def test_leaving_and_deadlines_cross(cluster: Cluster) -> None:
    peer = cluster.peers[0]
    peer.give(cluster.container, 1)
    async with connect(peer.address) as local:
        runs = invoke(local, "hold")
        await cluster.container.until(lambda: cluster.container.running == 1)
        cluster.name_peers(0, 9)
        leaves = invoke(cluster.client)
        await peer.until_waiting(1)
        leaves.cancel()
        await peer.until_waiting(0)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await invoke(cluster.client, timeout=0.2)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await peer.until_waiting(0)
        cluster.container.gate.set()
        await runs
    assert cluster.container.arrived == 1


async def test_a_forwarded_request_is_never_forwarded_again(cluster: Cluster) -> None:
    cluster.peers[1].give(cluster.container, 1)
    cluster.peers[0].plane.peers(ACTION, [("r-2", cluster.peers[1].address, 0)])
    cluster.origin.plane.peers(ACTION, [("r-1", cluster.peers[0].address, 0)])
    waits = invoke(cluster.client)
    await cluster.origin.until_waiting(1)
    assert cluster.container.arrived == 0
    waits.cancel()


async def test_a_peer_that_dies_before_its_answer_is_unavailable(cluster: Cluster) -> None:
    peer = cluster.peers[0]
    peer.give(cluster.container, 1)
    cluster.name_peers(0, 9)
    runs = invoke(cluster.client, "hold")
    await cluster.container.until(lambda: cluster.container.running == 1)
    await asyncio.to_thread(peer.plane.close)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await runs
    assert refused(error.value).code is grpc.StatusCode.UNAVAILABLE
    assert cluster.container.arrived == 1


async def test_large_requests_and_answers_cross(cluster: Cluster) -> None:
    cluster.peers[0].give(cluster.container, 1)
    cluster.name_peers(0, 9)
    answer = await invoke(cluster.client, "grow", bytes=3_000_000, filler="x" * 900_000)
    assert len(answer.result) > 3_000_000


async def test_a_stopping_peer_is_left_out(cluster: Cluster) -> None:
    for number, peer in enumerate(cluster.peers):
        peer.give(cluster.container, 1, id=f"c-{number}")
    cluster.peers[0].plane.stop_accepting()
    cluster.name_peers(0, 9)
    request = router_pb2.InvokeRequest(action=ACTION)
    assert (await cluster.client.Invoke(request, timeout=PATIENCE_S)).container_id == "c-1"
