"""What etcd holds: the keys of one cluster, and its records as canonical proto3 JSON.

Keys are text below `/slotway/<cluster>/`; the layout is told in `slotway/v1/ledger.proto`. A record
whose schema this program does not know, or with fields that its schema does not have, is refused:
rewriting it would lose something.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from google.protobuf import json_format

from slotway.errors import SlotwayError
from slotway.v1 import ledger_pb2

SCHEMA = 1
ROOT = "/slotway/"

Record: TypeAlias = (
    ledger_pb2.LedgerRecord
    | ledger_pb2.LeaderRecord
    | ledger_pb2.MemberRecord
    | ledger_pb2.ActionRecord
    | ledger_pb2.ContainerRecord
    | ledger_pb2.AddressesRecord
)
R = TypeVar("R", bound=Record)

_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class RecordError(SlotwayError):
    """A value under the cluster's prefix is not what its key says."""


class UnknownSchemaError(RecordError):
    """A record was written by a program that knows more: refuse to lead."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one cluster. Raises ValueError if the cluster's name is out of its pattern."""

    cluster: str

    def __post_init__(self) -> None:
        if _CLUSTER.fullmatch(self.cluster) is None:
            raise ValueError(f"cluster name {self.cluster!r} does not match {_CLUSTER.pattern}")

    @property
    def prefix(self) -> str:
        """Everything of the cluster."""
        return f"{ROOT}{self.cluster}/"

    @property
    def ledger(self) -> str:
        """LedgerRecord."""
        return f"{self.prefix}ledger"

    @property
    def leader(self) -> str:
        """LeaderRecord; the revision of its put is the term's."""
        return f"{self.prefix}manager/leader"

    @property
    def turn(self) -> str:
        """A number; its revision chains the leader's commits."""
        return f"{self.prefix}manager/turn"

    @property
    def members(self) -> str:
        """The prefix of all MemberRecords."""
        return f"{self.prefix}manager/members/"

    @property
    def actions(self) -> str:
        """The prefix of all ActionRecords."""
        return f"{self.prefix}actions/"

    @property
    def containers(self) -> str:
        """The prefix of all ContainerRecords."""
        return f"{self.prefix}containers/"

    @property
    def addresses(self) -> str:
        """AddressesRecord."""
        return f"{self.prefix}addresses"

    def member(self, manager: str) -> str:
        """MemberRecord of the Manager with this configured id."""
        return self.members + manager

    def action(self, name: str) -> str:
        """ActionRecord of "namespace/name"."""
        return self.actions + name

    def container(self, container: str) -> str:
        """ContainerRecord."""
        return self.containers + container


def encode(record: Record) -> bytes:
    """The record as JSON of the present schema; keys are sorted: equal records are equal bytes."""
    fields = json_format.MessageToDict(record, preserving_proto_field_name=True)
    fields["schema"] = SCHEMA
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(kind: type[R], key: str, value: bytes) -> R:
    """Reads a record of this kind; `key` is for the message.

    Raises UnknownSchemaError or RecordError.
    """
    try:
        fields = json.loads(value)
        schema = fields["schema"]
    except (ValueError, TypeError, KeyError) as exc:
        raise RecordError(f"etcd key {key}: not a record with a schema: {exc!r}") from exc
    if schema != SCHEMA:
        raise UnknownSchemaError(
            f"etcd key {key} has schema {schema!r}; "
            f"this program knows schema {SCHEMA} only: upgrade it"
        )
    try:
        return json_format.ParseDict(fields, kind())
    except json_format.ParseError as exc:
        raise RecordError(f"etcd key {key}: not a {kind.__name__}: {exc}") from exc
