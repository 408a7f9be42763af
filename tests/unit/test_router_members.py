"""The Router's list of Managers never ends, whatever becomes of the lookup."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from slotway.config import RouterConfig
from slotway.router import server


async def test_a_lookup_that_fails_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = 0

    async def managers(etcd: object, keys: object) -> AsyncGenerator[dict[str, str]]:
        nonlocal lookups
        lookups += 1
        yield {"m": f"127.0.0.1:{lookups}"}
        raise RuntimeError("nobody expects this")

    monkeypatch.setattr(server, "managers", managers)
    monkeypatch.setattr(server, "ETCD_PAUSE_SECONDS", 0.0)
    async with aclosing(server._members(RouterConfig())) as lists:
        assert [await anext(lists) for _ in range(3)] == [
            {"m": f"127.0.0.1:{number}"} for number in (1, 2, 3)
        ]
