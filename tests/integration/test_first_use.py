"""What a person does first: `slotway dev`, the commands, and every example."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.test_dev import Dev

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECONDS_MAX = 90

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Person:
    """Someone at a shell in which `slotway dev` is found."""

    def __init__(self, dev: Dev) -> None:
        here = str(Path(sys.executable).parent)
        self.environment = {**dev.environment, "PATH": f"{here}:{dev.environment['PATH']}"}
        self.endpoint = dev.endpoint.read_text().strip()

    async def run(self, *words: str, code: int = 0, env: dict[str, str] | None = None) -> str:
        process = await asyncio.create_subprocess_exec(
            *words,
            env={**self.environment, **(env or {})},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(SECONDS_MAX):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == code, (out.decode(), err.decode())
        return out.decode()

    async def slotway(self, *words: str, code: int = 0) -> Any:
        out = await self.run("slotway", *words, "-o", "json", code=code)
        return json.loads(out) if out else None

    async def example(self, *words: str) -> str:
        return await self.run(*words, env={"SLOTWAY_ENDPOINT": self.endpoint})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def person(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Person]:
    dev = Dev(tmp_path_factory.mktemp("first use"), "--routers", "2")
    await dev.start()
    try:
        await (await dev.ready()).close()
        yield Person(dev)
    finally:
        await dev.end()


async def test_the_commands(person: Person) -> None:
    hello = str(EXAMPLES / "hello.py")
    created = await person.slotway(
        "action", "create", "hello", hello, "-c", "10", "-p", "name", "A"
    )
    assert created["concurrency"] == 10
    invoke = ("action", "invoke", "hello", "-r")
    assert await person.slotway(*invoke) == {"greeting": "Hello, A!"}
    assert await person.slotway(*invoke, "-p", "name", "Ada") == {"greeting": "Hello, Ada!"}
    failed = await person.slotway(*invoke, "-p", "name", "7", code=3)
    assert "must be a string" in failed["error"]
    (container,) = await person.slotway("container", "list", "--action", "hello")
    assert (container["capacity"], container["state"]) == (10, "ready")
    status = await person.slotway("cluster", "status")
    assert [router["state"] for router in status["routers"]] == ["live", "live"]
    assert status["containers"][0]["id"] == container["id"]
    await person.run("slotway", "cluster", "watch", "--count", "1")
    await person.slotway("action", "update", "hello", "-c", "20")
    assert await person.slotway(*invoke) == {"greeting": "Hello, A!"}
    assert await person.slotway("action", "invoke", "none", "-b", code=1) is None
    assert await person.slotway("action", "create", "wide", hello, "-c", "1001", code=1) is None
    await person.slotway("action", "delete", "hello")
    assert await person.slotway("action", "list") == []


async def test_the_asyncio_client(person: Person) -> None:
    out = await person.example(sys.executable, str(EXAMPLES / "client_async.py"))
    assert "Hello, guest 0!" in out
    assert "20 runs, 2 containers" in out or "20 runs, 1 containers" in out
    assert "TypeError: name must be a string" in out
    assert "ACTION_NOT_FOUND" in out


async def test_the_other_client(person: Person) -> None:
    out = await person.example(sys.executable, str(EXAMPLES / "client_sync.py"))
    assert "Hello, Ada!" in out
    assert "of 10 slots of" in out


async def test_the_bare_stubs(person: Person) -> None:
    out = await person.example(sys.executable, str(EXAMPLES / "bare_stubs.py"))
    assert "Hello, Ada!" in out


async def test_stubs_that_protoc_makes(person: Person) -> None:
    assert "Hello, Ada!" in await person.example("sh", str(EXAMPLES / "protoc_stubs.sh"))
