"""The count of addresses: no container ever gets one that another has had, whatever is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from slotway.drivers.base import Addresses, ContainerId, ContainerSpec
from slotway.drivers.fake import FakeDriver, FakeEngine
from slotway.etcd import Access
from slotway.records import decode
from slotway.v1.ledger_pb2 import AddressesRecord
from tests.integration.faulty import FaultyClient
from tests.integration.manager_world import World
from tests.integration.scripted_router import ScriptedRouter

HELLO = "demo/hello"


class NumberedDriver(FakeDriver):
    """Listens at numbers; notes what it is asked for."""

    numbered: Addresses | None = Addresses("numbers", 1000)
    asked: list[ContainerSpec]
    told: asyncio.Event
    """Set: the engine answers about ends."""

    def __init__(self, cluster: str, socket_dir: Path, engine: FakeEngine | None = None) -> None:
        super().__init__(cluster, socket_dir, engine)
        self._folder = socket_dir.absolute()

    def address(self, container: ContainerId, number: int = 0) -> str:
        assert number >= 1
        return f"unix:{self._folder}/{number}.sock"

    async def has_ended(self, container: ContainerId) -> bool:
        await self.told.wait()
        return await super().has_ended(container)

    async def create(self, spec: ContainerSpec) -> None:
        self.asked.append(spec)
        await super().create(spec)


@pytest.fixture
def driver(world: World) -> type[NumberedDriver]:
    """The class of the Managers' drivers, for this test only."""

    class Driver(NumberedDriver):
        asked = []  # noqa: RUF012 - one list for all drivers is what is wanted
        told = asyncio.Event()

    Driver.told.set()

    world.driver_of = Driver
    return Driver


async def count(world: World) -> tuple[AddressesRecord, int]:
    item, _ = await world.client.get(world.keys.addresses)
    assert item is not None
    return decode(AddressesRecord, item.key, item.value), item.mod_revision


def addresses_are_unique(driver: type[NumberedDriver]) -> None:
    """No address was ever asked for under two containers' ids."""
    owners: dict[str, str] = {}
    for spec in driver.asked:
        assert owners.setdefault(spec.address, spec.label.id) == spec.label.id


async def serve(world: World, router: ScriptedRouter, requests: int) -> None:
    """So many requests at once, on as many new containers, all of which end."""
    await router.arrive(HELLO, requests)
    await router.until(lambda: sum(router.running.values()) == requests)
    await router.finish()
    # What the Manager has not been told yet would count as demand for more.
    routers = world.books.routers.by_id.values()
    await world.until(lambda: not any(one.facts.waiting.get(HELLO) for one in routers))
    await router.give_back()
    await router.until(lambda: not router.held)
    await world.until(lambda: not world.books.containers)


async def test_the_count_is_raised_with_the_records(
    world: World, driver: type[NumberedDriver]
) -> None:
    async with world.lead(), ScriptedRouter("r0", world.address) as router:
        await world.put(concurrency=1)
        await router.arrive(HELLO, 3)
        await router.until(lambda: not router.waiting[HELLO])
        record, revision = await count(world)
        assert (record.subnet, record.used) == ("numbers", 3)
        listing = await world.client.list(world.keys.containers)
        assert {item.create_revision for item in listing.items} == {revision}
        folder = world.folder.absolute() / "s"
        assert {spec.address for spec in driver.asked} == {
            f"unix:{folder}/{number}.sock" for number in (1, 2, 3)
        }
        assert {spec.ledger for spec in driver.asked} == {record.id}


async def test_the_next_manager_counts_on(world: World, driver: type[NumberedDriver]) -> None:
    ledgers = set()
    for round in (1, 2, 3):
        leading = world.lead(keep_warm="0s")
        async with leading, ScriptedRouter(f"r{round}", world.address) as router:
            await world.put(concurrency=1)
            await serve(world, router, 2)
            record, _ = await count(world)
            assert record.used == 2 * round
            ledgers.add(record.id)
    assert len(ledgers) == 1
    addresses_are_unique(driver)


async def test_nothing_is_granted_of_what_the_engine_does_not_have(
    world: World, driver: type[NumberedDriver]
) -> None:
    """Its network may be gone, and its address somebody else's: not one request may go there."""
    async with world.lead(), ScriptedRouter("r0", world.address) as router:
        await world.put(concurrency=1)
        await router.arrive(HELLO)
        await router.until(lambda: router.running)
        await router.finish()
        await router.give_back()
        await world.until(lambda: not any(record.shares for record in world.recorded()))
    (lost,) = world.engine.containers
    world.engine.end(lost)
    driver.told.clear()
    async with world.lead(), ScriptedRouter("r1", world.address) as router:
        await router.arrive(HELLO)
        await router.until(lambda: router.running)
        ordered = {order.container_id for each in router.messages for order in each.orders}
        assert len(ordered) == 1
        assert lost not in ordered
        driver.told.set()
        await world.until(lambda: lost not in world.books.containers)


@pytest.mark.parametrize("fault", ["answer lost", "request lost", "late"])
@pytest.mark.parametrize("number", [1, 2])
async def test_a_lost_commit_gives_no_address_twice(
    world: World, driver: type[NumberedDriver], fault: str, number: int
) -> None:
    async with FaultyClient(Access(endpoints=(world.endpoint,))) as client:
        client.spoils = "/addresses"
        client.faults[number] = fault
        leading = world.lead(client, keep_warm="0s")
        async with leading, ScriptedRouter("r0", world.address) as router:
            await world.put(concurrency=1)
            for _ in range(3):
                await serve(world, router, 2)
            assert client.writes > number
            assert not any(await client.apply_late())
    assert len({spec.address for spec in driver.asked}) == 6
    addresses_are_unique(driver)


async def test_used_up_addresses_are_a_reason(world: World, driver: type[NumberedDriver]) -> None:
    driver.numbered = Addresses("numbers", 2)
    async with world.lead(keep_warm="0s"), ScriptedRouter("r0", world.address) as router:
        await world.put(concurrency=1)
        await serve(world, router, 2)
        await router.arrive(HELLO)
        await router.until(lambda: router.refusals)
        assert router.refusals[0].reason == "CREATE_FAILED"
        assert "all 2 addresses of numbers have been used" in router.refusals[0].message
    assert len(driver.asked) == 2


async def test_another_subnet_is_refused(world: World, driver: type[NumberedDriver]) -> None:
    async with world.lead(keep_warm="0s"), ScriptedRouter("r0", world.address) as router:
        await world.put(concurrency=1)
        await serve(world, router, 1)
    driver.numbered = Addresses("others", 1000)
    async with world.lead(), ScriptedRouter("r1", world.address) as router:
        await router.arrive(HELLO)
        await router.until(lambda: router.refusals)
        assert "counts the addresses of numbers" in router.refusals[0].message
    assert len(driver.asked) == 1
