"""`Submit` at the front door by itself: what is taken, and what its callers are told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import grpc
import grpc.aio
import pytest

from slotway.v1 import router_pb2, router_pb2_grpc

from .door import ACTION, PATIENCE_S, Door, refused

if TYPE_CHECKING:
    Client: TypeAlias = router_pb2_grpc.RouterServiceAsyncStub


async def test_without_a_store_nothing_is_accepted(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.Submit(router_pb2.SubmitRequest(action=ACTION), timeout=PATIENCE_S)
    told = refused(error.value)
    assert (told.code.name, told.reason) == ("UNIMPLEMENTED", "UNSUPPORTED")
    assert "--store" in told.message


async def test_submissions_are_taken_in_batches_and_told_what_became_of_them(
    door: Door, client: Client
) -> None:
    door.plane.open_submissions(True)

    async def submit(number: int) -> str:
        request = router_pb2.SubmitRequest(
            action=ACTION, payload=b'{"n": %d}' % number, idempotency_key=f"k{number}"
        )
        return (await client.Submit(request, timeout=PATIENCE_S)).activation_id

    async def take() -> list[tuple[str, str, bytes, str | None]]:
        batch = await asyncio.to_thread(door.plane.take_submissions, 10, 5_000)
        assert batch is not None
        return batch

    first = asyncio.create_task(submit(0))
    ((id, action, payload, key),) = await take()
    assert (action, payload, key) == (ACTION, b'{"n": 0}', "k0")
    others = [asyncio.create_task(submit(number)) for number in (1, 2)]
    door.plane.acknowledge(["another"])
    assert await first == "another"
    batch: list[tuple[str, str, bytes, str | None]] = []
    while len(batch) < 2:
        taken = await take()
        batch += taken
        door.plane.refuse_submissions("STORE_FULL", "no room", 2_000)
    assert id < batch[0][0] < batch[1][0]
    for other in others:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await other
        told = refused(error.value)
        assert (told.reason, told.retry_s) == ("STORE_FULL", 2.0)

    waits = asyncio.create_task(submit(3))
    await take()
    door.plane.open_submissions(False)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await waits
    assert refused(error.value).reason == "STORE_UNAVAILABLE"
    assert await asyncio.to_thread(door.plane.take_submissions, 10, 5_000) is None
