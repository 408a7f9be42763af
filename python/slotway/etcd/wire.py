"""Conversion between etcd's messages and this package's words."""

from __future__ import annotations

from slotway.etcd import rpc_pb2
from slotway.etcd.model import Event, KeyValue


def key_bytes(key: str) -> bytes:
    """The key on the wire."""
    return key.encode("utf-8", "surrogateescape")


def item_of(kv: rpc_pb2.KeyValue) -> KeyValue:
    """A key as etcd told it."""
    return KeyValue(
        key=kv.key.decode("utf-8", "surrogateescape"),
        value=kv.value,
        mod_revision=kv.mod_revision,
        create_revision=kv.create_revision,
        version=kv.version,
        lease=kv.lease,
    )


def event_of(event: rpc_pb2.Event) -> Event:
    """A change as etcd told it."""
    return Event(item_of(event.kv), deleted=event.type == rpc_pb2.Event.DELETE)
