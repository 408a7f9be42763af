"""ActionService: checks what is asked for, stores the code, and has the loop write the record."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

import grpc.aio

from slotway.drivers.base import DriverError, UnfitError
from slotway.errors import SlotwayError
from slotway.manager.inbox import Write
from slotway.status import abort_with, invalid
from slotway.v1 import action_pb2, action_pb2_grpc, ledger_pb2

PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
MAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,255}")
CONCURRENCY_MAX = 1000
TIMEOUT_MS = (100, 600_000)
TIMEOUT_MS_DEFAULT = 60_000
MEMORY_MIB = (64, 4096)
MEMORY_MIB_DEFAULT = 256
CONTAINERS_MIN_MAX = 1000
CONTAINERS_MAX_MAX = 100_000
KEEP_WARM_MS_MAX = 7 * 24 * 3_600_000
CODE_BYTES_MAX = 16 * 1024 * 1024
PARAMETERS_BYTES_MAX = 64 * 1024
PAGE_SIZE_MAX = 1000
PAGE_SIZE_DEFAULT = 100
KINDS = frozenset({"python:3", "blackbox"})
BLACKBOX = "blackbox"
IMAGE = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
WRITES_MAX = 64
"""Writes that wait for a commit at once."""
WRITE_S = 10.0
CHECK_S = 3.0
"""For the engine to say what an image can do."""

_FIELDS = {
    "kind": "action.exec.kind",
    "image": "action.exec.image",
    "capacity": "action.limits.concurrency",
}
"""From what a driver finds unfit to the request's field."""

_Context = grpc.aio.ServicerContext[Any, Any]


class CodeKeeper(Protocol):
    """Where the code is, by its checksum."""

    async def put(self, code: bytes) -> str:
        """Stores it and returns its sha256; what is there already is fine."""

    async def get(self, sha256: str) -> bytes:
        """The code with this checksum."""


class Checker(Protocol):
    """The part of the driver that knows what it can run."""

    async def check(self, kind: str, image: str, capacity: int) -> None:
        """See `drivers.base.Driver`."""


class Leading(Protocol):
    """The actions as the leader has them."""

    def records(self) -> dict[str, ledger_pb2.ActionRecord]:
        """All of them; raises SlotwayError NOT_LEADER or NO_LEADER if another one leads."""

    def trouble(self, name: str) -> action_pb2.Trouble | None:
        """What goes wrong with the action's containers; raises as above."""

    def write(self, write: Write) -> None:
        """Hands a write to the loop; raises as above."""


