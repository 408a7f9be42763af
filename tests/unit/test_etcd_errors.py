"""What etcd's statuses are taken to mean: above all, what is not taken for a refusal."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from slotway.etcd.errors import Verdict, judge
from slotway.etcd.model import range_end


@pytest.mark.parametrize(
    ("code", "details", "verdict"),
    [
        (StatusCode.UNAVAILABLE, "etcdserver: no leader", Verdict.ELSEWHERE),
        (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Verdict.ELSEWHERE),
        (StatusCode.UNAVAILABLE, "etcdserver: request timed out", Verdict.UNKNOWN),
        (StatusCode.UNAVAILABLE, "etcdserver: leader changed", Verdict.UNKNOWN),
        (StatusCode.UNAVAILABLE, "Socket closed", Verdict.UNKNOWN),
        (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", Verdict.UNKNOWN),
        (StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger", Verdict.UNKNOWN),
        (StatusCode.UNIMPLEMENTED, "unknown service etcdserverpb.KV", Verdict.UNKNOWN),
        (StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token", Verdict.AUTHENTICATE),
        (
            StatusCode.ABORTED,
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
            Verdict.AUTHENTICATE,
        ),
        (
            StatusCode.INVALID_ARGUMENT,
            "etcdserver: revision of auth store is old",
            Verdict.AUTHENTICATE,
        ),
        (StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", Verdict.REFUSED),
        (
            StatusCode.RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
            Verdict.UNKNOWN,
        ),
        (
            StatusCode.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision has been compacted",
            Verdict.COMPACTED,
        ),
    ],
)
def test_verdicts(code: StatusCode, details: str, verdict: Verdict) -> None:
    assert judge(code, details) is verdict


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a", b"b"), (b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff", b"\0")]
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert range_end(prefix) == end
