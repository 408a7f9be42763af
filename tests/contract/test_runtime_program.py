"""`python -m slotway.runtime`, as images run it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from .containers import PATIENCE_S, code


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


GATED = """
import asyncio
async def main(args):
    # A FIFO: it can be opened while somebody has it open for writing.
    (await asyncio.to_thread(open, args["gate"])).close()
    return {}
"""


async def test_it_serves_tcp_and_keeps_its_own_limit_when_told(port: int, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def post(path: str, value: dict[str, object]) -> int:
            async with session.post(path, data=json.dumps({"value": value})) as response:
                return response.status

        assert await post("/init", code(GATED)) == 200
        runs = [asyncio.create_task(post("/run", {"gate": gate})) for _ in range(4)]
        answers = asyncio.as_completed(runs, timeout=PATIENCE_S)
        assert [await next(answers), await next(answers)] == [429, 429]
        opened = await asyncio.to_thread(os.open, gate, os.O_WRONLY)
        assert [await each for each in answers] == [200, 200]
        os.close(opened)
