"""The Router's sessions against scripted Managers over real gRPC, with a scripted data plane."""

from __future__ import annotations

import asyncio

from slotway.v1 import manager_pb2 as pb
from tests.unit.scripted import SECONDS_MAX, ScriptedManager, ScriptedPlane
from tests.unit.sessions import leader_of, order, running_session


async def test_opens_says_hello_and_obeys(plane: ScriptedPlane, manager: ScriptedManager) -> None:
    plane.held, plane.actions = {"c0": 3}, {"c0": "ns/a"}
    async with running_session(plane, manager) as (session, _):
        stream = await manager.stream()
        assert (stream.opened.router, stream.opened.incarnation) == ("r1", "inc")
        assert stream.opened.address == "h:1"
        assert leader_of(session) == ""
        hello = await stream.welcome((1, 5))
        assert (hello.term.epoch, hello.term.revision) == (1, 5)
        assert [(h.container_id, h.held) for h in hello.holdings] == [("c0", 3)]
        assert leader_of(session) == "m0"
        await stream.send((1, 5), orders=[order(1, 4)])
        told = await plane.called("order")
        assert told == ("order", "m0", (1, 5, 1), "c1", 4, "ns/a", "unix:/c1", 0)
        # What a container is, is told once on a stream.
        await stream.send((1, 5), orders=[order(2, 2, None)])
        assert (await plane.called("order"))[5] == "ns/a"
        due = (await stream.next("acknowledgements")).acknowledgements
        assert [(a.container_id, a.holding, a.version.counter) for a in due] == [("c1", 2, 2)]


async def test_messages_of_an_older_term_are_ignored(
    plane: ScriptedPlane, manager: ScriptedManager, second: ScriptedManager
) -> None:
    async with running_session(plane, manager, second) as (session, _):
        old, new = await manager.stream(), await second.stream()
        await old.welcome((1, 5))
        await new.welcome((1, 9))
        assert leader_of(session) == "m1"
        # The deposed leader does not know yet: peers and refusals carry no version of their own.
        await old.send((1, 5), orders=[order(1, 4)], peers=[pb.PeerList(action="ns/a")])
        await old.send((1, 5), refusals=[pb.Refusal(action="ns/a")], ended_containers=["c1"])
        await old.send((1, 5), welcome=pb.Welcome(protocol_min=1, protocol_max=1))
        assert await plane.called("stale_welcome") == ("stale_welcome", "m0", (1, 5))
        assert not [c for c in plane.calls if c[0] in ("order", "peers", "refuse", "ended")]
        # It may lead again, later.
        await old.welcome((1, 12))
        assert leader_of(session) == "m0"


async def test_a_standby_is_told_how_long_ago_the_leader_was_heard(
    plane: ScriptedPlane, manager: ScriptedManager, second: ScriptedManager
) -> None:
    async with running_session(plane, manager, second):
        leader, standby = await manager.stream(), await second.stream()
        await standby.send((0, 0), ask_leader_age=True)
        never = (await standby.next("leader_age")).leader_age.ToTimedelta()
        assert never.total_seconds() > 60, "nobody led yet"
        await leader.welcome((1, 5))
        await standby.send((0, 0), ask_leader_age=True)
        heard = (await standby.next("leader_age")).leader_age.ToTimedelta()
        assert heard.total_seconds() < SECONDS_MAX


async def test_a_router_that_is_asked_reports_at_once_and_what_it_had_heard(
    plane: ScriptedPlane, manager: ScriptedManager
) -> None:
    async with running_session(plane, manager):
        stream = await manager.stream()
        await stream.welcome((1, 5), period_ms=10_000)
        await stream.send((1, 5), turn=7)
        await stream.send((1, 5), turn=8, ask_demand=True)
        async with asyncio.timeout(2):  # long before the next period
            while (await stream.next("turn")).turn != 8:
                pass


async def test_a_message_before_the_welcome_is_ignored(
    plane: ScriptedPlane, manager: ScriptedManager
) -> None:
    async with running_session(plane, manager):
        stream = await manager.stream()
        await stream.send((1, 5), orders=[order(1, 4)])
        await stream.welcome((1, 5))
        await stream.send((1, 5), orders=[order(2, 6)])
        assert (await plane.called("order"))[2] == (1, 5, 2)


async def test_a_stream_that_was_not_greeted_in_this_term_is_ignored(
    plane: ScriptedPlane, manager: ScriptedManager, second: ScriptedManager
) -> None:
    async with running_session(plane, manager, second):
        leader, other = await manager.stream(), await second.stream()
        await leader.welcome((1, 5))
        await other.send((1, 5), peers=[pb.PeerList(action="ns/a")])
        await other.send((1, 6), peers=[pb.PeerList(action="ns/a")])
        await other.welcome((1, 7))
        assert not [c for c in plane.calls if c[0] == "peers"]


async def test_acknowledgements_go_to_every_manager(
    plane: ScriptedPlane, manager: ScriptedManager, second: ScriptedManager
) -> None:
    async with running_session(plane, manager, second):
        first, other = await manager.stream(), await second.stream()
        plane.happen(acknowledgements=[("c1", 1, (1, 5, 3))])
        for stream in (first, other):
            due = (await stream.next("acknowledgements")).acknowledgements
            assert [(a.container_id, a.holding) for a in due] == [("c1", 1)]


