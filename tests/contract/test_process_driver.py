"""What only the process driver promises: the proof of an end, whoever is killed, and limits."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from slotway.drivers import procfs
from slotway.drivers.base import ContainerId, DriverError
from slotway.drivers.lock import Record, look
from slotway.drivers.process import ProcessDriver

from .containers import (
    ECHO,
    SOON,
    ProcessWorld,
    code,
    end_all,
    run,
    spec,
    told,
    until_gone,
)

ONE = ContainerId("one")
NEVER = timedelta(hours=1)

DAEMON = """
import os, subprocess, sys
def main(args):
    # A daemon by the book: forked twice, in a session of its own, another program, nothing
    # inherited.
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, str(os.getpid()).encode())
            os.closerange(0, 1000)
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        os._exit(0)
    os.wait()
    return {"daemon": int(os.read(read, 100)), "runtime": os.getpid()}
"""


@pytest.fixture
async def world(tmp_path: Path, short_path: Path) -> AsyncIterator[ProcessWorld]:
    world = ProcessWorld(tmp_path, short_path)
    yield world
    await end_all(world)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any container."""
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        yield process
        process.kill()


async def daemon(driver: ProcessDriver) -> tuple[int, int]:
    """Starts a container with a daemon: its process id, and the runtime's."""
    await driver.create(spec(ONE))
    await driver.init(ONE, code(DAEMON), SOON)
    answer = await run(driver.address(ONE))
    return answer["daemon"], answer["runtime"]


def alive(pid: int) -> bool:
    return procfs.start_time(pid) != 0


@pytest.mark.parametrize("victim", ["runtime", "supervisor", "both", "destroy"])
async def test_nothing_runs_when_the_end_is_told(world: ProcessWorld, victim: str) -> None:
    async with world.driver(reconcile=NEVER) as driver:
        escaped, runtime = await daemon(driver)
        record = world.record(ONE)
        assert runtime == world.runtime(ONE)
        assert procfs.has_mark(escaped, record.mark)
        if victim == "destroy":
            await driver.destroy(ONE)
        if victim in ("supervisor", "both"):
            os.kill(record.pid, signal.SIGKILL)
        if victim in ("runtime", "both"):
            os.kill(runtime, signal.SIGKILL)
        await told(driver, ONE)
        assert not any(procfs.has_mark(pid, record.mark) for pid in (escaped, runtime))
        await until_gone(escaped, runtime, record.pid)
        assert os.listdir(world.sockets) == []
        assert not list(world.data.glob("*.work"))


async def test_every_driver_is_told_whoever_cleaned_up(world: ProcessWorld) -> None:
    async with world.driver() as driver, world.driver() as second, world.driver() as third:
        await daemon(driver)
        assert not await second.has_ended(ONE)
        assert not await third.has_ended(ONE)
        os.kill(world.record(ONE).pid, signal.SIGKILL)
        await asyncio.gather(*(told(each, ONE) for each in (driver, second, third)))


async def test_no_end_while_anything_runs(world: ProcessWorld) -> None:
    """The supervisor is stopped, its runtime dead, its daemon alive: that is not the end."""
    async with world.driver() as driver:
        escaped, runtime = await daemon(driver)
        pid = world.record(ONE).pid
        os.kill(pid, signal.SIGSTOP)
        os.kill(runtime, signal.SIGKILL)
        await until_gone(runtime)
        assert not await driver.has_ended(ONE)
        assert [found.running for found in await driver.list()] == [True]
        assert alive(escaped)
        os.kill(pid, signal.SIGCONT)
        await told(driver, ONE)
        assert not alive(escaped)


SUPERVISOR = """
import os, signal, sys
from slotway.drivers import supervisor
from slotway.drivers.base import ContainerId, Label
reap, folder, reply = supervisor._reap, sys.argv[1], int(sys.argv[2])

def reap_and_end(runtime):
    ending = reap(runtime)
    if not ending:
        os.kill(runtime, signal.SIGKILL)
        os.waitid(os.P_PID, runtime, os.WEXITED | os.WNOWAIT)
    return ending

supervisor._reap = reap_and_end
supervisor.Log.take = lambda *_: False  # as if the runtime had closed its output before
label = Label("test", 1, ContainerId("one"), "1.1")
paths = (f"{folder}/one.{kind}" for kind in ("lock", "sock", "log", "work"))
supervisor.supervise(supervisor.Order(label, 1, 64, *paths), reply)
"""


