"""A lease that is kept alive, and tells when it is not.

Nobody's safety hangs on it: a lease may be gone although the last beat was answered. It only makes
keys of a dead process go away.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import structlog

from slotway.etcd.client import Client
from slotway.etcd.errors import EtcdError, EtcdUnavailable

log = structlog.get_logger(__name__)

BEATS = 4
"""Beats per time to live: so many may be lost, less one."""


class Lease:
    """An async context manager: granted on entry, kept alive meanwhile, revoked on exit.

    Entry raises what `Client.grant` raises. `lost` is set when etcd says that the lease is gone; as
    long as etcd does not answer, nobody knows, and it goes on trying.
    """

    def __init__(self, client: Client, ttl_s: int):
        self.id = 0
        self.lost = asyncio.Event()
        self._client = client
        self._ttl_s = ttl_s
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.id = await self._client.grant(self._ttl_s)
        self._beating = asyncio.create_task(self._beat(), name="etcd-lease")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._beating is not None
        self._beating.cancel()
        await asyncio.wait({self._beating})
        try:
            await self._client.revoke(self.id)
        except EtcdError as problem:
            log.info("etcd lease left to expire", ttl_s=self._ttl_s, why=str(problem))

    async def _beat(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._ttl_s / BEATS)
                try:
                    if await self._client.keep_alive(self.id) == 0:
                        log.warning("etcd lease is gone", ttl_s=self._ttl_s)
                        return
                except EtcdUnavailable as exc:
                    log.info("etcd lease: a beat was not answered", why=str(exc))
        except EtcdError as exc:
            log.warning("etcd lease cannot be kept", why=str(exc))
        finally:
            self.lost.set()
