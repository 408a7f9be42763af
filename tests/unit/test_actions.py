"""ActionService: what it refuses, names the field; what it takes, reaches the loop."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from slotway.drivers.base import DriverError, UnfitError
from slotway.errors import SlotwayError
from slotway.manager import actions as service
from slotway.manager.actions import Actions, message_of, record_of
from slotway.manager.inbox import Write
from slotway.status import CallError, from_rpc_error
from slotway.v1 import action_pb2 as pb
from slotway.v1 import action_pb2_grpc, ledger_pb2

KINDS = frozenset({"python:3", "blackbox"})


def request(
    change: Callable[[pb.PutActionRequest], object] = lambda _: None,
) -> pb.PutActionRequest:
    put = pb.PutActionRequest(
        action=pb.Action(name="demo/hello", exec=pb.Exec(kind="python:3")), code=b"x = 1"
    )
    change(put)
    return put


def refused(change: Callable[[pb.PutActionRequest], object]) -> SlotwayError:
    with pytest.raises(SlotwayError) as caught:
        record_of(request(change), KINDS)
    return caught.value


@pytest.mark.parametrize(
    "name",
    ["", "hello", "a/b/c", "/b", "a/", "a b/c", "-a/b", ".a/b", "a/b\n", "ä/b", "a/" + "b" * 65],
)
def test_names_out_of_pattern(name: str) -> None:
    error = refused(lambda put: setattr(put.action, "name", name))
    assert error.metadata == {"field": "action.name"}


@pytest.mark.parametrize("name", ["a/b", "_/x", "A1/b@2.0-rc", "a/" + "b" * 64])
def test_names_in_pattern(name: str) -> None:
    put = request(lambda put: setattr(put.action, "name", name))
    assert record_of(put, KINDS).name == name


@pytest.mark.parametrize("concurrency", [1001, 4_000_000_000])
def test_concurrency_out_of_range(concurrency: int) -> None:
    error = refused(lambda put: setattr(put.action.limits, "concurrency", concurrency))
    assert error.metadata == {"field": "action.limits.concurrency"}
    assert "between 1 and 1000" in str(error)


@pytest.mark.parametrize("timeout_ms", [0, 99, 600_001, -1])
def test_timeout_out_of_range(timeout_ms: int) -> None:
    error = refused(lambda put: put.action.limits.timeout.FromMilliseconds(timeout_ms))
    assert error.metadata == {"field": "action.limits.timeout"}


@pytest.mark.parametrize("memory_mib", [1, 63, 4097])
def test_memory_out_of_range(memory_mib: int) -> None:
    error = refused(lambda put: setattr(put.action.limits, "memory_mib", memory_mib))
    assert error.metadata == {"field": "action.limits.memory_mib"}


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (pb.Limits(containers_min=1001), "containers_min"),
        (pb.Limits(containers_min=3, containers_max=2), "containers_min"),
        (pb.Limits(containers_max=0), "containers_max"),
        (pb.Limits(containers_max=100_001), "containers_max"),
        (pb.Limits(keep_warm=Duration(seconds=-1)), "keep_warm"),
        (pb.Limits(keep_warm=Duration(seconds=7 * 86_400, nanos=1_000_000)), "keep_warm"),
    ],
)
def test_numbers_of_containers_out_of_range(limits: pb.Limits, field: str) -> None:
    error = refused(lambda put: put.action.limits.MergeFrom(limits))
    assert (error.reason, error.metadata) == ("INVALID_FIELD", {"field": f"action.limits.{field}"})


@pytest.mark.parametrize(
    "limits",
    [
        pb.Limits(containers_min=0, keep_warm=Duration(seconds=7 * 86_400)),
        pb.Limits(containers_min=1000, containers_max=1000, keep_warm=Duration()),
        pb.Limits(containers_min=1, containers_max=100_000, keep_warm=Duration(nanos=500_000_000)),
    ],
)
def test_numbers_of_containers_come_back_as_they_were_given(limits: pb.Limits) -> None:
    shown = message_of(record_of(request(lambda put: put.action.limits.CopyFrom(limits)), KINDS))
    for name in ("containers_min", "containers_max", "keep_warm"):
        assert shown.limits.HasField(name) == limits.HasField(name)
        assert getattr(shown.limits, name) == getattr(limits, name)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda put: setattr(put.action.exec, "kind", "cobol:7"), "action.exec.kind"),
        (lambda put: setattr(put.action.exec, "main", "a; b"), "action.exec.main"),
        (lambda put: setattr(put, "code", b""), "code"),
        (lambda put: setattr(put, "code", b"\xff\xfe"), "code"),
        (lambda put: setattr(put.action, "parameters", b"[1]"), "action.parameters"),
        (lambda put: setattr(put.action, "parameters", b'{"a":1'), "action.parameters"),
        (lambda put: setattr(put.action, "parameters", b'{"a":NaN}'), "action.parameters"),
        (lambda put: setattr(put.action, "parameters", b"[" * 20_000), "action.parameters"),
    ],
)
def test_other_fields(change: Callable[[pb.PutActionRequest], object], field: str) -> None:
    error = refused(change)
    assert (error.reason, error.metadata) == ("INVALID_FIELD", {"field": field})


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("blackbox", ""),
        ("python:3", "team/model:4"),
        ("blackbox", "../containers/x"),
        ("blackbox", "a/../../x"),
        ("blackbox", "a b"),
        ("blackbox", "-a"),
        ("blackbox", "a//b"),
        ("blackbox", "a?b"),
        ("blackbox", "a" * 256),
    ],
)
def test_images_that_are_none(kind: str, image: str) -> None:
    error = refused(lambda put: put.action.exec.MergeFrom(pb.Exec(kind=kind, image=image)))
    assert error.metadata == {"field": "action.exec.image"}


@pytest.mark.parametrize(
    "image", ["model", "registry.example:5000/team/model:4.1_x", f"model@sha256:{'a' * 64}"]
)
def test_images_are_kept(image: str) -> None:
    chosen = pb.Exec(kind="blackbox", image=image, concurrent=True)
    record = record_of(request(lambda put: put.action.exec.CopyFrom(chosen)), KINDS)
    shown = message_of(record).exec
    assert (shown.kind, shown.image, shown.concurrent) == ("blackbox", image, True)


@pytest.mark.parametrize("network", [False, True])
def test_the_network_is_kept(network: bool) -> None:
    put = request(lambda put: setattr(put.action, "network", network))
    assert message_of(record_of(put, KINDS)).network is network


def test_code_over_the_limit() -> None:
    error = refused(lambda put: setattr(put, "code", b"#" * (16 * 1024 * 1024 + 1)))
    assert error.reason == "REQUEST_TOO_LARGE"
    assert error.metadata == {"limit_bytes": str(16 * 1024 * 1024)}


def test_defaults_and_canonical_parameters() -> None:
    record = record_of(request(), KINDS)
    assert (record.concurrency, record.timeout_ms, record.memory_mib) == (1, 60_000, 256)
    assert record.parameters == ""
    put = request(lambda put: setattr(put.action, "parameters", b' { "a" : [ 1 , "\\u00e4" ] } '))
    assert json.loads(record_of(put, KINDS).parameters) == {"a": [1, "ä"]}


class Leader:
    """Stands for the loop: takes writes at once."""

    def __init__(self) -> None:
        self.known: dict[str, ledger_pb2.ActionRecord] = {}
        self.error: SlotwayError | None = None
        self.writes: list[Write] = []
        self.troubles: dict[str, pb.Trouble] = {}

    def records(self) -> dict[str, ledger_pb2.ActionRecord]:
        if self.error is not None:
            raise self.error
        return self.known

    def trouble(self, name: str) -> pb.Trouble | None:
        return self.troubles.get(name)

    def write(self, write: Write) -> None:
        if self.error is not None:
            raise self.error
        self.writes.append(write)
        record = write.record or self.known.pop(write.name)
        record.revision = len(self.writes)
        if write.record is not None:
            self.known[write.name] = record
        write.done.set_result(record)


class Codes:
    def __init__(self) -> None:
        self.codes: dict[str, bytes] = {}

    async def put(self, code: bytes) -> str:
        name = hashlib.sha256(code).hexdigest()
        self.codes[name] = code
        return name

    async def get(self, sha256: str) -> bytes:
        return self.codes[sha256]


class Driver:
    """Knows what it can run, and what it was asked."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.silent = False
        self.asked: list[tuple[str, str, int]] = []

    async def check(self, kind: str, image: str, capacity: int) -> None:
        self.asked.append((kind, image, capacity))
        if self.silent:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def leader() -> Leader:
    return Leader()


