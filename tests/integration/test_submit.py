"""Asynchronous invocations, end to end: real Routers, a Manager, containers, and the store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from slotway.aio import ActivationRecord, Client
from slotway.status import CallError

from .parts import Parts

CODE = b"""
import os, time
def main(args):
    if "sleep" in args: time.sleep(args["sleep"])
    if "log" in args:
        with open(args["log"], "a") as log: log.write(str(args["n"]) + "\\n")
    if "die" in args: os._exit(1)
    if "fail" in args: raise ValueError("on purpose")
    return {"n": args.get("n")}
"""
DONE, DEAD = ActivationRecord.STATE_DONE, ActivationRecord.STATE_DEAD


pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "activations.db"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parts(tmp_path_factory: pytest.TempPathFactory, store: Path) -> AsyncIterator[Parts]:
    folder = tmp_path_factory.mktemp("submit")
    flags = ["--store", f"sqlite:///{store}", "--async-wait", "100ms"]
    async with Parts(folder / "parts", "test-submit", routers=2, router_flags=flags) as made:
        yield made


async def over(client: Client, id: str, seconds: float = 60) -> ActivationRecord:
    """The record, once there is an outcome or none will be: the store is another process's."""
    async with asyncio.timeout(seconds):
        while True:
            found = await client.get_activation(id)
            if found.state in (DONE, DEAD):
                return found
            await asyncio.sleep(0.02)


async def test_submitted_ones_run_and_one_outcome_is_recorded(parts: Parts, tmp_path: Path) -> None:
    one, other = parts.clients
    await one.put_action("ran/act", CODE, concurrency=4)
    log = tmp_path / "log"
    ids = [
        await client.submit("ran/act", {"n": n, "log": str(log)})
        for n, client in enumerate([one, other] * 20)
    ]
    assert len(set(ids)) == 40
    found = [await over(client, id) for id, client in zip(ids, [other, one] * 20, strict=True)]
    for n, record in enumerate(found):
        assert (record.state, record.status) == (DONE, ActivationRecord.STATUS_SUCCESS)
        assert json.loads(record.result) == {"n": n}
        assert (record.action, record.attempts) == ("ran/act", 1)
        assert record.container_id
        assert record.run.ToMicroseconds() > 0
    # The action's own word: each ran once.
    assert sorted(map(int, log.read_text().split())) == list(range(40))
    listed = await one.list_activations("ran", limit=100)
    assert [record.id for record in listed] == sorted(ids, reverse=True)

    id = await one.submit("ran/act", {"fail": 1})
    failed = await over(one, id)
    assert failed.status == ActivationRecord.STATUS_APPLICATION_ERROR
    assert "on purpose" in json.loads(failed.result)["error"]

    keyed = [await client.submit("ran/act", {"n": 1}, key="k") for client in (one, other, one)]
    assert len(set(keyed)) == 1


async def test_what_cannot_succeed_comes_to_an_end_that_says_why(parts: Parts) -> None:
    client = parts.clients[0]
    unknown = await client.submit("ends/unknown")
    await client.put_action("ends/broken", b"this is no Python")
    broken = await client.submit("ends/broken")
    await client.put_action("ends/slow", CODE, timeout=0.3)
    slow = await client.submit("ends/slow", {"sleep": 3})
    await client.put_action("ends/dies", CODE)
    dies = await client.submit("ends/dies", {"die": 1})
    record = await over(client, unknown)
    assert record.status == ActivationRecord.STATUS_DEVELOPER_ERROR
    assert "ends/unknown" in json.loads(record.result)["error"]
    record = await over(client, broken)
    assert record.status == ActivationRecord.STATUS_DEVELOPER_ERROR
    assert "SyntaxError" in json.loads(record.result)["error"]
    record = await over(client, slow)
    assert record.status == ActivationRecord.STATUS_TIMEOUT
    async with asyncio.timeout(60):
        while (record := await client.get_activation(dies)).attempts < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert record.state in (ActivationRecord.STATE_QUEUED, ActivationRecord.STATE_CLAIMED)
    assert record.reason.startswith("CONTAINER_LOST")


