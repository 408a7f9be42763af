"""Leadership on a real etcd: who leads, when it ends, and when a ledger is not led at all."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack

import pytest

from slotway.etcd import (
    Access,
    Client,
    Compare,
    Delete,
    EtcdUnavailable,
    KeyValue,
    OutcomeUnknown,
    Put,
    TxnResult,
)
from slotway.etcd.server import EtcdServer, free_port
from slotway.manager.leader import Leadership, Reign
from slotway.manager.ledger import LedgerRefusedError
from slotway.manager.succession import YOUNG_S
from slotway.records import Keys, RecordError, UnknownSchemaError, decode, encode
from slotway.v1.ledger_pb2 import ContainerRecord, LeaderRecord, LedgerRecord

numbers = itertools.count(1)


@pytest.fixture
def keys(cluster: str) -> Keys:
    return Keys(cluster)


def candidate(
    client: Client, keys: Keys, address: str = "127.0.0.1:1", ttl_s: int = 2
) -> Leadership:
    number = next(numbers)
    record = LeaderRecord(id=f"m{number}", address=address, incarnation=f"i{number}")
    return Leadership(client, keys, record, ttl_s)


async def ends(reign: Reign) -> str:
    async with asyncio.timeout(10):
        await reign.lost.wait()
    return reign.why


async def test_the_first_leader_begins_the_ledger(etcd: Client, keys: Keys) -> None:
    async with candidate(etcd, keys).reign() as reign:
        item, _ = await etcd.get(keys.leader)
        assert item is not None
        assert reign.term == (1, item.mod_revision)
        record = decode(LeaderRecord, item.key, item.value)
        assert (record.schema, record.address) == (1, "127.0.0.1:1")
        ledger, _ = await etcd.get(keys.ledger)
        assert ledger is not None
        kept = decode(LedgerRecord, ledger.key, ledger.value)
        assert (kept.epoch, kept.etcd_cluster_id) == (1, etcd.cluster_id)
    assert (await etcd.get(keys.leader))[0] is None


async def test_terms_of_one_manager_grow(etcd: Client, keys: Keys) -> None:
    leadership = candidate(etcd, keys)
    async with leadership.reign() as first:
        pass
    async with leadership.reign() as second:
        assert second.term > first.term


async def test_a_deleted_key_ends_the_reign(etcd: Client, keys: Keys) -> None:
    leadership = candidate(etcd, keys)
    async with leadership.reign() as reign:
        await etcd.txn(success=[Delete(keys.leader)])
        assert "deleted" in await ends(reign)
    async with leadership.reign() as again:
        assert again.term > reign.term


async def test_an_ended_lease_ends_the_reign(etcd: Client, keys: Keys) -> None:
    async with candidate(etcd, keys).reign() as reign:
        item, _ = await etcd.get(keys.leader)
        assert item is not None
        await etcd.revoke(item.lease)
        assert "lease" in await ends(reign)


async def test_a_foreign_leader_ends_the_reign_and_is_left_alone(etcd: Client, keys: Keys) -> None:
    foreign = LeaderRecord(id="other", address="127.0.0.1:9", incarnation="x")
    async with candidate(etcd, keys).reign() as reign:
        await etcd.txn(success=[Put(keys.leader, encode(foreign))])
        assert "'other' at 127.0.0.1:9" in await ends(reign)
    # Resigning deletes only what is one's own.
    item, _ = await etcd.get(keys.leader)
    assert item is not None
    assert decode(LeaderRecord, item.key, item.value).id == "other"


async def test_a_lost_watch_event_is_made_good_by_the_transaction(
    etcd: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(self: Leadership, reign: Reign) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Leadership, "_watch", deaf)
    async with candidate(etcd, keys).reign() as reign:
        await etcd.txn(success=[Delete(keys.leader)])
        assert "not this term's" in await ends(reign)


async def test_the_second_waits_for_the_first(etcd: Client, keys: Keys) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AsyncExitStack() as stack:
        first = await stack.enter_async_context(candidate(etcd, keys, f"127.0.0.1:{port}").reign())
        second = candidate(etcd, keys)

        async def win() -> Reign:
            async with second.reign() as reign:
                return reign

        waiting = asyncio.create_task(win())
        done, _ = await asyncio.wait({waiting}, timeout=YOUNG_S / 2)
        assert not done, "somebody listens at the leader's address, and the key is young"
        await stack.aclose()
        async with asyncio.timeout(5):
            assert (await waiting).term > first.term


async def test_a_leader_that_is_surely_dead_is_followed_before_its_lease_ends(
    etcd: Client, keys: Keys
) -> None:
    dead = LeaderRecord(id="dead", address=f"127.0.0.1:{free_port()}", incarnation="dead")
    lease = await etcd.grant(600)
    await etcd.txn(success=[Put(keys.leader, encode(dead), lease)])
    async with asyncio.timeout(10), candidate(etcd, keys).reign() as reign:
        assert reign.term[1] > 0
    await etcd.revoke(lease)


async def test_a_restart_of_etcd_does_not_end_the_reign(own_etcd: EtcdServer, keys: Keys) -> None:
    access = Access((own_etcd.endpoint,))
    async with Client(access) as client, candidate(client, keys).reign() as reign:
        await own_etcd.stop()
        await own_etcd.start()
        guard = Compare(keys.leader, mod_revision=reign.term[1])
        for _ in range(3):
            assert (await client.txn([guard], [Put(keys.turn, b"1")])).succeeded
        with pytest.raises(TimeoutError):  # its lease was kept alive over the restart
            async with asyncio.timeout(3):
                await reign.lost.wait()


async def test_leading_begins_when_etcd_comes_up(own_etcd: EtcdServer, keys: Keys) -> None:
    await own_etcd.stop()
    async with Client(Access((own_etcd.endpoint,), timeout_s=0.2)) as client:

        async def lead() -> tuple[int, int]:
            async with candidate(client, keys).reign() as reign:
                return reign.term

        leading = asyncio.create_task(lead())
        done, _ = await asyncio.wait({leading}, timeout=0.5)
        assert not done
        await own_etcd.start()
        async with asyncio.timeout(10):
            assert (await leading)[0] == 1


@pytest.mark.parametrize("applied", [True, False])
async def test_a_take_that_was_not_answered_is_settled(
    etcd: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    """The revision that was won is found on the key; the same one is never led twice."""
    real = etcd.txn
    lost: list[TxnResult | None] = []

    async def losing(
        compare: object = (), success: object = (), failure: object = (), timeout_s: float = 0
    ) -> TxnResult:
        takes = any(
            isinstance(one, Put) and one.key == keys.leader
            for one in success  # type: ignore[attr-defined]
        )
        if takes and not lost:
            lost.append(await real(compare, success) if applied else None)  # type: ignore[arg-type]
            raise OutcomeUnknown("the answer was lost")
        return await real(compare, success, failure, timeout_s)  # type: ignore[arg-type]

    monkeypatch.setattr(etcd, "txn", losing)
    leadership = candidate(etcd, keys)
    async with leadership.reign() as reign:
        item, _ = await etcd.get(keys.leader)
        assert item is not None
        assert reign.term[1] == item.mod_revision
        if applied:
            assert lost[0] is not None
            assert reign.term[1] == lost[0].revision
    async with leadership.reign() as again:
        assert again.term > reign.term


async def test_a_key_that_was_handed_over_is_led_though_etcd_falters(
    etcd: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = etcd.get
    reads = itertools.count(1)

    async def faltering(key: str) -> tuple[KeyValue | None, int]:
        if key == keys.ledger and next(reads) == 3:  # before, it was begun and read
            raise EtcdUnavailable("etcd is away for a moment")
        return await real(key)

    monkeypatch.setattr(etcd, "get", faltering)
    record = LeaderRecord(id="heir", address="127.0.0.1:1", incarnation="heir")
    result = await etcd.txn(success=[Put(keys.leader, encode(record))])
    async with asyncio.timeout(10), Leadership(etcd, keys, record, 2).reign() as reign:
        assert reign.term == (1, result.revision)
    assert next(reads) > 4


async def test_another_etcd_is_not_led(etcd: Client, keys: Keys) -> None:
    await etcd.txn(
        success=[Put(keys.ledger, encode(LedgerRecord(epoch=3, etcd_cluster_id="beef")))]
    )
    with pytest.raises(LedgerRefusedError, match="slotway cluster recover") as info:
        async with candidate(etcd, keys).reign():
            pytest.fail("it must not lead")
    assert info.value.reason == "EPOCH_MISMATCH"
    assert (await etcd.get(keys.leader))[0] is None


async def test_a_higher_epoch_is_part_of_the_term(etcd: Client, keys: Keys) -> None:
    await etcd.get(keys.ledger)
    record = LedgerRecord(epoch=7, etcd_cluster_id=etcd.cluster_id)
    await etcd.txn(success=[Put(keys.ledger, encode(record))])
    async with candidate(etcd, keys).reign() as reign:
        assert reign.term[0] == 7


async def test_containers_without_a_ledger_are_not_led(etcd: Client, keys: Keys) -> None:
    await etcd.txn(success=[Put(keys.container("c"), encode(ContainerRecord(id="c")))])
    with pytest.raises(LedgerRefusedError, match="not its ledger's record"):
        async with candidate(etcd, keys).reign():
            pytest.fail("it must not lead")


@pytest.mark.parametrize(
    ("value", "error"), [(b'{"schema":2}', UnknownSchemaError), (b"junk", RecordError)]
)
@pytest.mark.parametrize("which", ["ledger", "leader"])
async def test_what_is_not_understood_is_not_led(
    etcd: Client, keys: Keys, which: str, value: bytes, error: type[RecordError]
) -> None:
    await etcd.txn(success=[Put(getattr(keys, which), value)])
    with pytest.raises(error, match=f"/{which}"):
        async with candidate(etcd, keys).reign():
            pytest.fail("it must not lead")
