"""The keys and the encoding of what etcd holds."""

from __future__ import annotations

import json

import pytest

from slotway.records import Keys, Record, RecordError, UnknownSchemaError, decode, encode
from slotway.v1 import ledger_pb2


def test_keys_are_those_of_the_proto() -> None:
    keys = Keys("demo")
    assert keys.ledger == "/slotway/demo/ledger"
    assert keys.leader == "/slotway/demo/manager/leader"
    assert keys.turn == "/slotway/demo/manager/turn"
    assert keys.member("m1") == "/slotway/demo/manager/members/m1"
    assert keys.action("ns/name") == "/slotway/demo/actions/ns/name"
    assert keys.container("c1") == "/slotway/demo/containers/c1"


@pytest.mark.parametrize("name", ["", "a/b", "-a", "a" * 64, "ä", "a\n"])
def test_a_bad_cluster_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cluster name"):
        Keys(name)


def container() -> ledger_pb2.ContainerRecord:
    return ledger_pb2.ContainerRecord(
        id="c1",
        state=ledger_pb2.CONTAINER_STATE_READY,
        capacity=10,
        shares={"r2": 3, "r1": 4},
        created_at_ms=2**53 + 1,
    )


@pytest.mark.parametrize(
    "record",
    [
        container(),
        ledger_pb2.LedgerRecord(epoch=1, etcd_cluster_id="cdf818194e3a8c32"),
        ledger_pb2.LeaderRecord(id="m1", address="127.0.0.1:1", incarnation="x"),
        ledger_pb2.MemberRecord(id="m1"),
        ledger_pb2.ActionRecord(name="a/b", parameters='{"ü": 1}'),
    ],
)
def test_what_is_encoded_can_be_decoded(record: Record) -> None:
    back: Record = decode(type(record), "k", encode(record))
    record.schema = 1
    assert back == record


def test_the_json_is_canonical_and_readable() -> None:
    value = encode(container())
    assert value.index(b'"r1"') < value.index(b'"r2"')
    fields = json.loads(value)
    assert fields["schema"] == 1
    assert fields["state"] == "CONTAINER_STATE_READY"
    assert fields["created_at_ms"] == str(2**53 + 1)


def test_an_unknown_schema_is_told_before_its_unknown_fields() -> None:
    with pytest.raises(UnknownSchemaError, match=r"key /x has schema 2; .* upgrade"):
        decode(ledger_pb2.LedgerRecord, "/x", b'{"schema": 2, "new": 1}')


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff", b"{}", b"[]", b"7", b'{"schema": 1, "new": 1}', b'{"schema":1,"epoch":[]}'],
)
def test_anything_else_is_a_record_error(value: bytes) -> None:
    with pytest.raises(RecordError, match="etcd key /x"):
        decode(ledger_pb2.LedgerRecord, "/x", value)
