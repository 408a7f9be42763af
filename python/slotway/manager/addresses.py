"""The count of containers' addresses: none is used by a second container, whatever crashes.

The count is a record of its own. It is raised by the very commits that record the containers which
use the addresses, and only there: what a commit did not record was never given to a driver. The
chain of commits orders its writes, so it needs no comparison of its own.
"""

from __future__ import annotations

import secrets

from slotway.drivers.base import Addresses
from slotway.errors import SlotwayError
from slotway.etcd import KeyValue, Put
from slotway.records import Keys, decode, encode
from slotway.v1.ledger_pb2 import AddressesRecord


class AddressCount:
    """What is left of the addresses that a driver numbers; endless where it numbers none."""

    def __init__(self, numbered: Addresses | None, keys: Keys) -> None:
        self._numbered, self._key = numbered, keys.addresses
        self._record = AddressesRecord()
        self._written = 0

    @property
    def ledger(self) -> str:
        """The id of this count; empty if nothing is numbered."""
        return self._record.id

    def adopt(self, found: tuple[KeyValue, ...]) -> None:
        """Takes what etcd has, none or one record. Raises RecordError."""
        if self._numbered is None:
            return
        for item in found:
            self._record = decode(AddressesRecord, item.key, item.value)
            self._written = self._record.used
        if not found:
            self._record = AddressesRecord(
                id=secrets.token_hex(8), subnet=self._numbered.subnet, used=0
            )
            self._written = 0

    def left(self) -> int | None:
        """How many may still be used; None: any number."""
        if self._numbered is None:
            return None
        if self._record.subnet != self._numbered.subnet:
            return 0
        return max(0, self._numbered.count - self._record.used)

    def refusal(self) -> SlotwayError | None:
        """Why no container can be created; None: one can."""
        if self.left() != 0 or self._numbered is None:
            return None
        mine, subnet = self._record.subnet, self._numbered.subnet
        if mine != subnet:
            why = (
                f"this cluster counts the addresses of {mine}, and the driver is configured for"
                f" {subnet}: configure {mine}, or begin a new cluster"
            )
        else:
            why = (
                f"all {self._numbered.count} addresses of {subnet} have been used, and none is"
                " used twice: begin a new cluster, with a larger subnet"
            )
        return SlotwayError(why, reason="CREATE_FAILED")

    def take(self) -> int:
        """The number of the next address; 0 where they are not numbered. Asserts that one is
        left."""
        if self._numbered is None:
            return 0
        assert self.left(), "the plan creates more than there are addresses"
        self._record.used += 1
        return self._record.used

    def unwritten(self) -> Put | None:
        """What has to be put with a commit that records containers."""
        if self._record.used == self._written:
            return None
        return Put(self._key, encode(self._record))

    def written(self) -> None:
        """The commit was applied."""
        self._written = self._record.used
