"""What the client promises, on a real etcd: transactions, listings, leases, deadlines."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from slotway.etcd import (
    Access,
    Client,
    Compare,
    Delete,
    EtcdError,
    EtcdUnavailable,
    Get,
    Lease,
    OutcomeUnknown,
    Put,
)
from slotway.etcd.server import EtcdServer, free_port
from tests.pausing import paused


async def put(client: Client, key: str, value: bytes = b"", lease: int = 0) -> int:
    result = await client.txn(success=[Put(key, value, lease)])
    assert result.succeeded
    return result.revision


async def test_a_put_is_read_back_with_its_revisions(etcd: Client, cluster: str) -> None:
    first = await put(etcd, f"{cluster}/k", b"1")
    second = await put(etcd, f"{cluster}/k", b"2")
    item, revision = await etcd.get(f"{cluster}/k")
    assert item is not None
    assert (item.key, item.value, item.mod_revision) == (f"{cluster}/k", b"2", second)
    assert (item.create_revision, item.version, item.lease) == (first, 2, 0)
    assert revision >= second
    assert int(etcd.cluster_id, 16) != 0


async def test_an_absent_key_has_revision_nought(etcd: Client, cluster: str) -> None:
    assert (await etcd.get(f"{cluster}/k"))[0] is None
    result = await etcd.txn(
        [Compare(f"{cluster}/k", mod_revision=0)], [Put(f"{cluster}/k", b"")], []
    )
    assert result.succeeded


async def test_each_comparison_decides(etcd: Client, cluster: str) -> None:
    key = f"{cluster}/k"
    revision = await put(etcd, key, b"v")
    right = [
        Compare(key, mod_revision=revision),
        Compare(key, create_revision=revision),
        Compare(key, version=1),
        Compare(key, value=b"v"),
    ]
    assert (await etcd.txn(right)).succeeded
    for wrong in (
        Compare(key, mod_revision=revision - 1),
        Compare(key, create_revision=revision + 1),
        Compare(key, version=2),
        Compare(key, value=b"w"),
    ):
        assert not (await etcd.txn([*right, wrong])).succeeded


async def test_the_branch_that_runs_reads_in_order(etcd: Client, cluster: str) -> None:
    await put(etcd, f"{cluster}/a", b"1")
    await put(etcd, f"{cluster}/b", b"2")
    won = await etcd.txn(
        [Compare(f"{cluster}/a", version=1)],
        [Put(f"{cluster}/t", b""), Get(f"{cluster}/", prefix=True), Delete(f"{cluster}/a")],
    )
    assert [one.key for one in won.found[1]] == [f"{cluster}/{name}" for name in "abt"]
    assert won.found[1][2].mod_revision == won.revision
    assert (won.found[0], won.found[2]) == ((), ())
    lost = await etcd.txn(
        [Compare(f"{cluster}/a", version=1)],
        [Put(f"{cluster}/never", b"")],
        [Get(f"{cluster}/a"), Get(f"{cluster}/b")],
    )
    assert not lost.succeeded
    assert [len(one) for one in lost.found] == [0, 1]


async def test_a_prefix_is_deleted_and_its_neighbours_are_not(etcd: Client, cluster: str) -> None:
    for name in ("p/1", "p/2", "p0", "o/1"):
        await put(etcd, f"{cluster}/{name}")
    await etcd.txn(success=[Delete(f"{cluster}/p/", prefix=True)])
    left = await etcd.list(f"{cluster}/")
    assert [one.key for one in left.items] == [f"{cluster}/o/1", f"{cluster}/p0"]


async def test_a_listing_is_of_one_revision_over_all_its_pages(etcd: Client, cluster: str) -> None:
    for number in range(25):
        await put(etcd, f"{cluster}/{number:02}", b"old")
    listing = await etcd.list(f"{cluster}/", page=7)
    assert [one.key for one in listing.items] == [f"{cluster}/{number:02}" for number in range(25)]
    assert max(one.mod_revision for one in listing.items) <= listing.revision


async def test_a_listing_begins_anew_when_it_is_compacted(own_etcd: EtcdServer) -> None:
    async with Client(Access((own_etcd.endpoint,))) as client:
        for number in range(3):
            await put(client, f"p/{number}", b"old")
        real, pages = client._range, 0

        async def compacting(request: object) -> object:
            nonlocal pages
            answer = await real(request)  # type: ignore[arg-type]
            pages += 1
            if pages == 1:
                await client.compact(await put(client, "p/0", b"new"))
            return answer

        client._range = compacting  # type: ignore[method-assign,assignment]
        listing = await client.list("p/", page=1)
        assert [one.value for one in listing.items] == [b"new", b"old", b"old"]
        assert pages == 4


async def test_a_key_that_is_not_utf8_is_only_a_key(etcd: Client, cluster: str) -> None:
    key = f"{cluster}/" + b"\xff\xfe".decode("utf-8", "surrogateescape")
    await put(etcd, key, b"v")
    assert [one.key for one in (await etcd.list(f"{cluster}/")).items] == [key]


async def test_a_transaction_with_a_key_twice_is_refused(etcd: Client, cluster: str) -> None:
    with pytest.raises(EtcdError, match="duplicate key") as info:
        await etcd.txn(success=[Put(f"{cluster}/k", b""), Put(f"{cluster}/k", b"")])
    assert not isinstance(info.value, EtcdUnavailable | OutcomeUnknown)


async def test_a_full_transaction_fits(etcd: Client, cluster: str) -> None:
    keys = [f"{cluster}/{number}" for number in range(128)]
    result = await etcd.txn(
        [Compare(key, mod_revision=0) for key in keys], [Put(key, b"x" * 200) for key in keys]
    )
    assert result.succeeded


async def test_a_lease_takes_its_keys_along(etcd: Client, cluster: str) -> None:
    lease = await etcd.grant(60)
    await put(etcd, f"{cluster}/k", b"", lease)
    assert await etcd.keep_alive(lease) == 60
    await etcd.revoke(lease)
    assert (await etcd.get(f"{cluster}/k"))[0] is None
    assert await etcd.keep_alive(lease) == 0
    await etcd.revoke(lease)
    with pytest.raises(EtcdError, match="lease not found"):
        await put(etcd, f"{cluster}/k", b"", lease)


async def test_a_lease_tells_that_it_was_lost(etcd: Client) -> None:
    async with Lease(etcd, 2) as lease:
        await etcd.revoke(lease.id)
        async with asyncio.timeout(5):
            await lease.lost.wait()


async def test_a_lease_outlives_its_time_while_it_is_kept(etcd: Client, cluster: str) -> None:
    async with Lease(etcd, 2) as kept:
        abandoned = await etcd.grant(2)
        await put(etcd, f"{cluster}/kept", b"", kept.id)
        revision = await put(etcd, f"{cluster}/abandoned", b"", abandoned)
        async with etcd.watch(f"{cluster}/", revision + 1) as watch, asyncio.timeout(10):
            batch = await anext(watch)
        assert [(one.item.key, one.deleted) for one in batch.events] == [
            (f"{cluster}/abandoned", True)
        ]
        assert not kept.lost.is_set()
        assert (await etcd.get(f"{cluster}/kept"))[0] is not None
    assert (await etcd.get(f"{cluster}/kept"))[0] is None


async def test_who_does_not_listen_is_named() -> None:
    endpoints = (f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")
    async with Client(Access(endpoints, timeout_s=0.3)) as client:
        for attempt in (client.get("k"), client.txn(success=[Put("k", b"")])):
            with pytest.raises(EtcdUnavailable) as info:
                await attempt
            for endpoint in endpoints:
                assert f"{endpoint}: " in str(info.value)
            assert "refused" in str(info.value).lower()


async def test_a_member_without_its_quorum_refuses_and_is_named(tmp_path: Path) -> None:
    """One of three members, left alone: nothing is applied, and that is known."""
    peers = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    cluster = ",".join(f"m{number}={url}" for number, url in enumerate(peers))
    members = [
        EtcdServer(
            tmp_path / f"m{number}",
            tmp_path / f"m{number}.log",
            options=(
                *("--unsafe-no-fsync", "--log-level=error", f"--name=m{number}"),
                *(f"--listen-peer-urls={url}", f"--initial-advertise-peer-urls={url}"),
                f"--initial-cluster={cluster}",
            ),
        )
        for number, url in enumerate(peers)
    ]
    try:
        await asyncio.gather(*(one.start() for one in members))
        async with Client(Access(tuple(one.endpoint for one in members))) as client:
            await put(client, "k", b"1")
            await members[0].stop(signal.SIGKILL)
            async with asyncio.timeout(20):
                while True:  # with two of three it goes on, after an election at the latest
                    try:
                        await put(client, "k", b"2")
                        break
                    except OutcomeUnknown:
                        continue
            await members[1].stop(signal.SIGKILL)
            async with asyncio.timeout(20):
                while True:
                    with pytest.raises((EtcdUnavailable, OutcomeUnknown)) as info:
                        await put(client, "k", b"3")
                    if isinstance(info.value, EtcdUnavailable):
                        break
            assert f"{members[2].endpoint}: etcdserver: no leader" in str(info.value)
    finally:
        await asyncio.gather(*(one.stop(signal.SIGKILL) for one in members))


async def test_a_full_etcd_may_have_applied_what_it_refuses(tmp_path: Path) -> None:
    """It lies about puts that it had let in before it noticed: how many is a matter of luck."""
    for turn in range(8):
        if await lies_when_full(tmp_path / f"data-{turn}", tmp_path / f"log-{turn}"):
            return
    raise AssertionError("it never did: then it could be believed")


async def lies_when_full(data: Path, log: Path) -> bool:
    """Whether a put was refused for want of space, and is there all the same."""
    quota = 16 * 1024 * 1024
    options = (
        "--unsafe-no-fsync",
        "--log-level=error",
        f"--quota-backend-bytes={quota}",
        "--backend-batch-limit=1",
    )
    server = EtcdServer(data, log, options=options)
    await server.start()
    try:
        async with Client(Access((server.endpoint,), timeout_s=10)) as client:
            answers = await asyncio.gather(
                *(put(client, f"k{number}", bytes(100_000)) for number in range(300)),
                return_exceptions=True,
            )
            there = {one.key for one in (await client.list("k", page=20)).items}
    finally:
        await server.stop()
    refused = {n: one for n, one in enumerate(answers) if isinstance(one, BaseException)}
    assert all("space exceeded" in str(one) for one in refused.values())
    assert {type(one) for one in refused.values()} == {OutcomeUnknown}
    return any(f"k{number}" in there for number in refused)


@pytest.mark.parametrize("endpoint", ["", "ftp://h:1", "http://h:1/path", "h:notaport"])
async def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"endpoint|[Pp]ort"):
        Client(Access((endpoint,)))


async def test_another_endpoint_takes_over(own_etcd: EtcdServer) -> None:
    dead = f"127.0.0.1:{free_port()}"
    async with Client(Access((dead, own_etcd.endpoint))) as client:
        await put(client, "k", b"v")
        assert (await client.get("k"))[0] is not None


async def test_a_silent_etcd_costs_a_write_its_deadline(own_etcd: EtcdServer) -> None:
    async with Client(Access((own_etcd.endpoint,), timeout_s=0.5)) as client:
        await put(client, "k", b"before")
        with paused(own_etcd):
            started = asyncio.get_running_loop().time()
            with pytest.raises(OutcomeUnknown, match=own_etcd.endpoint):
                await put(client, "k", b"late")
            with pytest.raises(EtcdUnavailable, match="does not answer"):
                await client.get("k")
            assert asyncio.get_running_loop().time() - started < 1.5
        # Lost for good or applied late: both may be.
        item, _ = await client.get("k")
        assert item is not None
        assert item.value in (b"before", b"late")


async def test_a_silent_endpoint_is_left_for_another(
    own_etcd: EtcdServer, etcd_server: EtcdServer
) -> None:
    access = Access((own_etcd.endpoint, etcd_server.endpoint), timeout_s=1)
    with paused(own_etcd):
        async with Client(access) as client:
            await client.get("k")
            await put(client, "some/key")
