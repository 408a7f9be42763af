"""What a watch and a view promise, on a real etcd that restarts, compacts, hangs and is wiped."""

from __future__ import annotations

import asyncio
import shutil
import signal
from contextlib import aclosing

import pytest

from slotway.etcd import (
    Access,
    Batch,
    Change,
    Client,
    Compacted,
    Delete,
    Event,
    KeyValue,
    Listing,
    Put,
    View,
    Watch,
    WrongCluster,
)
from slotway.etcd.server import EtcdServer
from tests.pausing import paused


async def put(client: Client, key: str, value: bytes = b"") -> int:
    return (await client.txn(success=[Put(key, value)])).revision


async def collect(watch: Watch, count: int) -> list[tuple[str, bytes, bool]]:
    """The next `count` events."""
    events: list[Event] = []
    async with asyncio.timeout(20):
        while len(events) < count:
            events += (await anext(watch)).events
    assert [one.item.mod_revision for one in events] == sorted(
        one.item.mod_revision for one in events
    )
    return [(one.item.key, one.item.value, one.deleted) for one in events]


async def test_events_come_in_their_order_and_of_the_prefix_only(
    etcd: Client, cluster: str
) -> None:
    start = await put(etcd, f"{cluster}/a", b"1")
    await put(etcd, f"{cluster}-other", b"no")
    async with etcd.watch(f"{cluster}/", start) as watch:
        await put(etcd, f"{cluster}/b", b"2")
        await etcd.txn(success=[Delete(f"{cluster}/a"), Put(f"{cluster}/c", b"3")])
        assert await collect(watch, 4) == [
            (f"{cluster}/a", b"1", False),
            (f"{cluster}/b", b"2", False),
            (f"{cluster}/a", b"", True),
            (f"{cluster}/c", b"3", False),
        ]


async def test_one_transaction_is_one_batch(etcd: Client, cluster: str) -> None:
    keys = [f"{cluster}/{number:03}" for number in range(126)]
    result = await etcd.txn(success=[Put(key, b"x" * 50_000) for key in keys[:20]])
    async with etcd.watch(f"{cluster}/", result.revision) as watch, asyncio.timeout(10):
        batch = await anext(watch)
    assert len(batch.events) == 20
    assert batch.revision == result.revision


async def test_a_large_backlog_comes_in_whole_revisions(etcd: Client, cluster: str) -> None:
    """About 8 MiB: etcd sends it in fragments."""
    revisions = [
        (
            await etcd.txn(
                success=[Put(f"{cluster}/{number}", b"x" * 100_000) for number in range(8)]
            )
        ).revision
        for _ in range(10)
    ]
    seen: list[int] = []
    async with etcd.watch(f"{cluster}/", revisions[0]) as watch, asyncio.timeout(20):
        while len(seen) < 80:
            batch = await anext(watch)
            seen += [one.item.mod_revision for one in batch.events]
            assert len(batch.events) % 8 == 0
    assert seen == [revision for revision in revisions for _ in range(8)]


async def test_cancelling_a_wait_loses_nothing(etcd: Client, cluster: str) -> None:
    start = await put(etcd, f"{cluster}/0")
    async with etcd.watch(f"{cluster}/", start + 1) as watch:
        for number in range(1, 20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001 * (number % 5)):
                    await anext(watch)
        for number in range(1, 20):
            await put(etcd, f"{cluster}/{number:02}")
        events = await collect(watch, 19)
    assert [key for key, _, _ in events] == [f"{cluster}/{number:02}" for number in range(1, 20)]


async def test_a_watch_survives_a_restart_of_etcd(own_etcd: EtcdServer) -> None:
    async with Client(Access((own_etcd.endpoint,))) as client:
        start = await put(client, "p/0")
        async with client.watch("p/", start) as watch:
            assert len(await collect(watch, 1)) == 1
            for number in range(1, 3):
                waiting = asyncio.create_task(collect(watch, 1))
                await own_etcd.stop(signal.SIGKILL)
                await own_etcd.start()
                await put(client, f"p/{number}")
                assert await waiting == [(f"p/{number}", b"", False)]


async def test_a_watch_leaves_a_silent_etcd_and_misses_nothing(own_etcd: EtcdServer) -> None:
    async with Client(Access((own_etcd.endpoint,))) as client:
        start = await put(client, "p/0")
        async with Watch(client._connection, "p/", start, quiet_s=0.2) as watch:
            await collect(watch, 1)
            stream = watch._stream
            waiting = asyncio.create_task(collect(watch, 1))
            with paused(own_etcd):
                async with asyncio.timeout(5):
                    while watch._stream is stream:
                        await asyncio.wait({waiting}, timeout=0.01)
            await put(client, "p/1")
            assert await waiting == [("p/1", b"", False)]


async def test_a_stream_whose_end_was_not_read_yet_is_left(etcd: Client, cluster: str) -> None:
    """gRPC knows of it: a process that stood still finds both the silence and the end."""
    start = await put(etcd, f"{cluster}/0")
    async with Watch(etcd._connection, f"{cluster}/", start, quiet_s=0.1) as watch:
        await collect(watch, 1)
        assert watch._stream is not None
        watch._stream.cancel()
        watch._reading = unread = asyncio.get_running_loop().create_future()
        await put(etcd, f"{cluster}/1")
        try:
            assert await collect(watch, 1) == [(f"{cluster}/1", b"", False)]
        finally:
            unread.cancel()