def test_an_end_just_after_a_look_for_ends_is_seen(short_path: Path) -> None:
    """The runtime ends just when its supervisor has looked for ended children and found none."""
    read, write = os.pipe()
    command = [sys.executable, "-c", SUPERVISOR, str(short_path), str(write)]
    with subprocess.Popen(command, pass_fds=[write]) as process:
        os.close(write)
        try:
            assert os.read(read, 100) == b"ready"
            process.send_signal(signal.SIGCHLD)  # has it look
            process.wait(20)
        finally:
            os.close(read)
            process.kill()
    assert look(short_path / "one.lock").ending == "SIGKILL"


async def test_a_supervisor_that_does_not_answer_is_killed(
    world: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slotway.drivers.process.KILL_TIMEOUT_S", 0.1)
    async with world.driver(reconcile=NEVER) as driver:
        escaped, runtime = await daemon(driver)
        os.kill(world.record(ONE).pid, signal.SIGSTOP)
        await driver.destroy(ONE)
        await told(driver, ONE)
        await until_gone(escaped, runtime)


async def test_an_action_that_ignores_signals_ends(world: ProcessWorld) -> None:
    source = (
        "import signal\n"
        "for number in range(1, 32):\n"
        "    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):\n"
        "        signal.signal(number, signal.SIG_IGN)\n"
        "async def main(args):\n"
        "    return {}\n"
    )
    async with world.driver() as driver:
        await driver.create(spec(ONE))
        await driver.init(ONE, code(source), SOON)
        runtime = world.runtime(ONE)
        os.kill(runtime, signal.SIGTERM)
        assert await run(driver.address(ONE)) == {}
        await driver.destroy(ONE)
        await told(driver, ONE)
        await until_gone(runtime)


@pytest.mark.parametrize(
    ("call", "ending"),
    [("os._exit(3)", "exit code 3"), ("os.abort()", "SIGABRT"), ("os.closerange(0, 1000)", "")],
)
async def test_an_action_that_ends_its_process_ends_the_container(
    world: ProcessWorld, call: str, ending: str
) -> None:
    async with world.driver() as driver:
        await driver.create(spec(ONE))
        await driver.init(ONE, code(f"import os\nasync def main(args):\n    {call}\n"), SOON)
        with pytest.raises(aiohttp.ClientError):
            await run(driver.address(ONE))
        await told(driver, ONE)
        assert ending in driver.ending(ONE)


async def test_what_ended_meanwhile_is_told_at_the_start(world: ProcessWorld) -> None:
    async with world.driver() as driver:
        await driver.create(spec(ONE))
    world.crash(ONE)
    async with world.driver(reconcile=NEVER) as driver:
        await told(driver, ONE)


async def test_the_lock_is_not_the_actions(world: ProcessWorld) -> None:
    """Nor is anything else that the Manager or the spawner had open."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    source = (
        "import os\n"
        "async def main(args):\n"
        "    open_now = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')\n"
        "                if os.path.exists(f'/proc/self/fd/{fd}')]\n"
        "    return {'open': open_now}\n"
    )
    async with world.driver() as driver:
        await driver.create(spec(ONE))
        await driver.init(ONE, code(source), SOON)
        answer = await run(driver.address(ONE))
        kinds = sorted(name.split(":")[0] for name in answer["open"] if name.startswith("/"))
        assert kinds == ["/dev/null"]
        pipes = [name for name in answer["open"] if name.startswith("pipe:")]
        assert len(pipes) == 2, "stdout and stderr"
        assert os.readlink(f"/proc/self/fd/{write}") not in pipes
        supervisor = world.record(ONE).pid
        folder = f"/proc/{supervisor}/fd"
        held = {os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)}
        assert str(world.data / "one.lock") in held
        assert not any(name.startswith("socket:") for name in held)
    os.close(read)
    os.close(write)


async def test_a_process_id_that_was_used_again_is_left_alone(
    world: ProcessWorld, bystander: subprocess.Popen[bytes]
) -> None:
    world.data.mkdir(parents=True)
    pid, started = bystander.pid, procfs.start_time(bystander.pid)
    record = Record(spec(ONE).label, pid, started - 1, procfs.boot_id(), procfs.new_mark())
    path = world.data / "one.lock"
    path.write_bytes(record.to_line())
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        async with world.driver(reconcile=NEVER) as driver:
            assert not await driver.has_ended(ONE)
            await driver.destroy(ONE)
            fcntl.flock(held, fcntl.LOCK_UN)
            await told(driver, ONE)
    assert bystander.poll() is None


def test_a_process_is_signalled_only_as_itself(bystander: subprocess.Popen[bytes]) -> None:
    pid, started, boot = bystander.pid, procfs.start_time(bystander.pid), procfs.boot_id()
    assert not procfs.signal_process(pid, started + 1, boot, signal.SIGKILL)
    assert not procfs.signal_process(pid, started, "another boot", signal.SIGKILL)
    assert bystander.poll() is None
    assert procfs.signal_process(pid, started, boot, signal.SIGKILL)
    assert bystander.wait() == -signal.SIGKILL
    assert not procfs.signal_process(pid, started, boot, signal.SIGKILL)


MANAGER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = {path!r}
from slotway.drivers.process import ProcessDriver
from tests.contract.containers import CLUSTER, spec
async def main():
    async with ProcessDriver(CLUSTER, Path({data!r}), Path({sockets!r})) as driver:
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(driver.create(spec(f"m{{number}}")))
            while not await driver.list():
                await asyncio.sleep(0)
            print("begun", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_manager_killed_while_it_creates(world: ProcessWorld) -> None:
    source = MANAGER.format(path=sys.path, data=str(world.data.parent), sockets=str(world.sockets))
    manager = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, stdout=subprocess.PIPE
    )
    assert manager.stdout is not None
    assert await manager.stdout.readline() == b"begun\n"
    manager.kill()
    await manager.wait()
    async with world.driver() as driver:
        names = [ContainerId(f"m{number}") for number in range(12)]
        await asyncio.gather(*(driver.create(spec(name)) for name in names))
        await asyncio.gather(*(driver.init(name, code(ECHO), SOON) for name in names))
        pids = {(await run(driver.address(name)))["pid"] for name in names}
        assert len(pids) == 12
        assert sorted(found.label.id for found in await driver.list()) == sorted(names)


def zygote(driver: ProcessDriver) -> int:
    assert driver.spawner is not None
    assert driver.spawner.pid is not None
    return driver.spawner.pid


async def test_a_spawner_that_died_is_replaced(world: ProcessWorld) -> None:
    async with world.driver() as driver:
        first = zygote(driver)
        await driver.create(spec("before"))
        os.kill(first, signal.SIGSTOP)
        creating = asyncio.create_task(driver.create(spec("during")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        await creating
        await driver.create(spec("after"))
        assert zygote(driver) != first
        assert len(await driver.list()) == 3


async def test_a_spawner_that_hangs_is_replaced(
    world: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.driver() as driver:
        first = zygote(driver)
        os.kill(first, signal.SIGSTOP)
        with monkeypatch.context() as hurried:
            hurried.setattr("slotway.drivers.process.CREATE_TIMEOUT_S", 0.1)
            with pytest.raises(DriverError, match="took more than"):
                await driver.create(spec("during"))
        await driver.create(spec("after"))
        assert zygote(driver) != first


async def test_a_late_creation_finds_its_id_used_up(world: ProcessWorld) -> None:
    """A Manager falls asleep with an order under way; its successor has proved the end by then."""
    async with world.driver() as sleeper, world.driver() as driver:
        pid = zygote(sleeper)
        os.kill(pid, signal.SIGSTOP)
        creating = asyncio.create_task(sleeper.create(spec(ONE)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
        assert await driver.has_ended(ONE)
        for each in driver, sleeper:
            each.sweep()
        os.kill(pid, signal.SIGCONT)
        await sleeper.close()
        assert await driver.list() == []
        assert await driver.has_ended(ONE)


async def test_tombstones_go_when_no_creation_can_be_under_way(world: ProcessWorld) -> None:
    async with world.driver() as driver:
        await driver.destroy(ONE)
        await told(driver, ONE)
        async with world.driver() as second:
            driver.sweep()
            second.sweep()
            assert list(world.data.glob("*.lock"))
        driver.sweep()
        assert not list(world.data.glob("*.lock"))
        await driver.create(spec("two"))
        driver.sweep()
        assert len(await driver.list()) == 1
