"""A client of etcd's v3 API for asyncio: the only package that knows etcd's wire (ADR 0001)."""

from slotway.etcd.client import Client
from slotway.etcd.errors import (
    Compacted,
    EtcdError,
    EtcdUnavailable,
    LeaseGone,
    OutcomeUnknown,
    WrongCluster,
)
from slotway.etcd.lease import Lease
from slotway.etcd.model import (
    Access,
    Batch,
    Compare,
    Delete,
    Event,
    Get,
    KeyValue,
    Listing,
    Operation,
    Put,
    TxnResult,
)
from slotway.etcd.view import Change, View
from slotway.etcd.watch import Watch

__all__ = [
    "Access",
    "Batch",
    "Change",
    "Client",
    "Compacted",
    "Compare",
    "Delete",
    "EtcdError",
    "EtcdUnavailable",
    "Event",
    "Get",
    "KeyValue",
    "Lease",
    "LeaseGone",
    "Listing",
    "Operation",
    "OutcomeUnknown",
    "Put",
    "TxnResult",
    "View",
    "Watch",
    "WrongCluster",
]
