"""The front door by itself: a real client, and a container on a Unix socket."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio
import pytest

from slotway.v1 import router_pb2_grpc

from .door import ACTION, Container, Door, connect, invoke, open_door, refused

if TYPE_CHECKING:
    Client: TypeAlias = router_pb2_grpc.RouterServiceAsyncStub


async def test_an_action_runs_and_its_arguments_are_told(
    door: Door, client: Client, container: Container
) -> None:
    door.give(container, 1, parameters=b'{"base": 7, "do": "raise"}')
    answer = await invoke(client, "echo", base=8)
    assert json.loads(answer.result) == {"value": {"do": "echo", "base": 8}}
    assert answer.container_id == "c-1"
    assert answer.timing.run.ToTimedelta().total_seconds() > 0
    body = container.bodies[0]
    assert answer.activation_id == body["activation_id"]
    assert len(answer.activation_id) == 36
    assert body["namespace"] == "guest"
    assert body["action_name"] == "/guest/work"
    assert body["deadline"].isdigit()


async def test_the_actions_own_failure_is_an_answer(
    door: Door, client: Client, container: Container
) -> None:
    door.give(container, 1)
    answer = await invoke(client, "raise")
    assert answer.application_error.status == 502
    assert json.loads(answer.application_error.error) == {"error": "it was raised"}


async def test_requests_wait_for_a_slot_in_their_order(
    door: Door, client: Client, container: Container
) -> None:
    first = [invoke(client, "hold", number=number) for number in range(5)]
    await door.until_waiting(5)
    door.give(container, 2)
    await container.until(lambda: container.running == 2)
    assert door.plane.holdings() == [("c-1", ACTION, 2, 2)]
    container.gate.set()
    answers = await asyncio.gather(*first)
    assert container.highest == 2
    assert all(answer.timing.wait.ToTimedelta().total_seconds() > 0 for answer in answers)
    assert {body["value"]["number"] for body in container.bodies[:2]} <= set(range(5))


async def test_a_full_queue_and_the_maximum_wait(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"queue_max": 1, "max_wait_ms": 300}
    async with open_door(tmp_path / "p.sock", **limits) as door, connect(door.address) as client:
        waits = invoke(client)
        await door.until_waiting(1)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await invoke(client)
        told = refused(error.value)
        assert (told.code.name, told.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        assert told.retry_s is not None
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await waits
        told = refused(error.value)
        assert (told.code.name, told.reason) == ("RESOURCE_EXHAUSTED", "MAX_WAIT")
        assert told.retry_s is not None
        assert door.waiting() == 0


async def test_who_leaves_while_waiting_frees_the_place(
    door: Door, client: Client, container: Container
) -> None:
    door.give(container, 1)
    runs = invoke(client, "hold")
    await container.until(lambda: container.running == 1)
    leaves, stays = invoke(client, "echo", who="leaves"), invoke(client, "echo", who="stays")
    late = invoke(client, "echo", timeout=0.05)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await late
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    leaves.cancel()
    await door.until_waiting(1)
    container.gate.set()
    await asyncio.gather(runs, stays)
    assert [body["value"].get("who") for body in container.bodies] == [None, "stays"]


async def test_who_leaves_while_running_does_not_free_the_slot(
    door: Door, client: Client, container: Container
) -> None:
    door.give(container, 1)
    leaves = invoke(client, "hold")
    await container.until(lambda: container.running == 1)
    leaves.cancel()
    late = invoke(client, "hold", timeout=0.05)
    with pytest.raises(grpc.aio.AioRpcError):
        await late
    assert door.plane.holdings() == [("c-1", ACTION, 1, 1)]
    assert (container.arrived, door.troubles) == (1, [])
    container.gate.set()
    await invoke(client)
    assert container.highest == 1


async def test_past_the_actions_timeout_the_slot_stays_taken(
    door: Door, client: Client, container: Container
) -> None:
    door.give(container, 1, timeout_ms=50)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await invoke(client, "hold")
    told = refused(error.value)
    assert (told.code.name, told.reason) == ("DEADLINE_EXCEEDED", "ACTION_TIMEOUT")
    await door.until(lambda: door.troubles == [("c-1", "overrun", 1)])
    assert door.plane.holdings() == [("c-1", ACTION, 1, 1)]
    next_ = invoke(client)
    await door.until_waiting(1)
    container.gate.set()
    await next_


async def test_a_broken_connection_strands_the_slot_until_the_container_ends(
    door: Door, client: Client, container: Container
) -> None:
    door.give(container, 1)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await invoke(client, "break")
    told = refused(error.value)
    assert (told.code.name, told.reason) == ("UNAVAILABLE", "CONTAINER_LOST")
    assert "connection broke" in told.message, "nobody tells of an end"
    await door.until(lambda: door.troubles == [("c-1", "overrun", 1)])
    assert door.plane.holdings() == [("c-1", ACTION, 1, 1)]
    assert door.plane.ended("m", 1, (1, 1), "c-1")
    assert door.plane.holdings() == []


async def test_a_connection_that_breaks_before_the_end_is_told_waits_for_it(
    door: Door, client: Client, container: Container
) -> None:
    """A container that ends breaks its connections first; why it ended comes a moment later."""
    door.give(container, 1)
    call = invoke(client, "break")
    await door.until(lambda: door.troubles == [("c-1", "overrun", 1)])
    assert door.plane.ended("m", 1, (1, 1), "c-1", "it ate too much")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    told = refused(error.value)
    assert (told.code.name, told.reason) == ("UNAVAILABLE", "CONTAINER_LOST")
    assert told.message == "the container ended while the action ran: it ate too much"


async def test_what_runs_on_a_container_that_ends_is_lost_at_once(
    door: Door, client: Client, container: Container
) -> None:
    door.give(container, 2)
    runs = [invoke(client, "hold"), invoke(client, "hold")]
    await container.until(lambda: container.running == 2)
    assert door.plane.ended("m", 1, (1, 1), "c-1", "it ate too much")
    for call in runs:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        told = refused(error.value)
        assert told.reason == "CONTAINER_LOST"
        assert told.message == "the container ended while the action ran: it ate too much"


async def test_an_answer_that_is_no_object_did_run(
    door: Door, client: Client, container: Container
) -> None:
    door.give(container, 1)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await invoke(client, "garble")
    told = refused(error.value)
    assert (told.code.name, told.reason) == ("UNAVAILABLE", "BAD_ANSWER")
    await invoke(client)


async def test_a_refused_connection_never_reached_code_and_is_tried_elsewhere(
    door: Door, client: Client, container: Container, tmp_path: Path
) -> None:
    door.give(container, 1, id="c-good")
    door.give(f"unix:{tmp_path}/nobody.sock", 3, id="c-bad")
    await invoke(client)
    await door.until(lambda: len(door.troubles) > 0)
    assert {trouble[:2] for trouble in door.troubles} == {("c-bad", "refused")}
    held = {name: (held, running) for name, _, held, running in door.plane.holdings()}
    assert held == {"c-good": (1, 0), "c-bad": (3, 0)}


async def test_a_share_is_lowered_when_its_requests_have_ended(
    door: Door, client: Client, container: Container
) -> None:
    door.give(container, 2)
    runs = [invoke(client, "hold"), invoke(client, "hold")]
    await container.until(lambda: container.running == 2)
    await door.until(lambda: door.acknowledgements == [("c-1", 2)])
    door.give(container, 1)
    waits = invoke(client)
    await door.until_waiting(1)
    assert all(slots == 2 for _, slots in door.acknowledgements)  # as many as still run
    container.gate.set()
    await asyncio.gather(*runs, waits)
    await door.until(lambda: door.acknowledgements[-1] == ("c-1", 1))
    assert door.plane.holdings() == [("c-1", ACTION, 1, 0)]
    door.plane.give_back(0)
    await door.until(lambda: door.acknowledgements[-1] == ("c-1", 0))
    assert door.plane.holdings() == []


async def test_waiters_are_refused_with_the_managers_reason(door: Door, client: Client) -> None:
    waits = invoke(client)
    await door.until_waiting(1)
    door.plane.refuse(ACTION, "INIT_FAILED", "SyntaxError: line 1", -1)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await waits
    told = refused(error.value)
    assert (told.code.name, told.reason) == ("FAILED_PRECONDITION", "INIT_FAILED")
    assert (told.message, told.retry_s) == ("SyntaxError: line 1", None)


async def test_a_graceful_stop_finishes_what_has_begun(
    door: Door, client: Client, container: Container
) -> None:
    door.give(container, 1)
    runs, waits = invoke(client, "hold"), invoke(client, "hold")
    await door.until_waiting(1)
    door.plane.stop_accepting()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await invoke(client)
    assert refused(error.value).reason == "STOPPING"
    assert door.plane.running() == 2
    container.gate.set()
    await asyncio.gather(runs, waits)
    await asyncio.to_thread(door.plane.close)
    assert door.plane.running() == 0


@pytest.mark.parametrize("threads", [1, 2])
async def test_no_hang_up_makes_room_for_more_than_what_is_held(
    tmp_path: Path, container: Container, threads: int
) -> None:
    rng = random.Random(threads)
    slots = 4
    async with open_door(tmp_path / "p.sock", threads=threads) as door:
        door.give(container, slots)

        async def behave(client: Client) -> None:
            call = invoke(client, "sleep", seconds=rng.random() / 200)
            try:
                match rng.randrange(3):
                    case 0:
                        await call
                    case 1:
                        await asyncio.wait_for(call, rng.random() / 100)
                    case _:
                        await invoke(client, "echo", timeout=rng.random() / 100)
                        call.cancel()
            except (grpc.aio.AioRpcError, TimeoutError, asyncio.CancelledError):
                pass

        for _ in range(4):
            async with connect(door.address) as one, connect(door.address) as other:
                await asyncio.gather(*(behave(rng.choice([one, other])) for _ in range(150)))
        await door.until_idle()
        async with connect(door.address) as client:
            assert container.highest == slots
            together = [invoke(client, "hold") for _ in range(slots)]
            await container.until(lambda: container.running == slots)
            container.gate.set()
            await asyncio.gather(*together)
        assert container.highest == slots
        assert door.plane.holdings() == [("c-1", ACTION, slots, 0)]


async def test_the_planted_bug_sends_one_too_many(tmp_path: Path, container: Container) -> None:
    async with open_door(tmp_path / "p.sock", planted_bug="one_too_many") as door:
        door.give(container, 2)
        async with connect(door.address) as client:
            calls = [invoke(client, "hold") for _ in range(5)]
            await container.until(lambda: container.running == 3)
            container.gate.set()
            await asyncio.gather(*calls)
    assert container.highest == 3
