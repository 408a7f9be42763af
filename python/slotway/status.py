"""Slotway's errors as gRPC statuses, and back: the one table from reason to status code.

A status carries a `google.rpc.ErrorInfo` (domain "slotway"), and a `RetryInfo` where waiting helps.
A caller decides by the reason, never by the message.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from slotway.errors import SlotwayError

DOMAIN = "slotway"

OUT_OF_TIME = "no outcome within the caller's timeout; code that has started runs on"

_DETAILS_KEY = "grpc-status-details-bin"
_HALF_BYTES_MAX = 3_000
"""Of half a message in the trailers, where it stands twice, once percent-encoded: from 8 KiB on
gRPC refuses some of them, and a traceback may be any length."""

CODES: dict[str, grpc.StatusCode] = {
    "ACTION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_PAYLOAD": grpc.StatusCode.INVALID_ARGUMENT,
    "REQUEST_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "RESULT_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "INIT_FAILED": grpc.StatusCode.FAILED_PRECONDITION,
    "CONTAINER_LOST": grpc.StatusCode.UNAVAILABLE,
    "BAD_ANSWER": grpc.StatusCode.UNAVAILABLE,
    "ACTION_TIMEOUT": grpc.StatusCode.DEADLINE_EXCEEDED,
    "DEADLINE": grpc.StatusCode.DEADLINE_EXCEEDED,
    "QUEUE_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "MAX_WAIT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "NO_LEADER": grpc.StatusCode.UNAVAILABLE,
    "NOT_LEADER": grpc.StatusCode.FAILED_PRECONDITION,
    "REVISION_CONFLICT": grpc.StatusCode.ABORTED,
    "STOPPING": grpc.StatusCode.UNAVAILABLE,
    "NOT_HERE": grpc.StatusCode.UNAVAILABLE,
    "PROTOCOL_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "CLUSTER_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "CREATE_FAILED": grpc.StatusCode.UNAVAILABLE,
    "EPOCH_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "NAME_TAKEN": grpc.StatusCode.ALREADY_EXISTS,
    "INTERNAL": grpc.StatusCode.INTERNAL,
    "UNSUPPORTED": grpc.StatusCode.UNIMPLEMENTED,
    "STORE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "ACTIVATION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "STORE_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Every reason of `ErrorReason`; a test compares the two."""


class CallError(SlotwayError):
    """What a call was answered with.

    `reason` is empty if the answer carried none (for instance, the connection failed):
    `code` then tells more.
    """

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode,
        *,
        reason: str = "",
        metadata: dict[str, str] | None = None,
        retry_delay: timedelta | None = None,
    ):
        super().__init__(message, reason=reason, metadata=metadata, retry_delay=retry_delay)
        self.code = code


def invalid(field: str, message: str) -> SlotwayError:
    """The error for a field out of its range or pattern; the message begins with the field."""
    return SlotwayError(f"{field}: {message}", reason="INVALID_FIELD", metadata={"field": field})


def to_status(error: SlotwayError) -> grpc.Status:
    """The status, with its details in the trailers, to end a call with."""
    message = _fitting(str(error))
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if error.retry_delay is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(error.retry_delay)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    code = CODES.get(error.reason, grpc.StatusCode.UNKNOWN)
    if isinstance(error, CallError):
        code = error.code
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    number: int = code.value[0]
    status: grpc.Status = rpc_status.to_status(
        status_pb2.Status(code=number, message=message, details=packed)
    )
    return status


def _fitting(message: str) -> str:
    """The message, or its beginning and its end if it is too long."""
    if sum(map(_cost, message)) <= 2 * _HALF_BYTES_MAX:
        return message
    return f"{_within(message)}\n…\n{_within(message[::-1])[::-1]}"


def _within(text: str) -> str:
    left = _HALF_BYTES_MAX
    for position, character in enumerate(text):
        left -= _cost(character)
        if left < 0:
            return text[:position]
    return text


def _cost(character: str) -> int:
    """Its bytes as they are, and percent-encoded."""
    length = len(character.encode("utf-8", "replace"))
    plain = " " <= character <= "~" and character != "%"
    return length + (1 if plain else 3 * length)


async def abort_with(context: grpc.aio.ServicerContext[Any, Any], error: SlotwayError) -> NoReturn:
    """Ends the call of a grpc.aio servicer with the error."""
    await context.abort_with_status(to_status(error))
    raise AssertionError("abort returned")


def from_rpc_error(error: grpc.RpcError) -> CallError:
    """The error that a server of ours (or gRPC itself) answered a call with, sync or asyncio."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    message, code = error.details() or str(error.code().name), error.code()
    result = CallError(message, code)
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            _read_details(result, value)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not result.reason:
        # The caller's own clock ran out just before the server's answer: the same thing.
        return CallError(OUT_OF_TIME, code, reason="DEADLINE")
    return result


def _read_details(result: CallError, value: bytes) -> None:
    for wrapped in status_pb2.Status.FromString(value).details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if wrapped.Unpack(info) and info.domain == DOMAIN:
            result.reason, result.metadata = info.reason, dict(info.metadata)
        elif wrapped.Unpack(retry):
            result.retry_delay = retry.retry_delay.ToTimedelta()
