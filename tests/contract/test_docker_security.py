"""Each restriction of the Docker driver, tried from inside the action: the forbidden thing must
fail, and for the reason that is meant."""

from __future__ import annotations

import asyncio
import logging
import socket
import textwrap
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from slotway.drivers.base import ContainerId, EndedLoadingError
from slotway.drivers.docker import DockerDriver

from .containers import SOON, DockerWorld, code, connect, post, run, told

pytestmark = pytest.mark.docker

TRIES = """
import contextlib, ctypes, errno, io, os, resource, socket, subprocess, sys, threading

def call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), name)

def main(args):
    # What is tried, as source: it leaves its finding in `found`.
    scope = {"args": args, "found": None, **globals()}
    try:
        exec(args["source"], scope)
    except OSError as error:
        return {"error": errno.errorcode[error.errno]}
    return {"found": scope["found"]}
"""
ONE = ContainerId("one")


class Inside:
    """One container whose action tries what it is told."""

    def __init__(self, world: DockerWorld, driver: DockerDriver) -> None:
        self.world, self.driver = world, driver

    async def start(self, *, memory_mib: int = 128) -> None:
        await self.driver.create(self.world.spec(ONE, memory_mib=memory_mib))
        await self.driver.init(ONE, code(TRIES), SOON)

    async def attempt(self, source: str, **arguments: object) -> dict[str, Any]:
        """The error's name, or what was found."""
        text = textwrap.dedent(source)
        return await run(self.world.spec(ONE).address, source=text, **arguments)


@pytest.fixture
async def inside(docker_world: DockerWorld) -> AsyncIterator[Inside]:
    async with docker_world.driver() as driver:
        yield Inside(docker_world, driver)


@pytest.mark.parametrize("path", ["/x", "/etc/x", "/usr/bin/x", "/opt/slotway/x", "/var/tmp/x"])
async def test_the_root_is_read_only(inside: Inside, path: str) -> None:
    await inside.start()
    answer = await inside.attempt("found = open(args['path'], 'w')", path=path)
    assert answer == {"error": "EROFS"}


async def test_the_little_that_can_be_written_is_bounded(inside: Inside) -> None:
    await inside.start(memory_mib=256)
    answer = await inside.attempt(
        """
        with open("/tmp/large", "wb") as file:
            for _ in range(100):
                file.write(bytes(1024 * 1024))
        """
    )
    assert answer == {"error": "ENOSPC"}


async def test_a_program_can_be_unpacked_and_run(inside: Inside) -> None:
    """No restriction, but what runtimes of others need."""
    await inside.start()
    answer = await inside.attempt(
        """
        with open("/tmp/program", "w") as file:
            file.write("#!/bin/sh\\necho runs")
        os.chmod("/tmp/program", 0o700)
        found = subprocess.check_output(["/tmp/program"], text=True)
        """
    )
    assert answer == {"found": "runs\n"}


async def test_the_user_is_nobody_and_has_no_capabilities(inside: Inside) -> None:
    await inside.start()
    answer = await inside.attempt(
        """
        status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
        found = [status[name].split()[0] for name in
                 ("Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")]
        """
    )
    none = "0000000000000000"
    assert answer == {"found": ["65534", none, none, none, none, none, "1", "2"]}


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("call('mount', b'none', b'/tmp', b'tmpfs', 0, None)", "EPERM"),
        ("call('unshare', 0x10000000)", "EPERM"),
        ("os.setuid(0)", "EPERM"),
        ("os.chroot('/tmp')", "EPERM"),
        ("socket.sethostname('x')", "EPERM"),
        ("os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))", "EPERM"),
        ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "EPERM"),
        ("socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)", "EPERM"),
    ],
)  # fmt: skip
async def test_what_takes_a_capability_fails(inside: Inside, source: str, error: str) -> None:
    await inside.start()
    assert await inside.attempt(source) == {"error": error}


async def test_a_set_user_id_program_gains_nothing(inside: Inside) -> None:
    """Debian's own `su` is such a program, and waits for a password as whoever it is."""
    await inside.start()
    answer = await inside.attempt(
        """
        marked = bool(os.stat("/bin/su").st_mode & 0o4000) and os.stat("/bin/su").st_uid == 0
        pipe = subprocess.PIPE
        with subprocess.Popen(["/bin/su"], stdin=pipe, stdout=pipe, stderr=pipe) as su:
            status = dict(line.split(":\\t", 1) for line in open(f"/proc/{su.pid}/status"))
            su.kill()
        found = [marked, status["Name"].strip(), status["Uid"].split()]
        """
    )
    assert answer == {"found": [True, "su", ["65534"] * 4]}


async def test_a_fork_bomb_ends_at_the_limit(inside: Inside) -> None:
    await inside.start()
    answer = await inside.attempt(
        """
        children = []
        try:
            while len(children) < 5000:
                pid = os.fork()
                if pid == 0:
                    import time
                    time.sleep(60)
                    os._exit(0)
                children.append(pid)
        except OSError as error:
            found = [errno.errorcode[error.errno], len(children)]
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        """
    )
    error, forked = answer["found"]
    assert error == "EAGAIN"
    assert forked < 66
    assert (await inside.attempt("found = 1")) == {"found": 1}


