"""What is done to containers, the engine and Routers from outside. Only what this campaign started
is touched, but for the Docker engine, which is restarted as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from slotway.drivers import lock, procfs
from slotway.errors import SlotwayError
from tests.integration.parts import Parts

ENGINE_S = 60.0
SUPERVISED_S = 0.5
"""A supervisor of the engine would have started it again."""
STANDBY_S = 60.0
POLL_S = 0.5
DOCKER_PID = Path("/var/run/docker.pid")
DOCKER_LOG = Path("/var/log/dockerd.log")


def children(pid: int) -> list[int]:
    """The children of all of the process's threads."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.extend(int(child) for child in path.read_text(encoding="ascii").split())
    return found


def supervisors(data_dir: Path) -> Iterator[tuple[str, lock.Record]]:
    """(container, record) of each container of the process driver that runs."""
    for path in (data_dir / "containers").glob("*.lock"):
        sight = lock.look(path)
        if sight.state is lock.State.RUNNING and sight.record is not None:
            yield path.stem, sight.record


def kill_runtime(data_dir: Path, container: str) -> bool:
    """SIGKILL to the container's runtime, as the kernel would that is short of memory."""
    for name, record in supervisors(data_dir):
        if name == container and (found := children(record.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found[0], signal.SIGKILL)
                return True
    return False


async def restart_engine(parts: Parts) -> bool:
    """Ends the engine with all that it runs, and has it begin anew."""
    if parts.driver == "docker":
        await asyncio.to_thread(restart_docker)
        return True
    killed = 0
    for manager in parts.managers:
        for child in children(manager.pid):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{child}/cmdline").read_bytes()
                if b"slotway.drivers.zygote" in line:
                    os.kill(child, signal.SIGKILL)
                    killed += 1
    for _, record in list(supervisors(parts.data_dir)):
        procfs.signal_process(record.pid, record.start, record.boot, signal.SIGKILL)
    return killed > 0


def restart_docker() -> None:
    """As whoever started the engine would: systemd, its init script, or by hand."""
    if Path("/run/systemd/system").exists():
        _run("systemctl", "reset-failed", "docker")
        _run("systemctl", "restart", "docker")
    elif Path("/var/run/docker-ssd.pid").exists():
        _run("service", "docker", "restart")
    else:
        _restart_by_hand(int(DOCKER_PID.read_text()))
    _run("docker", "version")


def _restart_by_hand(pid: int) -> None:
    process = Path(f"/proc/{pid}")
    command = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    variables = (process / "environ").read_bytes().rstrip(b"\0").split(b"\0")
    environment = dict(one.split(b"=", 1) for one in variables if b"=" in one)
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], ENGINE_S)[0]:
            raise TimeoutError(f"the Docker engine, process {pid}, does not end")
        time.sleep(SUPERVISED_S)
    finally:
        os.close(descriptor)
    if not DOCKER_PID.exists():  # nobody else has started it again
        with DOCKER_LOG.open("ab") as log:
            subprocess.Popen(
                command,
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    _run("timeout", str(ENGINE_S), "sh", "-c", "until docker version; do sleep 0.1; done")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=2 * ENGINE_S)


async def restart_leader(parts: Parts) -> bool:
    """SIGKILL; the standby takes over. The killed one is started until it stands by: while the
    engine is away, it cannot."""
    async with asyncio.timeout(STANDBY_S):
        while not await _standbys(parts):
            await asyncio.sleep(POLL_S)
        child = await parts.leader()
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        await parts.until_live()
        led_by = await parts.leader()
        while not await _standbys(parts):
            if child.ended:
                await child.start()
            await asyncio.sleep(POLL_S)
    return led_by is not child


async def _standbys(parts: Parts) -> int:
    with contextlib.suppress(SlotwayError):
        return sum(one.ready for one in (await parts.show()).standbys)
    return 0


async def restart_router(parts: Parts, number: int) -> bool:
    """SIGKILL, and a new process of the same name and address."""
    child = parts.routers[number]
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    await child.start()
    await parts.until_live()
    return True
