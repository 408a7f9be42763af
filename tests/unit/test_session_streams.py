"""A Router's streams: broken, opened anew, silent, left."""

from __future__ import annotations

import asyncio

import pytest

from slotway.router.attachment import (
    SILENCE_SECONDS_MIN,
    Attachment,
    Identity,
    StaleStreamError,
)
from slotway.v1 import manager_pb2 as pb
from tests.unit.scripted import SECONDS_MAX, ScriptedManager, ScriptedPlane
from tests.unit.sessions import leader_of, order, running_session


async def test_a_stream_that_breaks_is_opened_anew_under_a_greater_number(
    plane: ScriptedPlane, manager: ScriptedManager
) -> None:
    async with running_session(plane, manager) as (session, _):
        stream = await manager.stream()
        await stream.welcome((1, 5))
        await stream.send((1, 5), orders=[order(1, 0, name="c2")])
        await plane.called("order")
        stream.over.set()
        again = await manager.stream()
        assert again.opened.stream > stream.opened.stream
        assert leader_of(session) == ""
        await again.welcome((1, 5))
        assert leader_of(session) == "m0"
        # Nothing else is known on a new stream: an order without its container is not obeyed.
        await again.send((1, 5), orders=[order(2, 4, None, "c2"), order(3, 4, name="c2")])
        assert (await plane.called("order"))[2] == (1, 5, 3)


async def test_a_manager_that_restarts_is_found_again(
    plane: ScriptedPlane, manager: ScriptedManager
) -> None:
    async with running_session(plane, manager):
        await (await manager.stream()).welcome((1, 5))
        await manager.stop()
        await manager.start(manager.address)
        await (await manager.stream()).welcome((1, 8))


async def test_a_manager_that_moved_is_followed_and_one_not_listed_keeps_its_stream(
    plane: ScriptedPlane, manager: ScriptedManager, second: ScriptedManager
) -> None:
    async with running_session(plane, manager) as (session, members):
        stream = await manager.stream()
        await stream.welcome((1, 5))
        members.lists.put_nowait({})
        members.lists.put_nowait({"m9": second.address})
        other = await second.stream()
        await stream.send((1, 5), orders=[order(1, 4)])
        await plane.called("order")
        await other.welcome((1, 9))
        assert leader_of(session) == "m9"


async def test_peers_are_dropped_when_the_leader_is_silent_and_told_anew(
    plane: ScriptedPlane, manager: ScriptedManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slotway.router.session.SILENT_SECONDS_MIN", 0.0)
    async with running_session(plane, manager):
        stream = await manager.stream()
        await stream.welcome((1, 5), period_ms=20)
        peers = pb.PeerList(action="ns/a", peers=[pb.Peer(incarnation="x", address="h:2")])
        await stream.send((1, 5), peers=[peers])
        assert (await plane.called("peers"))[2] == [("x", "h:2", 0)]
        await plane.called("drop_peers")
        await stream.send((1, 5), turn=2)
        async with asyncio.timeout(SILENCE_SECONDS_MIN / 2):  # sooner than by silence
            again = await manager.stream()
        await again.welcome((1, 5))


async def test_silence_changes_nothing_for_a_router_without_peers(
    plane: ScriptedPlane, manager: ScriptedManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slotway.router.session.SILENT_SECONDS_MIN", 0.0)
    async with running_session(plane, manager):
        stream = await manager.stream()
        await stream.welcome((1, 5), period_ms=10)
        for _ in range(8):  # reports, each a period after the one before
            await stream.next()
        await stream.send((1, 5), orders=[order(1, 4)])
        await plane.called("order")
        assert not [c for c in plane.calls if c[0] == "drop_peers"]


async def test_leaving_gives_back_also_what_was_granted_meanwhile(
    plane: ScriptedPlane, manager: ScriptedManager
) -> None:
    async with running_session(plane, manager) as (session, _):
        stream = await manager.stream()
        await stream.welcome((1, 5), period_ms=100)
        await stream.send((1, 5), orders=[order(1, 4)])
        await plane.called("order")
        leaving = asyncio.create_task(session.leave(SECONDS_MAX))
        message = await stream.next("acknowledgements")
        assert message.leaving
        assert message.acknowledgements[0].holding == 0
        await stream.send((1, 5), orders=[order(2, 3)])
        assert (await stream.next("acknowledgements")).acknowledgements[0].version.counter == 2
        assert await leaving
        async with asyncio.timeout(SECONDS_MAX):
            await stream.over.wait()


async def test_leaving_is_bounded(plane: ScriptedPlane, manager: ScriptedManager) -> None:
    async with running_session(plane, manager) as (session, _):
        stream = await manager.stream()
        await stream.welcome((1, 5))
        plane.held, plane.actions, plane.versions = {"c1": 1}, {"c1": "ns/a"}, {"c1": (1, 5, 1)}
        plane.give_back = lambda idle_ms: None  # type: ignore[method-assign]
        assert not await session.leave(0.05)


async def test_a_session_that_fails_while_it_is_cancelled_ends(manager: ScriptedManager) -> None:
    class Failing:
        """An owner whose attachment fails at the very moment in which it is cancelled."""

        def next_stream(self) -> int:
            return 1

        def opened(self, attachment: Attachment) -> None:
            attachment.wake()

        def closed(self, attachment: Attachment) -> None: ...

        def heard(self, attachment: Attachment, message: pb.AttachResponse) -> None: ...

        def compose(self, attachment: Attachment) -> pb.AttachRequest | None:
            task.cancel()
            raise StaleStreamError

    attachment = Attachment(Failing(), Identity("r1", "inc", "h:1"), "m0", manager.address)
    task = asyncio.create_task(attachment.run())
    done, _ = await asyncio.wait({task}, timeout=SECONDS_MAX)
    assert done
    assert task.cancelled()
