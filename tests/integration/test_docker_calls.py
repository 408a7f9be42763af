"""Actions in Docker that invoke others: they reach the front door, and nothing else once the rule
of docs/docker.md stands."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slotway.aio import ApplicationError, Client

from .test_docker import WAIT_S, Dev, dev, docker

__all__ = ["dev"]
pytestmark = pytest.mark.docker
CALLER = (Path(__file__).parents[2] / "examples" / "caller.py").read_bytes()
INNER = b"def main(args):\n    return {'twice': 2 * args['number']}\n"
TRIES = b"""
import os, socket

def main(args):
    host, _, port = os.environ["__OW_API_HOST"].rpartition(":")
    try:
        socket.create_connection((host, args.get("port", int(port))), 2).close()
    except OSError as error:
        return {"error": type(error).__name__}
    return {"host": host, "port": int(port)}
"""


async def test_an_action_invokes_another_through_the_front_door(dev: Dev) -> None:
    async with Client(await dev.start()) as client:
        await client.put_action("demo/outer", CALLER)
        await client.put_action("demo/inner", INNER)
        arguments = {"action": "demo/inner", "arguments": {"number": 4}}
        answer = await client.invoke("demo/outer", arguments, timeout=WAIT_S)
        assert answer.result == {"twice": 8}
        arguments = {"action": "demo/none", "arguments": {}}
        with pytest.raises(ApplicationError, match="the call was refused"):
            await client.invoke("demo/outer", arguments, timeout=WAIT_S)


@contextmanager
def closed(bridge: str, host: str, port: int) -> Iterator[None]:
    """The rules of docs/docker.md."""
    rules = (
        ["INPUT", "-i", bridge, "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"],
        ["INPUT", "-i", bridge, "-p", "tcp", "-d", host, "--dport", str(port), "-j", "ACCEPT"],
    )
    made = []
    try:
        for rule in rules:
            subprocess.run(["iptables", "-I", *rule], check=True, timeout=20)
            made.append(rule)
        yield
    finally:
        for rule in made:
            subprocess.run(["iptables", "-D", *rule], check=True, timeout=20)


@pytest.mark.skipif(os.getuid() != 0, reason="the rule is root's to make")
async def test_with_the_rule_nothing_but_the_front_door_is_reached(dev: Dev) -> None:
    async with Client(await dev.start()) as client:
        await client.put_action("demo/tries", TRIES)

        async def tries(port: int | None = None) -> dict[str, object]:
            arguments = {} if port is None else {"port": port}
            return dict((await client.invoke("demo/tries", arguments, timeout=WAIT_S)).result)

        door = await tries()
        host, port = str(door["host"]), int(str(door["port"]))
        [network] = docker(
            "network", "ls", "--filter", f"name=slotway.{dev.cluster}", "--format", "{{.Name}}"
        )
        template = '{{index .Options "com.docker.network.bridge.name"}}'
        [bridge] = docker("network", "inspect", "-f", template, network)
        with socket.create_server(("0.0.0.0", 0)) as other:
            there = other.getsockname()[1]
            assert "error" not in await tries(there), "this is the gap"
            with closed(bridge, host, port):
                assert await tries(there) == {"error": "TimeoutError"}
                assert await tries() == door
