"""`slotway manager` as a process: an etcd that is away, signals, mistakes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from slotway.etcd.server import EtcdServer, free_port


@contextlib.asynccontextmanager
async def manager(folder: Path, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`slotway manager` with its output on a pipe; killed at the end if it still runs."""
    environment = {name: value for name, value in os.environ.items() if "SLOTWAY" not in name}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "slotway.cli", "manager"),
        *("--data-dir", str(folder / "data"), "--id", "m1", *flags),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until(process: asyncio.subprocess.Process, word: str) -> str:
    """Reads its output up to the line that has the word."""
    assert process.stdout is not None
    seen = ""
    async with asyncio.timeout(60):
        while word not in seen:
            line = await process.stdout.readline()
            assert line, f"it ended: {seen}"
            seen += line.decode()
    return seen


async def test_an_etcd_that_is_away_is_named_and_waited_for(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path / "etcd", tmp_path / "log", options=("--unsafe-no-fsync",))
    dead = f"127.0.0.1:{free_port()}"
    endpoints = f"{dead},{server.endpoint}"
    async with manager(tmp_path, "--etcd", endpoints) as process:
        said = await until(process, "etcd is away")
        assert f"{dead}: " in said
        assert f"{server.endpoint}: " in said
        await server.start()
        try:
            await until(process, "leader")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 30) == 0
        finally:
            await server.stop()


async def test_it_stops_while_etcd_is_away(tmp_path: Path) -> None:
    async with manager(tmp_path, "--etcd", f"127.0.0.1:{free_port()}") as process:
        await until(process, "etcd is away")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_a_mistake_is_told_in_one_line(tmp_path: Path) -> None:
    for flags, told in (
        (("--listen", "192.0.2.1:1"), "is not loopback"),
        (("--keep-warm", "5"), "--keep-warm: manager.keep_warm: not a duration"),
        (("--driver", "podman"), "--driver: manager.driver"),
    ):
        async with manager(tmp_path, *flags) as process:
            output, _ = await asyncio.wait_for(process.communicate(), 60)
            assert told in output.decode()
            assert "Traceback" not in output.decode()
            assert process.returncode == 1


async def test_a_ledger_that_must_not_be_led_ends_it(
    etcd_server: EtcdServer, cluster: str, tmp_path: Path
) -> None:
    from slotway.etcd import Access, Client, Put
    from slotway.records import Keys

    async with Client(Access((etcd_server.endpoint,))) as client:
        await client.txn(success=[Put(Keys(cluster).ledger, b'{"schema": 9}')])
    flags = ("--cluster", cluster, "--etcd", etcd_server.endpoint)
    async with manager(tmp_path, *flags) as process:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert "has schema 9" in output.decode()
    assert process.returncode == 4