async def test_a_quiet_watch_is_not_taken_for_a_dead_one(etcd: Client, cluster: str) -> None:
    start = await put(etcd, f"{cluster}/0")
    async with Watch(etcd._connection, f"{cluster}/", start, quiet_s=0.05) as watch:
        await collect(watch, 1)
        stream = watch._stream
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):
                await anext(watch)
        assert watch._stream is stream


async def test_compaction_under_a_watch_is_told(own_etcd: EtcdServer) -> None:
    async with Client(Access((own_etcd.endpoint,))) as client:
        start = await put(client, "p/0")
        for number in range(5):
            last = await put(client, f"p/{number}")
        await client.compact(last)
        async with client.watch("p/", start) as watch:
            with pytest.raises(Compacted) as info:
                await anext(watch)
        assert info.value.revision == last


async def test_an_etcd_that_lost_its_history_is_told(own_etcd: EtcdServer) -> None:
    async with Client(Access((own_etcd.endpoint,))) as client:
        for number in range(5):
            last = await put(client, f"p/{number}")
        async with client.watch("p/", last) as watch:
            await collect(watch, 1)
            waiting = asyncio.create_task(collect(watch, 1))
            await own_etcd.stop()
            shutil.rmtree(own_etcd.data_dir)
            await own_etcd.start()
            with pytest.raises(WrongCluster, match="recover"):
                await waiting


async def test_a_watch_of_the_future_waits_on_an_honest_etcd(etcd: Client, cluster: str) -> None:
    start = await put(etcd, f"{cluster}/0")
    async with etcd.watch(f"{cluster}/", start + 1) as watch:
        waiting = asyncio.create_task(collect(watch, 1))
        await put(etcd, f"{cluster}/1")
        assert await waiting == [(f"{cluster}/1", b"", False)]


async def test_a_view_follows(own_etcd: EtcdServer) -> None:
    async with Client(Access((own_etcd.endpoint,))) as client:
        await put(client, "p/a", b"1")
        view = View(client, "p/")
        async with aclosing(view.follow()) as changes, asyncio.timeout(30):
            assert [one.key for one in (await anext(changes)).put] == ["p/a"]
            revision = await put(client, "p/b", b"2")
            change = await anext(changes)
            assert (change.revision, [one.value for one in change.put]) == (revision, [b"2"])
            await client.txn(success=[Delete("p/a")])
            assert (await anext(changes)).gone == ("p/a",)
            assert set(view.items) == {"p/b"}


async def test_a_view_lists_anew_after_a_compaction(own_etcd: EtcdServer) -> None:
    """What happened while it was cut off is compacted: the listing tells it."""
    async with Client(Access((own_etcd.endpoint,))) as client:
        await put(client, "p/a", b"1")
        await put(client, "p/b", b"1")
        view = View(client, "p/")
        async with aclosing(view.follow()) as changes, asyncio.timeout(30):
            await anext(changes)  # the watch has not been opened yet
            await client.txn(success=[Delete("p/a"), Put("p/b", b"2"), Put("p/c", b"1")])
            await client.compact(await put(client, "elsewhere"))
            change = await anext(changes)
            assert sorted(one.key for one in change.put) == ["p/b", "p/c"]
            assert change.gone == ("p/a",)
            await put(client, "p/d")
            assert [one.key for one in (await anext(changes)).put] == ["p/d"]


async def test_a_view_reads_anew_at_times(own_etcd: EtcdServer) -> None:
    async with Client(Access((own_etcd.endpoint,))) as client:
        await put(client, "p/a", b"1")
        view = View(client, "p/", reread_s=0.1)
        async with aclosing(view.follow()) as changes, asyncio.timeout(30):
            await anext(changes)
            view.items.clear()  # as if an event had been lost
            assert [one.key for one in (await anext(changes)).put] == ["p/a"]


def item(key: str, revision: int, value: bytes = b"") -> KeyValue:
    return KeyValue(key, value, revision)


def test_a_view_drops_old_events(etcd_view: View) -> None:
    etcd_view.replace(Listing(10, (item("a", 5), item("b", 9))))
    change = etcd_view.apply(
        Batch(
            11,
            (
                Event(item("a", 6), deleted=True),
                Event(item("b", 9), deleted=False),
                Event(item("c", 11), deleted=False),
            ),
        )
    )
    assert change == Change(11, (item("c", 11),), ())
    assert set(etcd_view.items) == {"a", "b", "c"}


def test_a_key_put_and_deleted_in_one_batch_is_gone(etcd_view: View) -> None:
    etcd_view.replace(Listing(10, (item("a", 5),)))
    change = etcd_view.apply(
        Batch(
            12,
            (
                Event(item("a", 11), deleted=False),
                Event(item("b", 11), deleted=False),
                Event(item("a", 12), deleted=True),
                Event(item("b", 12), deleted=True),
            ),
        )
    )
    assert change == Change(12, (), ("a",))
    assert etcd_view.items == {}


@pytest.fixture
async def etcd_view(etcd: Client) -> View:
    return View(etcd, "unused/")
