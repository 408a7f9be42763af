"""`python -m slotway.runtime`, as images run it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest

from .containers import BARRIER, PATIENCE_S, code


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The port of a runtime with a limit of its own of 2; it must end by itself on SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "slotway.runtime", "--host", "127.0.0.1"),
        *("--port", str(port), "--capacity", "2", "--limit", "2"),
    )
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                break
        yield port
        process.terminate()
        assert await process.wait() == 128 + signal.SIGTERM


async def test_it_serves_tcp_and_keeps_its_own_limit_when_told(port: int) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def post(path: str, value: dict[str, object]) -> tuple[int, str]:
            async with session.post(path, data=json.dumps({"value": value})) as response:
                return response.status, await response.text()

        assert await post("/init", code(BARRIER["async def"].replace("COUNT", "2"))) == (
            200,
            '{"ok":true}',
        )
        first = asyncio.create_task(post("/run", {}))
        answers = await asyncio.gather(first, *(post("/run", {}) for _ in range(3)))
        assert sorted(status for status, _ in answers) == [200, 200, 429, 429]
