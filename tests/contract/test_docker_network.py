"""`--network`: what an action reaches with it, and without. The outside is a host of our own, a
network namespace behind a pair of virtual interfaces."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from slotway.drivers.base import ContainerId, DriverError
from slotway.drivers.docker import DockerDriver
from slotway.drivers.docker.engine import Engine

from .containers import SOON, DockerWorld, code, connect, post, run, told
from .test_docker_security import TRIES

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.getuid() != 0, reason="network namespaces are made by root"),
]
ONE, TWO, THREE = ContainerId("one"), ContainerId("two"), ContainerId("three")
HERE, THERE, PORT = "203.0.113.1", "203.0.113.2", 8000
SERVER = """
import socket
server = socket.create_server(("0.0.0.0", 8000))
print("listening", flush=True)
while True:
    server.accept()[0].close()
"""
CONNECT = """
with socket.socket() as one:
    one.settimeout(2)
    try:
        one.connect((args["host"], args["port"]))
        found = "connected"
    except TimeoutError:
        found = "no answer"
"""
UNREACHED = ({"error": "EHOSTUNREACH"}, {"error": "ENETUNREACH"}, {"found": "no answer"})


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20)


@pytest.fixture
def outside() -> Iterator[None]:
    """A server at THERE:PORT, which this machine reaches."""
    space, near, far = (f"sw{kind}-{os.getpid()}" for kind in ("ns", "a", "b"))
    ip("netns", "add", space)
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", space)
        ip("addr", "add", f"{HERE}/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", space, "addr", "add", f"{THERE}/30", "dev", far)
        ip("-n", space, "link", "set", far, "up")
        with subprocess.Popen(
            ["ip", "netns", "exec", space, sys.executable, "-c", SERVER], stdout=subprocess.PIPE
        ) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"listening\n"
            yield
            server.kill()
    finally:
        ip("netns", "del", space)


class Containers:
    """Actions that try what they are told."""

    def __init__(self, world: DockerWorld, driver: DockerDriver, engine: Engine) -> None:
        self.world, self.driver, self.engine = world, driver, engine

    async def start(self, name: ContainerId, *, network: bool) -> None:
        await self.driver.create(replace(self.world.spec(name), network=network))
        await self.driver.init(name, code(TRIES), SOON)

    async def attempt(self, name: ContainerId, source: str, **arguments: object) -> dict[str, Any]:
        return await run(self.world.spec(name).address, source=source, **arguments)

    async def addresses(self, name: ContainerId) -> list[str]:
        """One in each of its networks."""
        found = await self.engine.call("GET", f"/containers/{self.world.name(name)}/json")
        return [one["IPAddress"] for one in found["NetworkSettings"]["Networks"].values()]


@pytest.fixture
async def containers(docker_world: DockerWorld) -> AsyncIterator[Containers]:
    async with docker_world.driver() as driver:
        engine = Engine("/var/run/docker.sock")
        await engine.open()
        yield Containers(docker_world, driver, engine)
        await engine.close()


@pytest.mark.usefixtures("outside")
async def test_only_with_it_is_another_host_reached(containers: Containers) -> None:
    await connect(f"{THERE}:{PORT}")
    await containers.start(ONE, network=False)
    await containers.start(TWO, network=True)
    for name in ONE, TWO:
        status, _ = await post(containers.world.spec(name).address, "/nothing", {})
        assert status == 404, "by the address of the ledger both are reached"
    attempts = [containers.attempt(name, CONNECT, host=THERE, port=PORT) for name in (ONE, TWO)]
    without, with_it = await asyncio.gather(*attempts)
    assert without in UNREACHED
    assert with_it == {"found": "connected"}


async def test_with_it_containers_do_not_reach_one_another(containers: Containers) -> None:
    await containers.start(ONE, network=True)
    await containers.start(TWO, network=True)
    addresses = await containers.addresses(TWO)
    assert len(addresses) == 2
    for address in addresses:
        await connect(f"{address}:8080")
        answer = await containers.attempt(ONE, CONNECT, host=address, port=8080)
        assert answer in UNREACHED


async def test_with_it_names_are_asked_for_as_docker_does(containers: Containers) -> None:
    await containers.start(ONE, network=True)
    name = containers.world.name(ONE)
    found = await containers.engine.call("GET", f"/containers/{name}/json")
    assert not found["HostConfig"]["Dns"]
    source = """
found = [line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver")]
"""
    assert await containers.attempt(ONE, source) == {"found": ["127.0.0.11"]}


async def test_it_gains_nothing_else(containers: Containers) -> None:
    await containers.start(ONE, network=True)
    for source, error in (
        ("open('/x', 'w')", "EROFS"),
        ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "EPERM"),
    ):
        assert await containers.attempt(ONE, source) == {"error": error}


async def test_creating_again_adopts_it(containers: Containers) -> None:
    """Also one that was not connected yet, when its Manager died."""
    spec = replace(containers.world.spec(ONE), network=True)
    await containers.driver.create(containers.world.spec(ONE))
    await containers.driver.create(spec)
    await containers.driver.create(spec)
    assert len(await containers.addresses(ONE)) == 2


async def test_a_network_that_somebody_removed_is_made_again(containers: Containers) -> None:
    await containers.start(ONE, network=True)
    await containers.driver.destroy(ONE)
    await told(containers.driver, ONE)
    await containers.engine.call("DELETE", f"/networks/slotway.{containers.world.cluster}.out")
    with pytest.raises(DriverError, match="not found"):
        await containers.start(TWO, network=True)
    # What failed is used up.
    await containers.start(THREE, network=True)
    assert len(await containers.addresses(THREE)) == 2


async def test_its_subnet_can_be_chosen(docker_world: DockerWorld) -> None:
    with pytest.raises(ValueError, match=r"198\.18\.0\.0/16 and 198\.18\.9\.0/24 overlap"):
        docker_world.driver(subnet="198.18.0.0/16", out_subnet="198.18.9.0/24")
    cluster = f"out-{os.getpid()}"
    chosen = {"subnet": "198.19.0.0/24", "out_subnet": "198.19.1.0/24"}
    async with docker_world.driver(cluster, **chosen) as driver:
        spec = docker_world.spec(ONE)
        label = replace(spec.label, cluster=cluster)
        address = driver.address(ONE, 1)
        try:
            await driver.create(replace(spec, label=label, address=address, network=True))
            status, _ = await post(address, "/nothing", {})
            assert status == 404
            name = f"slotway.{cluster}.{ONE}"
            found = await driver._engine.call("GET", f"/containers/{name}/json")
            [outside] = [
                one["IPAddress"]
                for network, one in found["NetworkSettings"]["Networks"].items()
                if network.endswith(".out")
            ]
            assert outside.startswith("198.19.1.")
        finally:
            await driver.destroy(ONE)
            await told(driver, ONE)
            await driver.dissolve()
        left = await driver._engine.call("GET", "/networks")
        assert not [one for one in left if cluster in one["Name"]]
