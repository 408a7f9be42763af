"""Bad input against a whole cluster: each row of the promise "a clear error, and nothing is lost".

Every status is read from the wire: its code, the reason of its ErrorInfo, and its metadata.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from slotway.aio import Action, ApplicationError, CallError, Client, Exec, Limits
from tests.integration.test_dev import Dev

REQUEST_BYTES_MAX, RESULT_BYTES_MAX, QUEUE_MAX, CONTAINERS_MAX = 65_536, 100_000, 4, 8
CONFIG = f"""
[manager]
init_timeout = "3s"
overrun_grace = "1s"
containers_max = {CONTAINERS_MAX}
[router]
queue_max = {QUEUE_MAX}
max_wait = "8s"
give_back = "500ms"
request_bytes_max = {REQUEST_BYTES_MAX}
response_bytes_max = {RESULT_BYTES_MAX}
"""
SOURCE = b"""
import os, sys, time
from slotway.runtime import activation

def main(args):
    match args.get("do"):
        case "raise": raise ValueError("too short")
        case "recurse": return main(args)
        case "exit": sys.exit(3)
        case "end": os._exit(3)
        case "list": return [1]
        case "nothing": return None
        case "set": return {"a": {1}}
        case "half": return {"a": "\\ud800"}
        case "deep":
            deep = {}
            for _ in range(100): deep = {"a": deep}
            return deep
        case "large": return {"a": "x" * args["bytes"]}
        case "print":
            for _ in range(3): print("x" * 1_000_000)
        case "fork":
            if os.fork() == 0: time.sleep(60)
        case "sleep":
            with open(args["touch"], "w") as file: file.write(str(os.getpid()))
            time.sleep(args["seconds"])
    known = activation()
    return {"args": args, "pid": os.getpid(), "id": known.id, "fields": known.fields}