@pytest.fixture
async def stub(
    leader: Leader, driver: Driver
) -> AsyncIterator[action_pb2_grpc.ActionServiceAsyncStub]:
    server = grpc.aio.server()
    action_pb2_grpc.add_ActionServiceServicer_to_server(Actions(leader, Codes(), driver), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield action_pb2_grpc.ActionServiceStub(channel)
    await server.stop(0)


async def error_of(call: Awaitable[object]) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_put_then_get_with_code(
    stub: action_pb2_grpc.ActionServiceAsyncStub, leader: Leader
) -> None:
    put = (await stub.PutAction(request(), timeout=10)).action
    assert put.exec.code_sha256 == hashlib.sha256(b"x = 1").hexdigest()
    assert (put.exec.code_bytes, put.revision) == (5, 1)
    answer = await stub.GetAction(
        pb.GetActionRequest(name="demo/hello", with_code=True), timeout=10
    )
    assert (answer.action, answer.code) == (put, b"x = 1")
    assert leader.writes[0].expected_revision is None
    await stub.PutAction(request(lambda put: setattr(put, "expected_revision", 0)), timeout=10)
    assert leader.writes[1].expected_revision == 0


@pytest.mark.parametrize(
    ("what", "field"),
    [
        ("kind", "action.exec.kind"),
        ("image", "action.exec.image"),
        ("capacity", "action.limits.concurrency"),
    ],
)
async def test_what_the_driver_never_runs_is_refused(
    stub: action_pb2_grpc.ActionServiceAsyncStub,
    leader: Leader,
    driver: Driver,
    what: str,
    field: str,
) -> None:
    driver.error = UnfitError(what, "not here: do this")
    error = await error_of(stub.PutAction(request(), timeout=10))
    assert (error.reason, error.metadata) == ("INVALID_FIELD", {"field": field})
    assert str(error) == f"{field}: not here: do this"
    assert leader.writes == []


async def test_who_insists_is_not_asked_for_the_capacity(
    stub: action_pb2_grpc.ActionServiceAsyncStub, driver: Driver
) -> None:
    chosen = pb.Exec(kind="blackbox", image="model")
    for chosen.concurrent in (False, True):
        put = request(lambda put: put.action.exec.CopyFrom(chosen))
        put.action.limits.concurrency = 5
        await stub.PutAction(put, timeout=10)
    assert driver.asked == [("blackbox", "model", 5), ("blackbox", "model", 1)]


@pytest.mark.parametrize("silent", [True, False])
async def test_an_engine_without_an_answer_does_not_hold_up_a_put(
    stub: action_pb2_grpc.ActionServiceAsyncStub,
    leader: Leader,
    driver: Driver,
    silent: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "CHECK_S", 0.1)
    driver.silent, driver.error = silent, DriverError("Docker did not answer within 10 s")
    error = await error_of(stub.PutAction(request(), timeout=10))
    assert (error.reason, error.code) == ("CREATE_FAILED", grpc.StatusCode.UNAVAILABLE)
    assert "did not answer within" in str(error)
    assert "with a concurrency of 1" in str(error)
    assert error.retry_delay is not None
    assert leader.writes == []


async def test_unknown_and_bad_names(stub: action_pb2_grpc.ActionServiceAsyncStub) -> None:
    missing = await error_of(stub.GetAction(pb.GetActionRequest(name="demo/none"), timeout=10))
    assert (missing.reason, missing.code) == ("ACTION_NOT_FOUND", grpc.StatusCode.NOT_FOUND)
    bad = await error_of(stub.GetAction(pb.GetActionRequest(name="none"), timeout=10))
    assert (bad.code, bad.metadata) == (grpc.StatusCode.INVALID_ARGUMENT, {"field": "name"})
    bad = await error_of(stub.DeleteAction(pb.DeleteActionRequest(name="none"), timeout=10))
    assert bad.metadata == {"field": "name"}


async def test_pages_are_complete_and_in_order(
    stub: action_pb2_grpc.ActionServiceAsyncStub, leader: Leader
) -> None:
    names = [f"{space}/{i:02}" for space in ("a", "b") for i in range(7)]
    for name in names:
        leader.known[name] = ledger_pb2.ActionRecord(name=name)
    for namespace, expected in (("", names), ("b", names[7:]), ("c", [])):
        seen: list[str] = []
        token = ""
        while True:
            page = await stub.ListActions(
                pb.ListActionsRequest(namespace=namespace, page_size=3, page_token=token),
                timeout=10,
            )
            assert len(page.actions) <= 3
            seen += [action.name for action in page.actions]
            token = page.next_page_token
            if not token:
                break
        assert seen == expected


async def test_bad_pages(stub: action_pb2_grpc.ActionServiceAsyncStub) -> None:
    error = await error_of(stub.ListActions(pb.ListActionsRequest(page_size=1001), timeout=10))
    assert error.metadata == {"field": "page_size"}
    error = await error_of(stub.ListActions(pb.ListActionsRequest(page_token="?"), timeout=10))
    assert error.metadata == {"field": "page_token"}


async def test_a_standby_names_the_leader(
    stub: action_pb2_grpc.ActionServiceAsyncStub, leader: Leader
) -> None:
    leader.error = SlotwayError("a standby", reason="NOT_LEADER", metadata={"leader": "h:1"})
    for call in (
        stub.PutAction(request(), timeout=10),
        stub.GetAction(pb.GetActionRequest(name="a/b"), timeout=10),
        stub.ListActions(pb.ListActionsRequest(), timeout=10),
        stub.DeleteAction(pb.DeleteActionRequest(name="a/b"), timeout=10),
    ):
        error = await error_of(call)
        assert (error.reason, error.metadata) == ("NOT_LEADER", {"leader": "h:1"})