async def test_bad_submissions_are_refused(parts: Parts) -> None:
    client = parts.clients[0]
    for action, payload, key, reason in (
        ("no-slash", b"{}", "", "INVALID_FIELD"),
        ("bad/act", b"[1]", "", "INVALID_PAYLOAD"),
        ("bad/act", b"{}", "k" * 129, "INVALID_FIELD"),
        ("bad/act", b"{}", "a b", "INVALID_FIELD"),
        ("bad/act", b"{" + b" " * 1_048_576 + b"}", "", "REQUEST_TOO_LARGE"),
    ):
        with pytest.raises(CallError) as told:
            await client.submit(action, payload, key=key)
        assert told.value.reason == reason
    with pytest.raises(CallError) as told:
        await client.get_activation("nobody")
    assert told.value.reason == "ACTIVATION_NOT_FOUND"
    assert await client.list_activations("bad") == []


async def test_a_router_that_stops_finishes_what_it_runs(parts: Parts) -> None:
    one, other = parts.clients
    await one.put_action("stop/act", CODE, concurrency=4, timeout=60, containers_max=1)
    for client in (one, other):
        await client.invoke("stop/act")  # both have slots
    arguments = [{"n": n, "sleep": 0.2} for n in range(24)]
    ids = await asyncio.gather(*(one.submit("stop/act", each) for each in arguments))
    async with asyncio.timeout(60):
        while not await _of_router(one, "stop", "router-1"):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.01)
    await parts.routers[0].stop(asyncio.Event(), 20)
    # Within the timeout: nothing has to wait for the end of a lease.
    records = [await over(other, id, 30) for id in ids]
    assert [json.loads(record.result) for record in records] == [{"n": n} for n in range(24)]
    assert {record.attempts for record in records} == {1}
    await parts.routers[0].start()
    await parts.until_live()


async def test_a_killed_router_loses_nothing(parts: Parts, store: Path, tmp_path: Path) -> None:
    one, other = parts.clients
    await one.put_action("kill/act", CODE, concurrency=4, timeout=1, containers_max=1)
    log = tmp_path / "log"
    for client in (one, other):
        await client.invoke("kill/act")  # both have slots
    arguments = [{"n": n, "sleep": 0.4, "log": str(log)} for n in range(24)]
    async with standing(parts.routers[1].pid, store):  # so that the other one claims
        ids = await asyncio.gather(*(one.submit("kill/act", each) for each in arguments))
        async with asyncio.timeout(60):
            while not await _any_claimed(one, "kill"):  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.01)
        os.kill(parts.routers[0].pid, signal.SIGKILL)
        await parts.routers[0].wait()
    records = [await over(other, id) for id in ids]
    assert {record.state for record in records} == {DONE}
    assert [json.loads(record.result) for record in records] == [{"n": n} for n in range(24)]
    assert any(record.attempts > 1 for record in records)
    ran = log.read_text().split()
    assert set(map(int, ran)) == set(range(24))
    assert len(ran) <= sum(record.attempts for record in records)


@contextlib.asynccontextmanager
async def standing(pid: int, store: Path) -> AsyncIterator[None]:
    """The Router is stopped, and not while it writes to the store."""
    async with asyncio.timeout(60):
        while True:
            os.kill(pid, signal.SIGSTOP)
            try:
                with contextlib.closing(sqlite3.connect(store, timeout=0.1)) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(0.01)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def _any_claimed(client: Client, namespace: str) -> bool:
    records = await client.list_activations(namespace, limit=100)
    return any(record.state == ActivationRecord.STATE_CLAIMED for record in records)


async def _of_router(client: Client, namespace: str, router: str) -> bool:
    records = await client.list_activations(namespace, limit=100)
    return any(record.router == router for record in records if record.state == DONE)