"""
BROKEN = {
    "raises": (b"raise RuntimeError('no disk')", "RuntimeError: no disk"),
    "syntax": (b"def main(:", "SyntaxError"),
    "no-function": (b"x = 1", "no function named 'main'"),
    "exits": (b"import sys; sys.exit(4)", "SystemExit: 4"),
    "ends": (b"import os; os._exit(4)", "ended while its code was loaded"),
    "hangs": (b"import time; time.sleep(600)", "did not initialise within 3 s"),
}
SECONDS = 60

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dev(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    folder = tmp_path_factory.mktemp("bad input")
    (folder / "slotway.toml").write_text(CONFIG)
    dev = Dev(folder, "--routers", "2", "--config", str(folder / "slotway.toml"))
    await dev.start()
    try:
        await (await dev.ready()).close()
        yield dev
    finally:
        await dev.end()
    assert dev.left() == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(dev: Dev) -> AsyncIterator[Client]:
    async with Client(dev.endpoint.read_text().strip()) as client:
        await client.put_action("default/good", SOURCE, concurrency=5)
        await client.put_action("default/single", SOURCE)
        yield client


async def refused(call: Awaitable[object], code: str, reason: str, **metadata: str) -> CallError:
    with pytest.raises(CallError) as caught:
        await call
    error = caught.value
    assert (error.code.name, error.reason) == (code, reason), error
    assert error.metadata == metadata
    return error


async def test_an_unknown_action(client: Client) -> None:
    for call in (client.invoke, client.get_action, client.delete_action):
        error = await refused(call("default/none"), "NOT_FOUND", "ACTION_NOT_FOUND")
        assert "default/none" in str(error)


@pytest.mark.parametrize("name", ["", "none", "a/b/c", "-a/b", "a b/c", "é/b", "a/" + "b" * 65])
async def test_a_name_out_of_pattern(client: Client, name: str) -> None:
    kind = ("INVALID_ARGUMENT", "INVALID_FIELD")
    await refused(client.invoke(name), *kind, field="action")
    await refused(client.get_action(name), *kind, field="name")
    await refused(client.delete_action(name), *kind, field="name")
    await refused(client.put_action(name, SOURCE), *kind, field="action.name")


@pytest.mark.parametrize(
    "payload",
    [
        b"[1]",
        b'"text"',
        b"null",
        b"{",
        b'{"a":1}}',
        b'{"a":1},"activation_id":"mine"',
        b'{"a":1}, "deadline": 1, "x": {"y": 2}',
        b"{} {}",
        b"{}\0",
        b"\xef\xbb\xbf{}",
        b'{"a": NaN}',
        b'{"a": 01}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\n"}',
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",
    ],
)
async def test_a_payload_that_is_no_object(client: Client, payload: bytes) -> None:
    invoked = client.invoke("default/good", payload)
    error = await refused(invoked, "INVALID_ARGUMENT", "INVALID_PAYLOAD", field="payload")
    assert str(error).startswith("payload: ")


async def test_keys_in_a_payload_stay_in_the_arguments(client: Client) -> None:
    stolen = {"value": {}, "activation_id": "mine", "deadline": "1", "action_name": "/other"}
    result = (await client.invoke("default/good", stolen, timeout=SECONDS)).result
    assert result["args"] == stolen
    assert result["id"] != "mine"
    assert result["fields"]["activation_id"] == result["id"]
    assert result["fields"]["deadline"] != "1"
    assert result["fields"]["action_name"] == "/default/good"


@pytest.mark.parametrize("given", ["a b", 'a"b', "x" * 65, "\n"])
async def test_an_activation_id_out_of_pattern(client: Client, given: str) -> None:
    call = client.invoke("default/good", activation_id=given)
    await refused(call, "INVALID_ARGUMENT", "INVALID_FIELD", field="activation_id")


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"concurrency": 0}, "limits.concurrency"),
        ({"concurrency": 1001}, "limits.concurrency"),
        ({"timeout": 0}, "limits.timeout"),
        ({"timeout": -1}, "limits.timeout"),
        ({"timeout": 0.099}, "limits.timeout"),
        ({"timeout": 600.001}, "limits.timeout"),
        ({"memory_mib": 0}, "limits.memory_mib"),
        ({"memory_mib": 63}, "limits.memory_mib"),
        ({"memory_mib": 4097}, "limits.memory_mib"),
        ({"kind": "node:20"}, "exec.kind"),
        ({"main": "-x"}, "exec.main"),
    ],
)
async def test_limits_out_of_range(client: Client, limits: dict[str, Any], field: str) -> None:
    call = client.put_action("default/never", SOURCE, **limits)
    field = f"action.{field}"
    error = await refused(call, "INVALID_ARGUMENT", "INVALID_FIELD", field=field)
    assert str(error).startswith(f"{field}: ")
    await refused(client.get_action("default/never"), "NOT_FOUND", "ACTION_NOT_FOUND")


async def test_limits_that_are_not_given_have_defaults(client: Client) -> None:
    action = Action(name="default/plain", exec=Exec(kind="python:3"), limits=Limits())
    limits = (await client.replace_action(action, SOURCE)).limits
    assert (limits.concurrency, limits.memory_mib, limits.timeout.seconds) == (1, 256, 60)
    stale = client.replace_action(action, SOURCE, expected_revision=1)
    revision = str((await client.get_action("default/plain")).revision)
    await refused(stale, "ABORTED", "REVISION_CONFLICT", revision=revision)
    await client.delete_action("default/plain")


async def test_what_is_too_large(client: Client) -> None:
    kind = "RESOURCE_EXHAUSTED"
    large = {"a": "x" * REQUEST_BYTES_MAX}
    limit = {"limit_bytes": str(REQUEST_BYTES_MAX)}
    await refused(client.invoke("default/good", large), kind, "REQUEST_TOO_LARGE", **limit)
    code = b"#" * (16 * 2**20 + 1)
    limit = {"limit_bytes": str(16 * 2**20)}
    await refused(client.put_action("default/large", code), kind, "REQUEST_TOO_LARGE", **limit)
    call = client.invoke(
        "default/good", {"do": "large", "bytes": RESULT_BYTES_MAX}, timeout=SECONDS
    )
    limit = {"limit_bytes": str(RESULT_BYTES_MAX)}
    await refused(call, kind, "RESULT_TOO_LARGE", **limit)


async def test_code_that_does_not_initialise(client: Client) -> None:
    async def attempt(name: str) -> None:
        code, told = BROKEN[name]
        await client.put_action(f"default/{name}", code)
        calls = [client.invoke(f"default/{name}", timeout=SECONDS) for _ in range(2)]
        for call in calls:
            error = await refused(call, "FAILED_PRECONDITION", "INIT_FAILED")
            assert told in str(error)
        await client.delete_action(f"default/{name}")

    await asyncio.gather(*map(attempt, BROKEN))


@pytest.mark.parametrize(
    ("do", "told"),
    [
        ("raise", "ValueError: too short"),
        ("recurse", "RecursionError"),
        ("exit", "sys.exit(3)"),
        ("list", "did not return a dictionary"),
        ("nothing", "did not return a dictionary"),
        ("set", "not JSON serializable"),
    ],
)
async def test_what_the_action_does_wrong_is_its_answer(client: Client, do: str, told: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        await client.invoke("default/good", {"do": do}, timeout=SECONDS)
    assert told in caught.value.error["error"]


@pytest.mark.parametrize("do", ["print", "fork", "half"])
async def test_what_an_action_may_do(client: Client, do: str) -> None:
    assert (await client.invoke("default/good", {"do": do}, timeout=SECONDS)).result


async def test_an_answer_that_nests_too_deeply(client: Client) -> None:
    call = client.invoke("default/good", {"do": "deep"}, timeout=SECONDS)
    assert "nested too deeply" in str(await refused(call, "UNAVAILABLE", "BAD_ANSWER"))


async def test_a_container_that_ends_takes_only_its_own_requests(
    client: Client, dev: Dev, tmp_path: Path
) -> None:
    lost = ("UNAVAILABLE", "CONTAINER_LOST")
    await refused(client.invoke("default/single", {"do": "end"}, timeout=SECONDS), *lost)
    touched = tmp_path / "pid"
    sleep = {"do": "sleep", "touch": str(touched), "seconds": 600}
    running = asyncio.create_task(client.invoke("default/single", sleep, timeout=SECONDS))
    await dev.until(lambda: touched.exists() and touched.read_text() != "")
    os.kill(int(touched.read_text()), signal.SIGKILL)
    await refused(running, *lost)
    assert (await client.invoke("default/single", timeout=SECONDS)).result


async def test_a_run_past_its_timeout_holds_its_slot(
    client: Client, dev: Dev, tmp_path: Path
) -> None:
    await client.put_action("default/short", SOURCE, timeout=0.5)
    touched = tmp_path / "pid"
    sleep = {"do": "sleep", "touch": str(touched), "seconds": 600}
    call = client.invoke("default/short", sleep, timeout=SECONDS)
    await refused(call, "DEADLINE_EXCEEDED", "ACTION_TIMEOUT")
    pid = int(touched.read_text())
    next_one = await client.invoke("default/short", timeout=SECONDS)
    assert next_one.result["pid"] != pid
    await dev.until(lambda: not Path(f"/proc/{pid}").exists())


async def test_a_callers_own_deadline(client: Client, dev: Dev, tmp_path: Path) -> None:
    touched = tmp_path / "pid"
    sleep = {"do": "sleep", "touch": str(touched), "seconds": 1}
    call = client.invoke("default/good", sleep, timeout=0.4)
    await refused(call, "DEADLINE_EXCEEDED", "DEADLINE")


async def test_a_full_queue_and_the_maximum_wait(client: Client, tmp_path: Path) -> None:
    """Last: it takes all containers there may be, and gives them back by killing them."""
    await client.put_action("default/crowd", SOURCE)
    touched = [tmp_path / f"{n}" for n in range(CONTAINERS_MAX)]
    running: list[asyncio.Task[Any]] = []

    def start(number: int) -> None:
        sleep = {"do": "sleep", "touch": str(touched[number]), "seconds": 600}
        call = client.invoke("default/crowd", sleep, timeout=SECONDS)
        running.append(asyncio.create_task(call))

    async with asyncio.timeout(SECONDS):
        for number in range(CONTAINERS_MAX):
            start(number)
            while not (touched[number].exists() and touched[number].read_text()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    calls = [client.invoke("default/crowd", timeout=SECONDS) for _ in range(QUEUE_MAX + 3)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    reasons = sorted(answer.reason for answer in answers if isinstance(answer, CallError))
    assert reasons == ["MAX_WAIT"] * QUEUE_MAX + ["QUEUE_FULL"] * 3
    for answer in answers:
        assert isinstance(answer, CallError)
        assert answer.code.name == "RESOURCE_EXHAUSTED"
        assert answer.retry_delay is not None
        assert answer.retry_delay.total_seconds() > 0
    for file in touched:
        os.kill(int(file.read_text()), signal.SIGKILL)
    for call in running:
        await refused(call, "UNAVAILABLE", "CONTAINER_LOST")
    assert (await client.invoke("default/good", timeout=SECONDS)).result
