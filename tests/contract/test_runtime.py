"""The runtime's promises (`docs/runtime.md`), kept by real containers."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import tempfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from slotway.drivers.base import ContainerId, InitError
from slotway.drivers.process import ProcessDriver

from .containers import BARRIER, PATIENCE_S, SOON, ProcessWorld, code, post, spec, told

Answer = tuple[int, dict[str, Any]]
pytestmark = pytest.mark.asyncio(loop_scope="module")
_numbers = itertools.count(1)


class Container:
    """One container, and requests to it."""

    def __init__(self, world: ProcessWorld, driver: ProcessDriver) -> None:
        self.name = ContainerId(f"container-{next(_numbers)}")
        self.driver = driver
        self.address = driver.address(self.name)
        self._log = world.data / f"{self.name}.log"

    async def create(self, capacity: int = 1) -> None:
        await self.driver.create(spec(self.name, capacity=capacity))

    async def init(self, value: dict[str, object]) -> None:
        await self.driver.init(self.name, value, SOON)

    async def start(self, source: str, *, capacity: int = 1, **value: object) -> None:
        await self.create(capacity)
        await self.init(code(source) | value)

    async def run(self, value: object = None, **fields: object) -> Answer:
        body = {"value": {} if value is None else value, "activation_id": "a1", **fields}
        return await post(self.address, "/run", body)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.address.removeprefix("unix:"))

    async def log(self, wanted: str) -> str:
        """The log, once it holds this: the supervisor writes it in its own time."""
        async with asyncio.timeout(PATIENCE_S):
            while wanted not in (text := self._log.read_text()):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
        return text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[ProcessWorld, ProcessDriver]]:
    """One driver for all tests here: a spawner takes its time to start."""
    with tempfile.TemporaryDirectory(prefix="slotway-") as sockets:
        world = ProcessWorld(tmp_path_factory.mktemp("runtime"), Path(sockets))
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SLOTWAY_SECRET", "x")
            async with world.driver() as driver:
                yield world, driver


@pytest_asyncio.fixture(loop_scope="module")
async def container(shared: tuple[ProcessWorld, ProcessDriver]) -> AsyncIterator[Container]:
    container = Container(*shared)
    yield container
    await container.driver.destroy(container.name)
    await told(container.driver, container.name)


KINDS = pytest.mark.parametrize("kind", ["def", "async def"])


@KINDS
async def test_a_function_gets_its_arguments_and_answers(container: Container, kind: str) -> None:
    await container.start(f"{kind} main(args):\n    return {{'hello': args['name']}}\n")
    assert await container.run({"name": "wörld"}) == (200, {"hello": "wörld"})


async def test_main_may_have_another_name(container: Container) -> None:
    await container.start("def handle(args):\n    return {}\n", main="handle")
    assert await container.run() == (200, {})


async def test_run_before_init(container: Container) -> None:
    await container.create()
    assert await container.run() == (403, {"error": "The action is not initialized."})


@KINDS
@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise ValueError('too short')", "ValueError: too short"),
        ("raise StopIteration", "StopIteration"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
        ("import sys; sys.exit(3)", "The action called sys.exit(3)."),
        ("main(args) if callable(main) else 0; main.missing", "missing"),
        ("return [1]", "The action did not return a dictionary."),
        ("return None", "The action did not return a dictionary."),
        ("return {'x': float('nan')}", "ValueError"),
        ("return {'x': object()}", "TypeError"),
        ("return {'x': '\\ud800'}", None),
    ],
)
async def test_errors_are_answers(
    container: Container, kind: str, body: str, error: str | None
) -> None:
    if "missing" in body:
        body = "main.missing"
    await container.start(
        f"{kind} main(args):\n    if args: return {{'alive': True}}\n    {body}\n", capacity=2
    )
    status, answer = await container.run()
    if error is None:
        assert (status, answer) == (200, {"x": "\ud800"})
    elif error == "StopIteration" and kind == "async def":
        assert (status, list(answer)) == (502, ["error"])
    else:
        assert status == 502
        assert error in answer["error"]
    assert await container.run({"again": 1}) == (200, {"alive": True})


async def test_a_traceback_goes_to_the_log(container: Container) -> None:
    await container.start("def main(args):\n    return 1 / args['by']\n")
    await container.run({"by": 0})
    log = await container.log("ZeroDivisionError")
    assert 'File "hello.py", line 2, in main' in log
    assert "return 1 / args['by']" in log
    assert "runtime" not in log


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (code("import nothing_like_it\n"), "ModuleNotFoundError"),
        (code("def main(:\n"), "SyntaxError"),
        (code("x = 1\n"), "no function named 'main'"),
        (code("import sys; sys.exit()\n"), "SystemExit"),
        (code(""), "there is no code"),
        (code("bm8gemlw") | {"binary": True}, "not a zip archive"),
    ],
)
async def test_code_that_does_not_initialise(
    container: Container, value: dict[str, object], message: str
) -> None:
    await container.create()
    with pytest.raises(InitError, match=message):
        await container.init(value)
    # Half of it may have run: it gets no second chance.
    with pytest.raises(InitError, match="more than once"):
        await container.init(code("def main(args): return {}"))


async def test_an_init_error_carries_the_traceback(container: Container) -> None:
    await container.create()
    with pytest.raises(InitError) as failed:
        await container.init(code("def f():\n    1 / 0\nf()\n"))
    assert 'File "hello.py", line 2, in f' in str(failed.value)
    assert str(failed.value).endswith("ZeroDivisionError: division by zero")


async def test_an_archive(container: Container) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("__main__.py", "import words\ndef main(args): return words.READ()\n")
        archive.writestr(
            "words.py", "def READ(): return {'words': open('words.txt').read().split()}"
        )
        archive.writestr("words.txt", "one two")
        archive.writestr("virtualenv/lib/python3.11/site-packages/dependency.py", "")
    await container.start(base64.b64encode(packed.getvalue()).decode(), binary=True)
    assert await container.run() == (200, {"words": ["one", "two"]})


@KINDS
@pytest.mark.parametrize(("capacity", "sent"), [(8, 8), (1, 2), (40, 43)])
async def test_as_many_run_at_once_as_are_sent(
    container: Container, kind: str, capacity: int, sent: int
) -> None:
    """Also more than C: only the action can show that somebody sent too much."""
    await container.start(BARRIER[kind].replace("COUNT", str(sent)), capacity=capacity)
    answers = await asyncio.gather(*(container.run() for _ in range(sent)))
    assert max(answer["most"] for _, answer in answers) == sent
    assert {status for status, _ in answers} == {200}


async def test_output_is_told_apart(container: Container) -> None:
    await container.start(
        "import asyncio, sys\n"
        "async def main(args):\n"
        "    print('begin', args['n'])\n"
        "    await asyncio.sleep(0)\n"
        "    await asyncio.to_thread(print, 'thread', args['n'], file=sys.stderr)\n"
        "    print('end', args['n'], end='')\n"
        "    return {}\n",
        capacity=4,
    )
    await asyncio.gather(*(container.run({"n": n}, activation_id=f"id{n}") for n in range(4)))
    for n in range(4):
        log = await container.log(f" id{n} stdout: end {n}\n")
        assert f" id{n} stdout: begin {n}\n" in log
        assert f" id{n} stderr: thread {n}\n" in log


async def test_output_of_child_processes_is_kept(container: Container) -> None:
    await container.start(
        "import os, subprocess, sys\n"
        "def main(args):\n"
        "    subprocess.run(['echo', 'from a child'], stdout=sys.stdout, check=True)\n"
        "    sys.stdout.buffer.write(b'bytes\\n')\n"
        "    return {}\n"
    )
    assert await container.run() == (200, {})
    assert "from a child\n" in await container.log("stdout: bytes\n")


async def test_the_log_of_an_activation_is_bounded(container: Container) -> None:
    await container.start(
        "def main(args):\n    for _ in range(30_000):\n        print('x' * 100)\n    return {}\n"
    )
    assert await container.run() == (200, {})
    await container.log("the log of this activation ends here")
    await container.run(activation_id="a2")
    text = await container.log(" a2 stdout: the log of this activation ends here")
    assert len(text) < 4 * 1024 * 1024


async def test_the_deadline_and_ids_reach_the_action(container: Container) -> None:
    await container.start(
        "from slotway.runtime import activation\n"
        "def main(args):\n"
        "    own = activation()\n"
        "    return {'id': own.id, 'left': own.remaining_ms(), 'name': own.action_name,\n"
        "            'deadline': own.deadline_ms}\n",
        capacity=2,
    )
    far = 4_000_000_000_000
    _, answer = await container.run(deadline=str(far), action_name="guest/hello")
    assert answer.pop("left") > 1_000_000
    assert answer == {"id": "a1", "name": "guest/hello", "deadline": far}


@pytest.mark.parametrize(
    ("capacity", "told", "seen"),
    [
        (1, {}, ["a1", "123"]),
        (2, {}, [None, None]),
        (200, {"concurrency": 1}, ["a1", "123"]),  # a stem cell, made for more
        (200, {"concurrency": 2}, [None, None]),
    ],
)
async def test_the_environment_names_the_activation_only_at_c_1(
    container: Container, capacity: int, told: dict[str, int], seen: list[str | None]
) -> None:
    await container.start(
        "import os\n"
        "def main(args):\n"
        "    names = 'ACTIVATION_ID', 'DEADLINE'\n"
        "    return {'seen': [os.environ.get('__OW_' + name) for name in names],\n"
        "            'init': os.environ['FROM_INIT']}\n",
        capacity=capacity,
        env={"FROM_INIT": "yes"},
        **told,
    )
    assert await container.run(deadline=123) == (200, {"seen": seen, "init": "yes"})


async def test_the_managers_environment_stays_with_it(container: Container) -> None:
    await container.start("import os\ndef main(args):\n    return dict(os.environ)\n")
    _, environment = await container.run()
    assert "SLOTWAY_SECRET" not in environment
    assert environment["SLOTWAY_CONTAINER"] == container.name


async def test_a_forked_child_does_not_answer(container: Container) -> None:
    """Neither when it returns into the runtime, nor does it hold the connection open."""
    await container.start(
        "import os\n"
        "def main(args):\n"
        "    pid = os.fork()\n"
        "    if pid:\n"
        "        os.waitpid(pid, 0)\n"
        "    return {'parent': bool(pid)}\n",
        capacity=2,
    )
    reader, writer = await container.open()
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(2):
            writer.write(b'POST /run HTTP/1.1\r\nContent-Length: 12\r\n\r\n{"value":{}}')
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(15) == b'{"parent":true}'
        writer.close()


async def test_a_forked_child_of_an_async_action_does_not_answer(container: Container) -> None:
    await container.start(
        "import asyncio, os\n"
        "async def main(args):\n"
        "    pid = os.fork()\n"
        "    if pid:\n"
        "        await asyncio.to_thread(os.waitpid, pid, 0)\n"
        "    else:\n"
        "        await asyncio.sleep(0)\n"
        "    return {'parent': bool(pid)}\n",
    )
    for _ in range(2):
        assert await container.run() == (200, {"parent": True})


async def test_an_action_that_stops_the_loop(container: Container) -> None:
    await container.start(
        "import asyncio, sys\n"
        "async def main(args):\n"
        "    loop = asyncio.get_running_loop()\n"
        "    loop.stop()\n"
        "    loop.call_soon(sys.exit)\n"
        "    await asyncio.sleep(0.01)\n"
        "    return {}\n"
    )
    assert await container.run() == (200, {})
    assert await container.run() == (200, {})


async def test_asyncio_run_in_a_plain_function(container: Container) -> None:
    await container.start(
        "import asyncio\n"
        "async def work(): return {'x': 1}\n"
        "def main(args): return asyncio.run(work())\n"
    )
    assert await container.run() == (200, {"x": 1})