async def test_memory_ends_at_the_limit(inside: Inside, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel ends it, the engine says why, and there is no swap to escape to."""
    await inside.start(memory_mib=64)
    source = "keep = []\nwhile True: keep.append(bytearray(os.urandom(1024)) * 1024)"
    with caplog.at_level(logging.INFO):
        with pytest.raises(aiohttp.ClientError):
            await inside.attempt(source)
        await told(inside.driver, ONE)
    assert await inside.driver.has_ended(ONE)
    assert "it used more memory than its limit of 64 MiB" in caplog.text


async def test_memory_ends_at_the_limit_while_code_is_loaded_too(inside: Inside) -> None:
    await inside.driver.create(inside.world.spec(ONE, memory_mib=64))
    source = "import os\nkeep = []\nwhile True: keep.append(bytearray(os.urandom(1024)) * 1024)"
    with pytest.raises(EndedLoadingError, match="more memory than its limit of 64 MiB"):
        await inside.driver.init(ONE, code(source), SOON)
    await told(inside.driver, ONE)


async def test_there_is_an_end_to_open_files(inside: Inside) -> None:
    await inside.start()
    answer = await inside.attempt(
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        keep = []
        try:
            while len(keep) < 10**4:
                keep.append(open("/dev/null"))
        except OSError as error:
            found = [errno.errorcode[error.errno], hard]
        """
    )
    assert answer == {"found": ["EMFILE", 1028]}


async def test_nothing_outside_is_reached(inside: Inside) -> None:
    """Not even this machine's other addresses; that one does listen is seen from here."""
    outside = socket.create_server(("0.0.0.0", 0))
    port = outside.getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Sends nothing: it asks the kernel for this machine's address to the outside.
        probe.connect(("192.0.2.1", 9))
        host = probe.getsockname()[0]
    with outside:
        await connect(f"{host}:{port}")
        await inside.start()
        source = "socket.create_connection((args['host'], args['port']), 10)"
        answer = await inside.attempt(source, host=host, port=port)
    assert answer in ({"error": "EHOSTUNREACH"}, {"error": "ENETUNREACH"})


async def test_names_are_not_asked_for_outside(inside: Inside) -> None:
    """Names would be a way out: the engine's resolver must have nobody to ask."""
    await inside.start()
    answer = await inside.attempt(
        """
        try:
            found = socket.getaddrinfo("slotway.example", 80)
        except socket.gaierror as error:
            found = error.errno
        servers = [line.split()[1] for line in open("/etc/resolv.conf")
                   if line.startswith("nameserver")]
        found = [found in (socket.EAI_AGAIN, socket.EAI_NONAME), servers]
        """
    )
    assert answer == {"found": [True, ["127.0.0.11"]]}


async def test_another_container_is_not_reached(inside: Inside) -> None:
    await inside.start()
    two = inside.world.spec("two")
    await inside.driver.create(two)
    host, _, port = two.address.rpartition(":")
    status, _ = await post(two.address, "/nothing", {})
    assert status == 404, "from this machine it is reached"
    source = """
        with socket.socket() as one:
            one.settimeout(2)
            try:
                one.connect((args["host"], args["port"]))
                found = "connected"
            except TimeoutError:
                found = "no answer"
    """
    answer = await inside.attempt(source, host=host, port=int(port))
    assert answer in ({"found": "no answer"}, {"error": "EHOSTUNREACH"})
    # Nor does it answer to its name.
    lookup = "socket.getaddrinfo(args['name'], 80)"
    name = inside.world.name("two")
    answer = await inside.attempt(
        f"try:\n    {lookup}\n    found = 'known'\nexcept OSError: found = 'unknown'", name=name
    )
    source = "socket.create_connection((args['name'], 8080), 2)"
    answer = await inside.attempt(
        f"try:\n    {source}\n    found = 'connected'\nexcept OSError: found = 'not reached'",
        name=name,
    )
    assert answer == {"found": "not reached"}


async def test_the_engine_is_not_reached(inside: Inside) -> None:
    await inside.start()
    answer = await inside.attempt("found = os.path.exists('/var/run/docker.sock')")
    assert answer == {"found": False}


async def test_the_host_is_not_seen(inside: Inside) -> None:
    """Neither its processes nor its settings."""
    await inside.start()
    answer = await inside.attempt(
        "found = sorted(int(name) for name in os.listdir('/proc') if name.isdigit())[:1] +"
        " [open('/proc/1/comm').read().strip()]"
    )
    assert answer == {"found": [1, "docker-init"]}
    answer = await inside.attempt("open('/proc/sys/kernel/hostname', 'w')")
    assert answer == {"error": "EROFS"}


async def test_the_log_is_bounded(inside: Inside) -> None:
    """The engine keeps two files of 1 MiB at most, however much is printed past the runtime."""
    await inside.start()
    await inside.attempt("for _ in range(64): os.write(1, b'x' * 127 * 1024 + b'\\n' * 1024)")
    process = await asyncio.create_subprocess_exec(
        *("docker", "logs", inside.world.name(ONE)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    kept, _ = await asyncio.wait_for(process.communicate(), 30)
    assert 0 < len(kept) <= 2 * 1024 * 1024
