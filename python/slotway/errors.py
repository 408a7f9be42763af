"""Slotway's errors: one root, and a class only where a caller acts differently."""

from __future__ import annotations

from datetime import timedelta


class SlotwayError(Exception):
    """The root of all errors that this package raises on purpose.

    `reason` is a name of `ErrorReason` without its prefix, as in `google.rpc.ErrorInfo.reason`.
    `retry_delay` says when it may be worth to come again; None: not by waiting.
    """

    reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: dict[str, str] | None = None,
        retry_delay: timedelta | None = None,
    ):
        super().__init__(message)
        if reason is not None:
            self.reason = reason
        self.metadata = metadata or {}
        self.retry_delay = retry_delay
