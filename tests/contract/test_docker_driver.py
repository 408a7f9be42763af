"""What the Docker driver promises beyond the contract: names and addresses that are taken, and
reasons that a person can act upon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from slotway.drivers.base import ContainerId, DriverError, UnfitError
from slotway.drivers.docker import DockerDriver, DockerOptions
from slotway.drivers.docker.engine import Engine, EngineError
from slotway.drivers.docker.network import Subnet

from .containers import BARRIER, ECHO, PATIENCE_S, SOON, DockerWorld, code, connect, run, told

pytestmark = pytest.mark.docker
ONE, TWO = ContainerId("one"), ContainerId("two")
PLAIN = "slotway/test-plain:1"


@pytest.fixture
async def driver(docker_world: DockerWorld) -> AsyncIterator[DockerDriver]:
    async with docker_world.driver() as driver:
        yield driver


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """The engine itself."""
    engine = Engine(DockerOptions().socket)
    await engine.open()
    yield engine
    await engine.close()


# Names.


async def test_what_was_removed_cannot_be_started_again(
    docker_world: DockerWorld, driver: DockerDriver, engine: Engine
) -> None:
    """A start that was decided before the end comes after it."""
    await driver.create(docker_world.spec(ONE))
    found = await engine.call("GET", f"/containers/{docker_world.name(ONE)}/json")
    await driver.destroy(ONE)
    await told(driver, ONE)
    for name in found["Id"], docker_world.name(ONE):
        with pytest.raises(EngineError):
            await engine.call("POST", f"/containers/{name}/start")


async def test_one_that_was_created_only_is_listed_adopted_or_ended(
    docker_world: DockerWorld, engine: Engine
) -> None:
    """Its Manager died between the two requests."""
    async with docker_world.driver() as driver:
        for name in ONE, TWO:
            await driver.create(docker_world.spec(name))
            found = await engine.call("GET", f"/containers/{docker_world.name(name)}/json")
            body = {**found["Config"], "HostConfig": found["HostConfig"]}
            endpoints: dict[str, dict[str, object]] = {found["HostConfig"]["NetworkMode"]: {}}
            address = docker_world.spec(name).address.partition(":")[0]
            for each in endpoints:
                endpoints[each] = {"IPAMConfig": {"IPv4Address": address}}
            body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
            await driver.destroy(name)
            await told(driver, name)
            # The name is taken by a tomb; as if there had been none:
            path = f"/containers/{docker_world.name(name)}"
            await engine.call("DELETE", path, force="true")
            await engine.call("POST", "/containers/create", body, name=docker_world.name(name))
        assert {(one.label.id, one.running) for one in await driver.list()} == {
            (ONE, False),
            (TWO, False),
        }
        assert not await driver.has_ended(ONE)
        await driver.create(docker_world.spec(ONE))
        assert [one.label.id for one in await driver.list() if one.running] == [ONE]
        await driver.destroy(TWO)
        await told(driver, TWO)
        assert [one.label.id for one in await driver.list()] == [ONE]


async def test_a_strangers_name_is_not_touched(
    docker_world: DockerWorld, driver: DockerDriver, engine: Engine
) -> None:
    body = {"Image": "slotway/tomb:1", "Cmd": ["-"], "Labels": {"mine": "yes"}}
    path = f"/containers/{docker_world.name(ONE)}"
    await engine.call("POST", "/containers/create", body, name=docker_world.name(ONE))
    try:
        with pytest.raises(DriverError, match="no label of ours"):
            await driver.create(docker_world.spec(ONE))
        await driver.destroy(ONE)
        with pytest.raises(DriverError, match="somebody else has named"):
            await driver.has_ended(ONE)
        assert (await engine.call("GET", f"{path}/json"))["Config"]["Labels"] == {"mine": "yes"}
        assert await driver.list() == []
    finally:
        await engine.call("DELETE", path)


async def test_many_ends_leave_few_tombs(
    docker_world: DockerWorld,
    driver: DockerDriver,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("slotway.drivers.docker.driver.TOMBS_MAX", 2)
    for number in range(5):
        assert await driver.has_ended(ContainerId(f"t{number}"))
    filters = json.dumps({"label": [f"slotway.cluster={docker_world.cluster}"]})
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await engine.call("GET", "/containers/json", all="true", filters=filters)
            if len(found) == 2:
                break
            await asyncio.sleep(0.05)
    names = {each["Labels"]["slotway.id"] for each in found}
    assert names == {"t3", "t4"}


# Addresses and the network.


def test_addresses_of_a_subnet() -> None:
    subnet = Subnet("10.0.0.0/16")
    assert (str(subnet.bridge), str(subnet.nobody)) == ("10.0.0.1", "10.0.0.2")
    assert subnet.address(1) == "10.0.0.3:8080"
    assert subnet.address(subnet.addresses.count) == "10.0.254.255:8080"
    assert str(subnet.allotted) == "10.0.255.0/24"
    with pytest.raises(ValueError, match="too small"):
        Subnet("10.0.0.0/25")


async def test_an_address_that_is_taken_is_not_given(
    docker_world: DockerWorld, driver: DockerDriver
) -> None:
    """The engine's own word, should two ever have the same."""
    await driver.create(docker_world.spec(ONE))
    two = replace(docker_world.spec(TWO), address=docker_world.spec(ONE).address)
    with pytest.raises(DriverError, match="Address already in use"):
        await driver.create(two)
    assert [found.label.id for found in await driver.list()] == [ONE]


async def test_another_ledger_is_refused(docker_world: DockerWorld, driver: DockerDriver) -> None:
    """A cluster of the same name, whose count begins at one, would use addresses again."""
    await driver.create(docker_world.spec(ONE))
    other = replace(docker_world.spec(TWO), ledger="another")
    with pytest.raises(DriverError, match="belongs to another ledger"):
        await driver.create(other)


