"""The data plane beside HAProxy, as in bench/dataplane.py, over the bridge to Docker's containers.

They are hardened and in a network of ours, as the Docker driver has them. In them runs the
container that answers at once, so that the proxies' part shows. What the kernel does to get a
packet over the bridge counts for whoever sends it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from dataplane import SLOTS, Proxy, absolute, build_container, measure_beside, ratio
from figure import Figure
from load import GENERATOR_CORE
from process import MissingError, await_port

from slotway.drivers.base import ContainerId, ContainerSpec, DriverError, Label
from slotway.drivers.docker import DockerOptions
from slotway.drivers.docker.container import hardened
from slotway.drivers.docker.engine import Engine
from slotway.drivers.docker.network import Network, Subnet

GOAL = 0.95
SUBNET = Subnet("198.19.224.0/20")
PROGRAM = "/usr/local/bin/container"
ENGINE_S = 30.0


def measure(directory: Path, quick: bool) -> list[Figure]:
    """The area's figures; without the programs and the engine that they need, they have no
    value."""
    try:
        proxies = asyncio.run(_measure(directory, quick))
    except (MissingError, DriverError) as error:
        return [Figure("bridge.cpu_ratio_docker", None, "", GOAL, str(error))]
    ours, theirs = proxies["docker"], proxies["haproxy_docker"]
    return [ratio("bridge.cpu_ratio_docker", ours, theirs, GOAL), *absolute("bridge", proxies)]


async def _measure(directory: Path, quick: bool) -> dict[str, Proxy]:
    engine = Engine(DockerOptions().socket)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.close)
        await engine.open()
        network = Network(engine, f"bench-{os.getpid()}", SUBNET)
        place = await network.ensure("bench")
        stack.push_async_callback(network.remove)
        addresses = [
            await stack.enter_async_context(_container(engine, place, number)) for number in (1, 2)
        ]
        return measure_beside(directory, {"docker": addresses}, quick)


@asynccontextmanager
async def _container(engine: Engine, network: str, number: int) -> AsyncIterator[str]:
    """Its address."""
    address = SUBNET.address(number)
    label = Label("bench", 1, ContainerId(f"bridge-{number}"), "1.1")
    spec = ContainerSpec(label, "python:3", SLOTS, 256, address, "bench")
    body = hardened(spec, DockerOptions().images[spec.kind], network, cpus=0)
    host_config = body["HostConfig"]
    assert isinstance(host_config, dict)
    host_config["Binds"] = [f"{build_container()}:{PROGRAM}:ro"]
    host_config["CpusetCpus"] = str(GENERATOR_CORE)
    # Its port, and any address of its own network.
    body["Entrypoint"] = [PROGRAM, f"0.0.0.0:{address.rpartition(':')[2]}"]
    body["Cmd"] = []
    made = await engine.call("POST", "/containers/create", body, timeout_s=ENGINE_S)
    path = f"/containers/{made['Id']}"
    try:
        await engine.call("POST", f"{path}/start", timeout_s=ENGINE_S)
        await_port(address)
        yield address
    finally:
        await engine.call("DELETE", path, force="true", v="true", timeout_s=ENGINE_S)