async def test_demand_goes_to_the_leader_with_what_it_had_seen(
    plane: ScriptedPlane, manager: ScriptedManager, second: ScriptedManager
) -> None:
    async with running_session(plane, manager, second):
        leader, standby = await manager.stream(), await second.stream()
        await leader.welcome((1, 5))
        await leader.send((1, 5), orders=[order(3, 1)])
        await plane.called("order")
        plane.waiting = {"ns/a": 4}
        plane.happen(demand_rose=True)
        report = await leader.next("demand")
        assert [(d.action, d.waiting) for d in report.demand] == [("ns/a", 4)]
        assert report.obeyed.counter == 3
        plane.waiting = {"ns/a": 0}
        plane.happen(demand_changed=True)
        assert [d.waiting for d in (await leader.next("demand")).demand] == [0]
        assert not standby.received


async def test_changes_are_reported_in_batches(
    plane: ScriptedPlane, manager: ScriptedManager
) -> None:
    async with running_session(plane, manager):
        stream = await manager.stream()
        await stream.welcome((1, 5))
        before, began = plane.demands, asyncio.get_running_loop().time()
        plane.waiting = {"ns/a": 1}
        for _ in range(50):
            plane.happen(demand_changed=True)
            for _ in range(5):
                await asyncio.sleep(0)
        await stream.next("demand")
        took = asyncio.get_running_loop().time() - began
        assert plane.demands - before <= 2 + took / 0.03


async def test_reports_every_period(plane: ScriptedPlane, manager: ScriptedManager) -> None:
    plane.waiting = {"ns/a": 2}
    async with running_session(plane, manager):
        stream = await manager.stream()
        await stream.welcome((1, 5), period_ms=20)
        for _ in range(3):
            assert (await stream.next("demand")).demand[0].waiting == 2


async def test_troubles_are_told_again_to_the_next_leader(
    plane: ScriptedPlane, manager: ScriptedManager, second: ScriptedManager
) -> None:
    async with running_session(plane, manager, second):
        first, other = await manager.stream(), await second.stream()
        await first.welcome((1, 5))
        plane.happen(troubles=[("c1", "overrun", 2), ("c2", "refused", 1)])
        told = (await first.next("troubles")).troubles
        assert [(t.container_id, t.kind, t.slots) for t in told] == [
            ("c1", pb.ContainerTrouble.KIND_OVERRUN, 2),
            ("c2", pb.ContainerTrouble.KIND_REFUSED, 1),
        ]
        plane.happen(troubles=[("c1", "overrun", 1)], demand_rose=True)
        told = (await first.next("troubles")).troubles
        assert [(t.container_id, t.slots) for t in told] == [("c1", 1)]  # only what is new
        await other.send((1, 9), welcome=pb.Welcome(protocol_min=1, protocol_max=1))
        told = (await other.next("troubles")).troubles
        assert [(t.container_id, t.slots) for t in told] == [("c1", 3)]
        # Nothing is told of what has ended.
        await other.send((1, 9), ended_containers=["c1"])
        await plane.called("ended")
        await first.send((1, 12), welcome=pb.Welcome(protocol_min=1, protocol_max=1))
        assert not (await first.next("hello")).troubles
        plane.happen(troubles=[("c3", "refused", 1)])
        told = (await first.next("troubles")).troubles
        assert [t.container_id for t in told] == ["c3"]


async def test_what_is_held_can_be_taken_back_without_being_described(
    plane: ScriptedPlane, manager: ScriptedManager
) -> None:
    async with running_session(plane, manager):
        stream = await manager.stream()
        await stream.welcome((1, 5))
        await stream.send((1, 5), orders=[order(1, 4)])
        await plane.called("order")
        stream.over.set()
        again = await manager.stream()
        await again.welcome((1, 8))
        await again.send((1, 8), orders=[order(1, 0, None), order(2, 0, None, "never seen")])
        assert (await plane.called("order"))[3:6] == ("c1", 0, "ns/a")
        assert (await plane.called("order"))[3:5] == ("never seen", 0)
        due = (await again.next("acknowledgements")).acknowledgements
        assert {(a.container_id, a.holding) for a in due} == {("c1", 0), ("never seen", 0)}


async def test_what_is_out_of_range_does_not_end_the_stream(
    plane: ScriptedPlane, manager: ScriptedManager
) -> None:
    async with running_session(plane, manager):
        stream = await manager.stream()
        await stream.welcome((1, 5))
        bad = pb.Container(action="ns/a", capacity=5000)
        await stream.send((1, 5), orders=[order(1, 4, bad), order(2, 4, name="c2")])
        assert (await plane.called("order"))[3] == "c1"
        assert (await plane.called("order"))[3] == "c2"


async def test_a_manager_without_a_protocol_in_common_is_not_obeyed(
    plane: ScriptedPlane, manager: ScriptedManager
) -> None:
    async with running_session(plane, manager) as (session, _):
        stream = await manager.stream()
        await stream.send((1, 5), welcome=pb.Welcome(protocol_min=2, protocol_max=3))
        await stream.send((1, 5), orders=[order(1, 4)])
        await stream.welcome((1, 6))
        assert not [c for c in plane.calls if c[0] == "order"]
        assert session.term == (1, 6)


async def test_refusals_and_ends_are_handed_on(
    plane: ScriptedPlane, manager: ScriptedManager
) -> None:
    async with running_session(plane, manager):
        stream = await manager.stream()
        await stream.welcome((1, 5))
        refusal = pb.Refusal(action="ns/a", reason="CLUSTER_FULL", message="full")
        await stream.send((1, 5), refusals=[refusal], ended_containers=["c1"])
        assert await plane.called("ended") == ("ended", "c1")
        assert await plane.called("refuse") == ("refuse", "ns/a", "CLUSTER_FULL", "full", -1)
        refusal.retry_delay.FromMilliseconds(250)
        await stream.send((1, 5), refusals=[refusal])
        assert (await plane.called("refuse"))[4] == 250