class Actions(action_pb2_grpc.ActionServiceServicer):
    """The service. `kinds` are the runtimes that there are; `driver` knows what it can run."""

    def __init__(
        self,
        leading: Leading,
        code: CodeKeeper,
        driver: Checker,
        kinds: frozenset[str] = KINDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._leading, self._code, self._kinds, self._now = leading, code, kinds, now
        self._driver = driver
        self._writing = asyncio.Semaphore(WRITES_MAX)

    async def PutAction(  # noqa: N802
        self, request: action_pb2.PutActionRequest, context: _Context
    ) -> action_pb2.PutActionResponse:
        """See the proto."""
        try:
            self._leading.records()
            record = record_of(request, self._kinds)
            await self._check(record)
            if request.HasField("code"):
                record.code_sha256 = await self._code.put(request.code)
                record.code_bytes = len(request.code)
            record.updated_at_ms = int(self._now() * 1000)
            expected = request.expected_revision if request.HasField("expected_revision") else None
            written = await self._write(record.name, record, expected)
        except SlotwayError as exc:
            await abort_with(context, exc)
        return action_pb2.PutActionResponse(action=message_of(written))

    async def GetAction(  # noqa: N802
        self, request: action_pb2.GetActionRequest, context: _Context
    ) -> action_pb2.GetActionResponse:
        """See the proto."""
        try:
            check_name("name", request.name)
            record = self._leading.records().get(request.name)
            if record is None:
                raise SlotwayError(f"no action is named {request.name}", reason="ACTION_NOT_FOUND")
            response = action_pb2.GetActionResponse(
                action=message_of(record), trouble=self._leading.trouble(request.name)
            )
            if request.with_code and record.code_sha256:
                response.code = await self._code.get(record.code_sha256)
        except SlotwayError as exc:
            await abort_with(context, exc)
        return response

    async def ListActions(  # noqa: N802
        self, request: action_pb2.ListActionsRequest, context: _Context
    ) -> action_pb2.ListActionsResponse:
        """See the proto."""
        try:
            size = request.page_size or PAGE_SIZE_DEFAULT
            if size > PAGE_SIZE_MAX:
                raise invalid("page_size", f"must be at most {PAGE_SIZE_MAX}, not {size}")
            after = _read_token(request.page_token)
            records = self._leading.records()
        except SlotwayError as exc:
            await abort_with(context, exc)
        prefix = f"{request.namespace}/" if request.namespace else ""
        names = sorted(name for name in records if name.startswith(prefix) and name > after)
        page, more = names[:size], len(names) > size
        return action_pb2.ListActionsResponse(
            actions=[message_of(records[name]) for name in page],
            next_page_token=_make_token(page[-1]) if more else "",
        )

    async def DeleteAction(  # noqa: N802
        self, request: action_pb2.DeleteActionRequest, context: _Context
    ) -> action_pb2.DeleteActionResponse:
        """See the proto."""
        try:
            check_name("name", request.name)
            expected = request.expected_revision if request.HasField("expected_revision") else None
            await self._write(request.name, None, expected)
        except SlotwayError as exc:
            await abort_with(context, exc)
        return action_pb2.DeleteActionResponse()

    async def _check(self, record: ledger_pb2.ActionRecord) -> None:
        """Refuses what the driver would never run."""
        capacity = 1 if record.concurrent else record.concurrency
        try:
            async with asyncio.timeout(CHECK_S):
                await self._driver.check(record.kind, record.image, capacity)
        except UnfitError as exc:
            raise invalid(_FIELDS[exc.what], str(exc)) from exc
        except (DriverError, TimeoutError) as exc:
            why = f"it did not answer within {CHECK_S:g} s" if not str(exc) else str(exc)
            raise SlotwayError(
                "the engine has to say whether the runtime takes requests side by side, and does"
                f" not: {why}. Try again, or put the action with a concurrency of 1, or with"
                " --concurrent if you know that it can",
                reason="CREATE_FAILED",
                retry_delay=timedelta(seconds=CHECK_S),
            ) from exc

    async def _write(
        self, name: str, record: ledger_pb2.ActionRecord | None, expected: int | None
    ) -> ledger_pb2.ActionRecord:
        done: asyncio.Future[ledger_pb2.ActionRecord] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(WRITE_S), self._writing:
                self._leading.write(Write(name, record, expected, done))
                return await done
        except TimeoutError:
            raise SlotwayError(
                f"etcd did not take the write within {WRITE_S:.0f} s; it may yet be done",
                reason="NO_LEADER",
            ) from None


def check_name(field: str, name: str) -> None:
    """Raises INVALID_FIELD unless the name is "namespace/name"."""
    parts = name.split("/")
    if len(parts) != 2 or not all(PART.fullmatch(part) for part in parts):
        raise invalid(
            field, f'must be "namespace/name", each part matching {PART.pattern}, not {name!r:.200}'
        )


def record_of(
    request: action_pb2.PutActionRequest, kinds: frozenset[str]
) -> ledger_pb2.ActionRecord:
    """The record that the request asks for, without revision and code; raises INVALID_FIELD."""
    action = request.action
    check_name("action.name", action.name)
    if action.exec.kind not in kinds:
        known = ", ".join(sorted(kinds))
        raise invalid("action.exec.kind", f"must be one of {known}, not {action.exec.kind!r:.100}")
    if (action.exec.kind == BLACKBOX) != bool(action.exec.image):
        raise invalid("action.exec.image", f"belongs to the kind {BLACKBOX}, and it needs one")
    if action.exec.image and not IMAGE.fullmatch(action.exec.image):
        raise invalid("action.exec.image", f"must match {IMAGE.pattern}")
    if action.exec.main and not MAIN.fullmatch(action.exec.main):
        raise invalid("action.exec.main", f"must match {MAIN.pattern}")
    if request.HasField("code"):
        _check_code(request.code, binary=action.exec.binary)
    limits = action.limits
    concurrency = limits.concurrency if limits.HasField("concurrency") else 1
    _check_range("action.limits.concurrency", concurrency, 1, CONCURRENCY_MAX, "")
    timeout_ms = TIMEOUT_MS_DEFAULT
    if limits.HasField("timeout"):
        timeout_ms = limits.timeout.seconds * 1000 + limits.timeout.nanos // 1_000_000
        _check_range("action.limits.timeout", timeout_ms, *TIMEOUT_MS, " ms")
    memory_mib = limits.memory_mib if limits.HasField("memory_mib") else MEMORY_MIB_DEFAULT
    _check_range("action.limits.memory_mib", memory_mib, *MEMORY_MIB, " MiB")
    record = ledger_pb2.ActionRecord(
        name=action.name,
        kind=action.exec.kind,
        main=action.exec.main,
        binary=action.exec.binary,
        concurrency=concurrency,
        timeout_ms=timeout_ms,
        memory_mib=memory_mib,
        parameters=_parameters(action.parameters),
        image=action.exec.image,
        concurrent=action.exec.concurrent,
        network=action.network,
    )
    _set_numbers(record, limits)
    return record


def _set_numbers(record: ledger_pb2.ActionRecord, limits: action_pb2.Limits) -> None:
    """How many containers there may be, and how long they are kept."""
    at_least, at_most = limits.containers_min, limits.containers_max
    _check_range("action.limits.containers_min", at_least, 0, CONTAINERS_MIN_MAX, "")
    if limits.HasField("containers_max"):
        _check_range("action.limits.containers_max", at_most, 1, CONTAINERS_MAX_MAX, "")
        if at_least > at_most:
            raise invalid(
                "action.limits.containers_min",
                f"must not be above containers_max, {at_most}, but is {at_least}",
            )
    record.containers_min, record.containers_max = at_least, at_most
    if limits.HasField("keep_warm"):
        kept = limits.keep_warm
        keep_warm_ms = kept.seconds * 1000 + kept.nanos // 1_000_000
        _check_range("action.limits.keep_warm", keep_warm_ms, 0, KEEP_WARM_MS_MAX, " ms")
        record.keep_warm_ms = keep_warm_ms


def _check_range(field: str, value: int, low: int, high: int, unit: str) -> None:
    if not low <= value <= high:
        raise invalid(field, f"must be between {low} and {high}{unit}, not {value}")


def _check_code(code: bytes, *, binary: bool) -> None:
    if not code:
        raise invalid("code", "must not be empty")
    if len(code) > CODE_BYTES_MAX:
        raise SlotwayError(
            f"code: has {len(code)} bytes, at most {CODE_BYTES_MAX} are allowed",
            reason="REQUEST_TOO_LARGE",
            metadata={"limit_bytes": str(CODE_BYTES_MAX)},
        )
    if not binary:
        try:
            code.decode()
        except UnicodeDecodeError as exc:
            raise invalid("code", f"is not UTF-8 ({exc}); for an archive set exec.binary") from exc


def _parameters(given: bytes) -> str:
    if not given:
        return ""
    if len(given) > PARAMETERS_BYTES_MAX:
        raise invalid("action.parameters", f"must have at most {PARAMETERS_BYTES_MAX} bytes")
    try:
        parsed = json.loads(given)
        text = json.dumps(parsed, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as exc:
        raise invalid("action.parameters", f"must be a JSON object: {exc}") from exc
    if not isinstance(parsed, dict):
        raise invalid("action.parameters", "must be a JSON object")
    return text if parsed else ""


def message_of(record: ledger_pb2.ActionRecord) -> action_pb2.Action:
    """The action as callers see it."""
    action = action_pb2.Action(
        name=record.name,
        revision=record.revision,
        exec=action_pb2.Exec(
            kind=record.kind,
            main=record.main,
            binary=record.binary,
            code_sha256=record.code_sha256,
            code_bytes=record.code_bytes,
            image=record.image,
            concurrent=record.concurrent,
        ),
        limits=action_pb2.Limits(
            concurrency=record.concurrency,
            memory_mib=record.memory_mib,
            containers_min=record.containers_min,
            containers_max=record.containers_max or None,
        ),
        parameters=record.parameters.encode(),
        network=record.network,
    )
    action.limits.timeout.FromMilliseconds(record.timeout_ms)
    if record.HasField("keep_warm_ms"):
        action.limits.keep_warm.FromMilliseconds(record.keep_warm_ms)
    action.updated_at.FromMilliseconds(record.updated_at_ms)
    return action


def _make_token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _read_token(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as exc:
        raise invalid("page_token", "is not one that ListActions returned") from exc
