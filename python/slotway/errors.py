"""Slotway's errors: one root, and a class only where a caller acts differently."""

from __future__ import annotations


class SlotwayError(Exception):
    """The root of all errors that this package raises on purpose.

    `reason` is a name of `ErrorReason` without its prefix, as in `google.rpc.ErrorInfo.reason`.
    """

    reason = "INTERNAL"

    def __init__(
        self, message: str, *, reason: str | None = None, metadata: dict[str, str] | None = None
    ):
        super().__init__(message)
        if reason is not None:
            self.reason = reason
        self.metadata = metadata or {}
