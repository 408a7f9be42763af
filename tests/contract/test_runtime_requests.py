"""What the runtime makes of connections and requests: broken, pipelined, left."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from .containers import PATIENCE_S, post
from .test_runtime import Container, container, shared

__all__ = ["container", "shared"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_client_that_hangs_up_ends_nothing(container: Container) -> None:
    await container.start(
        "import asyncio\n"
        "begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()\n"
        "async def main(args):\n"
        "    if args.get('hang'):\n"
        "        begun.set()\n"
        "        await go.wait()\n"
        "        done.set()\n"
        "        return {}\n"
        "    if args.get('wait'):\n"
        "        await begun.wait()\n"
        "    else:\n"
        "        go.set()\n"
        "        await asyncio.wait_for(done.wait(), 10)\n"
        "    return {}\n",
        capacity=3,
    )
    body = json.dumps({"value": {"hang": 1}}).encode()
    _, writer = await container.open()
    writer.write(b"POST /run HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert await container.run({"wait": 1}) == (200, {})
    writer.close()
    await writer.wait_closed()
    assert await container.run() == (200, {})


async def test_bad_requests(container: Container) -> None:
    await container.start("def main(args): return {}")
    for value in 3, [1]:
        assert (await container.run(value))[0] == 400
    assert (await post(container.address, "/other", {}))[0] == 404
    reader, writer = await container.open()
    async with asyncio.timeout(PATIENCE_S):
        writer.write(b"POST /run HTTP/1.1\r\nContent-Length: 3\r\n\r\n{x}GET / HTTP/1.1\r\n\r\n")
        writer.write(b"nonsense\r\n\r\n")
        answers = await reader.read()
        writer.close()
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"400", b"404", b"400"]


async def test_pipelined_requests_are_answered_in_order(container: Container) -> None:
    await container.start("def main(args): return args", capacity=2)
    stream = b""
    for n in range(200):
        body = b'{"value":{"n":%d,"fill":"%b"}}' % (n, b"x" * 1000)
        stream += b"POST /run HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    reader, writer = await container.open()
    async with asyncio.timeout(PATIENCE_S):
        writer.write(stream)
        for n in range(200):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length))["n"] == n
        writer.close()


async def test_100_continue(container: Container) -> None:
    await container.start("def main(args): return args")
    reader, writer = await container.open()
    async with asyncio.timeout(PATIENCE_S):
        writer.write(b"POST /run HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"value":{}}')
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
