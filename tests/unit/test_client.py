"""Both clients against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

import slotway
from slotway import aio
from tests.unit.services import CLUSTER, Services, services_in_a_thread


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    services = Services()
    server = await services.serve()
    yield services
    await server.stop(None)


@pytest.fixture
async def client(services: Services) -> AsyncIterator[aio.Client]:
    async with aio.Client(services.address) as client:
        yield client


async def test_invoke(services: Services, client: aio.Client) -> None:
    activation = await client.invoke("default/hello", {"name": "Ada"}, timeout=50)
    assert activation.result == {"name": "Ada"}
    assert (activation.id, activation.container_id) == ("0190-1", "c-1")
    assert activation.run.total_seconds() == 0.012
    # gRPC sends timeouts from 10 s to 100 s in tenths of a second, rounded up.
    assert 45 < services.timeout <= 50.1
    own = await client.invoke("default/hello", b'{"n": 1}', activation_id="mine")
    assert (own.id, own.payload) == ("mine", b'{"n": 1}')
    # Nobody waits for ever.
    assert 600 < services.timeout < 700


async def test_an_error_of_the_action_is_not_one_of_slotway(client: aio.Client) -> None:
    with pytest.raises(aio.ApplicationError) as caught:
        await client.invoke("default/raises")
    assert caught.value.error == {"error": "ValueError: no"}
    assert (str(caught.value), caught.value.status) == ("ValueError: no", 502)


async def test_errors_say_what_a_caller_decides_by(client: aio.Client) -> None:
    with pytest.raises(aio.CallError) as caught:
        await client.invoke("default/busy")
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert error.retry_delay is not None
    assert error.retry_delay.total_seconds() == 1.5
    with pytest.raises(aio.CallError, match="no outcome within") as caught:
        await client.invoke("default/late", timeout=0.1)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_actions(services: Services, client: aio.Client) -> None:
    for name in ("a/1", "a/2", "a/3", "b/1", "b/2"):
        put = await client.put_action(name, b"code of " + name.encode(), concurrency=3, timeout=1.5)
        assert put.revision > 0
        assert (put.limits.concurrency, put.limits.timeout.ToMilliseconds()) == (3, 1500)
        assert (put.exec.kind, put.exec.binary) == ("python:3", False)
    assert [a.name for a in await client.list_actions()] == ["a/1", "a/2", "a/3", "b/1", "b/2"]
    assert services.pages == 3
    assert [a.name for a in await client.list_actions("b")] == ["b/1", "b/2"]
    assert (await client.get_action("a/2")).name == "a/2"
    assert await client.get_code("a/2") == b"code of a/2"
    changed = aio.Action(name="a/2", limits=aio.Limits(concurrency=9))
    with pytest.raises(aio.CallError) as caught:
        await client.replace_action(changed, expected_revision=0)
    assert (caught.value.reason, caught.value.metadata) == ("REVISION_CONFLICT", {"revision": "2"})
    await client.replace_action(changed, expected_revision=2)
    assert await client.get_code("a/2") == b"code of a/2"
    await client.delete_action("a/2")
    with pytest.raises(aio.CallError, match="no action a/2"):
        await client.get_action("a/2")


async def test_cluster(client: aio.Client) -> None:
    assert await client.cluster() == CLUSTER
    assert [c async for c in client.watch()] == [CLUSTER] * 3


async def test_an_endpoint_where_nobody_listens() -> None:
    async with aio.Client("127.0.0.1:1") as client:
        with pytest.raises(aio.CallError) as caught:
            await client.cluster()
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "")


@pytest.fixture
def elsewhere() -> Iterator[Services]:
    with services_in_a_thread() as services:
        yield services


def test_the_client_without_asyncio(elsewhere: Services) -> None:
    with slotway.Client(elsewhere.address) as client:
        assert client.invoke("default/hello", {"n": 1}).result == {"n": 1}
        with pytest.raises(slotway.ApplicationError):
            client.invoke("default/raises")
        with pytest.raises(slotway.CallError):
            client.invoke("no/such")
        client.put_action("a/1", b"x", expected_revision=0)
        client.replace_action(client.get_action("a/1"))
        assert client.get_code("a/1") == b"x"
        assert client.get_action("a/1") == client.list_actions()[0]
        client.delete_action("a/1")
        assert client.list_actions("a") == []
        assert client.cluster() == CLUSTER
        assert list(client.watch()) == [CLUSTER] * 3
        assert next(client.watch()) == CLUSTER
    client.close()