async def test_a_network_that_was_removed_is_made_again(
    docker_world: DockerWorld, driver: DockerDriver
) -> None:
    """By the creation after the one that finds it gone."""
    await driver.create(docker_world.spec(ONE))
    await driver.destroy(ONE)
    await told(driver, ONE)
    await driver.network.remove()
    async with docker_world.driver() as second:
        await second.create(docker_world.spec(TWO))
        await second.destroy(TWO)
        await told(second, TWO)
        await driver.network.remove()
        with pytest.raises(DriverError, match="network"):
            await second.create(docker_world.spec("three"))
        assert await second.list() == []
        await second.create(docker_world.spec("four"))


async def test_another_subnet_is_refused(docker_world: DockerWorld, driver: DockerDriver) -> None:
    await driver.create(docker_world.spec(ONE))
    async with docker_world.driver(subnet="198.19.0.0/24") as second:
        two = replace(docker_world.spec(TWO), address=second.address(TWO, 1))
        with pytest.raises(DriverError, match="is not as configured"):
            await second.create(two)


async def test_a_subnet_that_others_use_is_refused(
    docker_world: DockerWorld, driver: DockerDriver
) -> None:
    await driver.create(docker_world.spec(ONE))
    async with docker_world.driver("overlapping") as second:
        spec = docker_world.spec(TWO)
        spec = replace(spec, label=replace(spec.label, cluster="overlapping"))
        with pytest.raises(DriverError, match=r"cannot be made.*docker_subnet"):
            await second.create(spec)


async def test_a_network_is_not_dissolved_under_containers(
    docker_world: DockerWorld, driver: DockerDriver
) -> None:
    await driver.create(docker_world.spec(ONE))
    with pytest.raises(DriverError, match="active endpoints"):
        await driver.dissolve()
    await connect(docker_world.spec(ONE).address)


# Images.


@pytest.fixture
async def plain(engine: Engine) -> AsyncIterator[str]:
    """Our image without its label, as images of others are."""
    made = await engine.call("POST", "/containers/create", {"Image": "slotway/python:3"})
    try:
        repository, _, tag = PLAIN.partition(":")
        await engine.call(
            "POST",
            "/commit",
            {},
            container=made["Id"],
            repo=repository,
            tag=tag,
            changes="LABEL slotway.concurrency=",
            timeout_s=60,
        )
        yield PLAIN
    finally:
        await engine.call("DELETE", f"/containers/{made['Id']}")
    await engine.call("DELETE", f"/images/{PLAIN}")


async def test_an_image_runs_side_by_side_only_if_it_says_so(
    plain: str, docker_world: DockerWorld
) -> None:
    async with docker_world.driver(images={"python:3": plain}) as driver:
        with pytest.raises(DriverError, match=r"slotway\.concurrency=true.*concurrency of 1"):
            await driver.create(docker_world.spec(TWO, capacity=2))
        with pytest.raises(UnfitError, match=r"with --concurrent, if you know") as failed:
            await driver.check("python:3", "", 2)
        assert failed.value.what == "capacity"
        with pytest.raises(UnfitError):
            await driver.check("blackbox", plain, 2)
        await driver.check("blackbox", plain, 1)
        await driver.create(docker_world.spec(ONE, capacity=1))
        await driver.init(ONE, code(ECHO), SOON)
        assert (await run(docker_world.spec(ONE).address))["pid"] > 0


async def test_who_insists_has_an_image_run_side_by_side(
    plain: str, driver: DockerDriver, docker_world: DockerWorld
) -> None:
    spec = docker_world.spec(ONE, capacity=2)
    await driver.create(replace(spec, kind="blackbox", image=plain, concurrent=True))
    await driver.init(ONE, code(BARRIER["def"].replace("COUNT", "2")), SOON)
    answers = await asyncio.gather(*(run(spec.address) for _ in range(2)))
    assert [answer["most"] for answer in answers] == [2, 2]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"python:3": "slotway/none:1"}, "no image slotway/none:1: make it with `make image`"),
        ({"nodejs:20": "x"}, "no image is configured for python:3; there are: nodejs:20"),
    ],
)
async def test_an_image_that_is_missing_is_named(
    docker_world: DockerWorld, images: dict[str, str], message: str
) -> None:
    async with docker_world.driver(images=images) as driver:
        with pytest.raises(DriverError, match=message):
            await driver.create(docker_world.spec(ONE))
        assert await driver.list() == []
        await driver.destroy(ONE)
        await told(driver, ONE)


async def test_an_image_whose_program_ends_at_once(
    docker_world: DockerWorld, engine: Engine, driver: DockerDriver
) -> None:
    """Two ways: a program that is missing, and one that ends."""
    for name, program, message in (
        ("missing", ["/no/such/program"], "/no/such/program failed: No such file"),
        (
            "short",
            ["python3", "-c", "print('good bye'); raise SystemExit(3)"],
            r"ended with status 3(.|\n)*good bye",
        ),
    ):
        tag = f"slotway/test-{name}"
        made = await engine.call("POST", "/containers/create", {"Image": "slotway/python:3"})
        change = f"ENTRYPOINT {json.dumps(program)}"
        query: dict[str, Any] = {"container": made["Id"], "repo": tag, "changes": change}
        await engine.call("POST", "/commit", {}, timeout_s=60, **query)
        await engine.call("DELETE", f"/containers/{made['Id']}")
        try:
            async with docker_world.driver(images={"python:3": tag}) as second:
                with pytest.raises(DriverError, match=message):
                    await second.create(docker_world.spec(name))
            assert await driver.has_ended(ContainerId(name))
        finally:
            await engine.call("DELETE", f"/images/{tag}")
