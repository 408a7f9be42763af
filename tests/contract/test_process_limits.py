"""What the process driver holds its containers, and whoever runs it, to."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from slotway.drivers.base import DriverError
from slotway.drivers.process import ProcessDriver

from .containers import (
    CLUSTER,
    SOON,
    ProcessWorld,
    code,
    post,
    run,
    spec,
    told,
)
from .test_process_driver import ONE, world

__all__ = ["world"]


async def test_limits_are_in_force(world: ProcessWorld) -> None:
    source = (
        "import resource\n"
        "def main(args):\n"
        "    block = bytearray(args.get('mib', 0) << 20)\n"
        "    names = 'RLIMIT_NOFILE', 'RLIMIT_CORE', 'RLIMIT_NPROC', 'RLIMIT_AS'\n"
        "    limits = [resource.getrlimit(getattr(resource, name)) for name in names]\n"
        "    return {'limits': [list(each) for each in limits]}\n"
    )
    async with world.driver() as driver:
        await driver.create(spec(ONE, capacity=10, memory_mib=64))
        await driver.init(ONE, code(source), SOON)
        files, core, processes, space = (await run(driver.address(ONE), mib=40))["limits"]
        assert files == [296, 296]
        assert core == [0, 0]
        assert 0 < processes[1] <= 32_768
        assert 0 < space[1] < 2 << 30
        body: dict[str, object] = {"value": {"mib": 200}}
        status, answer = await post(driver.address(ONE), "/run", body)
        assert (status, answer) == (502, {"error": "MemoryError"})


async def test_the_log_file_is_bounded(world: ProcessWorld) -> None:
    source = (
        "import subprocess\n"
        "def main(args):\n"
        "    subprocess.run('yes | head -c 12000000', shell=True, check=True)\n"
        "    return {}\n"
    )
    async with world.driver() as driver:
        await driver.create(spec(ONE))
        await driver.init(ONE, code(source), SOON)
        await run(driver.address(ONE))
        await driver.destroy(ONE)
        await told(driver, ONE)
    sizes = [(world.data / name).stat().st_size for name in ("one.log", "one.log.1")]
    assert max(sizes) <= 4 * 1024 * 1024
    assert sizes[1] > 3 * 1024 * 1024


async def test_a_path_too_long_for_sockets_is_refused_at_the_start(tmp_path: Path) -> None:
    driver = ProcessDriver(CLUSTER, tmp_path, tmp_path / ("x" * 100))
    with pytest.raises(DriverError, match="to 107 bytes: choose a shorter one"):
        await driver.start()


async def test_too_few_descriptors_are_named(
    world: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.driver() as driver:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
        with pytest.raises(DriverError, match=r"needs 2064 file descriptors.* is 1024"):
            await driver.create(spec(ONE, capacity=1000))


async def test_other_kinds_are_refused(world: ProcessWorld) -> None:
    async with world.driver() as driver:
        with pytest.raises(DriverError, match="python:3"):
            await driver.create(
                type(spec(ONE))(spec(ONE).label, "nodejs:20", capacity=1, memory_mib=64)
            )
