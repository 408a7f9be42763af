"""A client of etcd whose writes get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from slotway.etcd import Access, Client, Compare, Delete, Operation, OutcomeUnknown, Put, TxnResult


class FaultyClient(Client):
    """Loses what a test tells it to, of the writes of some kind of record."""

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self.faults: dict[int, str] = {}
        """What becomes of the n-th write, from 1 on."""
        self.writes = 0
        self.spoils = "/containers/"
        self.gate = asyncio.Event()
        self.gate.set()
        self.late: list[tuple[Sequence[Compare], Sequence[Operation]]] = []

    async def txn(
        self,
        compare: Sequence[Compare] = (),
        success: Sequence[Operation] = (),
        failure: Sequence[Operation] = (),
        timeout_s: float = 0,
    ) -> TxnResult:
        """As told."""
        writes = [one.key for one in success if isinstance(one, Put | Delete)]
        if not any(self.spoils in key for key in writes):
            return await super().txn(compare, success, failure, timeout_s)
        await self.gate.wait()
        self.writes += 1
        fault = self.faults.get(self.writes)
        if fault is None:
            return await super().txn(compare, success, failure, timeout_s)
        if fault == "answer lost":
            await super().txn(compare, success, failure, timeout_s)
        elif fault == "late":
            self.late.append((compare, success))
        raise OutcomeUnknown(f"a test's fault: {fault}")

    async def apply_late(self) -> list[bool]:
        """What was held back reaches etcd now."""
        return [(await super(FaultyClient, self).txn(c, s)).succeeded for c, s in self.late]
