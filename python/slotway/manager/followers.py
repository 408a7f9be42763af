"""The standbys that follow this Manager while it leads (StandbyService, the leader's side).

The leader's loop beats; a stream carries the newest beat only, so a standby that reads slowly costs
nothing. What a standby says of itself is for handing over to it, and for people.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
from google.protobuf import duration_pb2

from slotway.manager.chain import Term
from slotway.v1 import cluster_pb2, manager_pb2, standby_pb2, standby_pb2_grpc

FOLLOWERS_MAX = 64
FRESH_S = 0.5
"""A standby that was not heard for so long is not handed over to."""


class Follower:
    """One standby's stream."""

    def __init__(self) -> None:
        self.said = standby_pb2.FollowRequest()
        """What it said last."""
        self.heard_at = 0.0
        self.lag = 0
        self.over = False
        self.beat: standby_pb2.FollowResponse | None = None
        """The newest one, if it was not sent yet."""
        self.filled = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether it has the ledger, and a lease for the leader key."""
        return bool(self.said.revision and self.said.lease)


class Followers(standby_pb2_grpc.StandbyServiceServicer):
    """The service; `newest` gives the revision of this leader's newest commit."""

    def __init__(self, newest: Callable[[], int]) -> None:
        self._newest = newest
        self._open: dict[Follower, None] = {}

    def beat(self, term: Term, turn: int, commit_s: float = 0.0) -> None:
        """The loop turns; its commit has been under way for so long."""
        if not self._open:
            return
        message = standby_pb2.FollowResponse(
            term=manager_pb2.Term(epoch=term[0], revision=term[1]), turn=turn
        )
        if commit_s:
            age = duration_pb2.Duration()
            age.FromMilliseconds(max(1, int(commit_s * 1000)))
            message.commit_age.CopyFrom(age)
        for follower in self._open:
            follower.beat = message
            follower.filled.set()

    def heir(self) -> standby_pb2.FollowRequest | None:
        """The standby to hand over to: ready, heard of late, and the furthest on."""
        now = asyncio.get_running_loop().time()
        ready = [one for one in self._open if one.ready and now - one.heard_at < FRESH_S]
        return max(ready, key=lambda one: one.said.revision).said if ready else None

    def statuses(self) -> list[cluster_pb2.StandbyStatus]:
        """The standbys, by id."""
        return [
            cluster_pb2.StandbyStatus(
                manager=one.said.manager,
                incarnation=one.said.incarnation,
                address=one.said.address,
                revision=one.said.revision,
                lag=one.lag,
                ready=one.ready,
            )
            for one in sorted(self._open, key=lambda one: one.said.manager)
            if one.heard_at
        ]

    def close(self) -> None:
        """Ends all streams: the server stops."""
        for follower in self._open:
            follower.over = True
            follower.filled.set()

    async def Follow(  # noqa: N802
        self,
        requests: AsyncIterator[standby_pb2.FollowRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[standby_pb2.FollowResponse]:
        """See the proto."""
        if len(self._open) >= FOLLOWERS_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many standbys follow")
        follower = Follower()
        self._open[follower] = None
        reader = asyncio.create_task(self._read(follower, requests), name="follow-reader")
        try:
            while not follower.over:
                await follower.filled.wait()
                follower.filled.clear()
                beat, follower.beat = follower.beat, None
                if beat is not None:
                    yield beat
        finally:
            reader.cancel()
            self._open.pop(follower, None)

    async def _read(
        self, follower: Follower, requests: AsyncIterator[standby_pb2.FollowRequest]
    ) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError):
            async for said in requests:
                follower.said = said
                follower.heard_at = asyncio.get_running_loop().time()
                follower.lag = max(0, self._newest() - said.revision)
        follower.over = True
        follower.filled.set()
