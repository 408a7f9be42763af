"""What can go wrong with etcd, and what a gRPC status of etcd's says about it."""

from __future__ import annotations

from enum import Enum, auto

import grpc

from slotway.errors import SlotwayError


class EtcdError(SlotwayError):
    """etcd refused the request; it surely was not applied."""


class EtcdUnavailable(EtcdError):  # noqa: N818
    """No endpoint took it in time: surely not applied. The message names the endpoints."""

    reason = "NO_LEADER"


class OutcomeUnknown(EtcdError):  # noqa: N818
    """A write was sent, but no answer came: it was applied, or not, or it will be applied later."""

    reason = "NO_LEADER"


class Compacted(EtcdError):  # noqa: N818
    """The revision is gone: list anew. `revision` is the oldest left, 0 if not told."""

    def __init__(self, message: str, revision: int = 0):
        super().__init__(message)
        self.revision = revision


class LeaseGone(EtcdError):  # noqa: N818
    """The lease has ended; the request was not applied."""


class WrongCluster(EtcdError):  # noqa: N818
    """Not the etcd that was there before: another cluster id, or its revision went back."""

    reason = "EPOCH_MISMATCH"


class Verdict(Enum):
    """What a failed call means for the request that was sent."""

    REFUSED = auto()
    """Surely not applied, and asking again does not help."""
    COMPACTED = auto()
    """Surely not applied: the revision is gone."""
    AUTHENTICATE = auto()
    """Surely not applied: the token is not valid (any more)."""
    ELSEWHERE = auto()
    """Surely not applied: another endpoint may."""
    UNKNOWN = auto()
    """May have been applied, or may be later."""


_BEFORE_ANYTHING = (
    "etcdserver: no leader",  # asked for by the `hasleader` metadata
    "etcdserver: too many requests",
)
_STALE_TOKENS = (
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
)
_UNDECIDED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


def judge(code: grpc.StatusCode, details: str) -> Verdict:
    """What the status of a failed call says.

    Only a text of etcd's own with a final code is believed. RESOURCE_EXHAUSTED is none: gRPC gives
    it for an answer that is too large, and etcd for a full database, although the request was
    applied.
    """
    details = details.rpartition(" desc = ")[2]  # a watch's reason has the code in its text
    if details in _BEFORE_ANYTHING:
        return Verdict.ELSEWHERE
    if details in _STALE_TOKENS:
        return Verdict.AUTHENTICATE
    if code in _UNDECIDED or not details.startswith("etcdserver: "):
        return Verdict.UNKNOWN
    if details == "etcdserver: mvcc: required revision has been compacted":
        return Verdict.COMPACTED
    return Verdict.REFUSED
