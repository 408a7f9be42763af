"""One action as the leader knows it, and what is known of its failures to start."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import timedelta

from slotway.drivers.base import EndedLoadingError
from slotway.errors import SlotwayError
from slotway.v1 import action_pb2, ledger_pb2

BACK_OFF_S = 0.5
BACK_OFF_S_MAX = 30.0
FAILURES_TOLD = 3
"""So many failed creations in a row are told to the waiting requests; a failed init is at once."""
ENDS_TOLD = 2
"""A container that ends while it loads may have been killed; with the next one it is the code."""
SHORT_S = 5.0
"""A container that crashes after less than this crashes for a reason that the next one has, too."""
CRASH_PAUSE_S_MAX = 10.0
"""Requests may be at fault: those that are not shall not wait for long."""
TROUBLE_S = 60.0
"""A row of crashes is told of for so long after the newest one."""


@dataclass(slots=True, eq=False)
class Action:
    """`record` as it is on the ledger, `mod_revision` of its key."""

    record: ledger_pb2.ActionRecord
    mod_revision: int
    failures: int = 0
    """In a row, of containers that did not come to serve."""
    error: SlotwayError | None = None
    """The newest of them."""
    failed_at: float = -math.inf
    not_before: float = 0.0
    """No container is created before this; the loop's seconds."""
    admitted_at: float = 0.0
    """When one was created last."""
    crashes: int = 0
    """In a row, of containers that crashed soon after they had come to serve."""
    crash: SlotwayError | None = None
    """The newest of them."""
    crashed_at: float = -math.inf
    crash_pause_until: float = 0.0
    """No container is created before this, either."""

    def failed(self, error: SlotwayError, now: float) -> None:
        """Backs off, longer each time. Failures of containers that were begun before are one."""
        self.error, self.failed_at = error, now
        if now >= self.not_before:
            self.failures += 1
            pause = min(BACK_OFF_S_MAX, BACK_OFF_S * 2.0 ** (self.failures - 1))
            self.not_before = now + pause * random.uniform(0.8, 1.2)

    def crashed(self, error: SlotwayError, served_s: float, now: float) -> None:
        """A container ended by itself; `served_s` is for how long it had served, or another one
        that still does. The first one is replaced at once; if its successors crash as soon, each is
        longer in coming."""
        since, self.crashed_at, self.crash = self.crashed_at, now, error
        if now < self.crash_pause_until:
            return  # it was begun before the pause
        if served_s >= SHORT_S or now - max(since, self.crash_pause_until) >= SHORT_S:
            self.crashes = 0
        self.crashes += 1
        if self.crashes > 1:
            pause = min(CRASH_PAUSE_S_MAX, BACK_OFF_S * 2.0 ** (self.crashes - 2))
            self.crash_pause_until = now + pause * random.uniform(0.8, 1.2)

    def trouble(self, now: float) -> action_pb2.Trouble | None:
        """What there is to be told of failures; None: nothing that still matters."""
        crashes = self.crashes if now - self.crashed_at < TROUBLE_S else 0
        if not (self.failures or crashes):
            return None
        crashed = crashes and (self.crashed_at > self.failed_at or not self.failures)
        at, error = (self.crashed_at, self.crash) if crashed else (self.failed_at, self.error)
        trouble = action_pb2.Trouble(failures=self.failures + crashes, reason=str(error))
        trouble.age.FromMilliseconds(int((now - at) * 1000))
        if (until := self.pause_until(now)) is not None:
            trouble.pause.FromMilliseconds(int((until - now) * 1000))
        return trouble

    def pause_until(self, now: float) -> float | None:
        """Until when no container is created; None: it may be now."""
        until = max(self.not_before, self.crash_pause_until)
        return until if until > now else None

    def served(self) -> None:
        """A container came to serve: all is well."""
        self.failures, self.error, self.not_before = 0, None, 0.0

    def refusal(self, now: float, *, serving: bool = False) -> SlotwayError | None:
        """Why waiting requests are to be refused now; None: they may wait. `serving`: there is a
        container that serves."""
        pause_s = self.crash_pause_until - now
        if self.crashes >= FAILURES_TOLD and pause_s > 0 and not serving:
            return SlotwayError(
                f"its containers crash soon after they come to serve: {self.crash}",
                reason="CREATE_FAILED",
                retry_delay=timedelta(seconds=pause_s),
            )
        if self.error is None or now >= self.not_before:
            return None
        if isinstance(self.error, EndedLoadingError) and self.failures < ENDS_TOLD:
            return None
        if self.error.reason == "INIT_FAILED":
            return self.error
        if self.failures < FAILURES_TOLD:
            return None
        pause = timedelta(seconds=self.not_before - now)
        return SlotwayError(str(self.error), reason="CREATE_FAILED", retry_delay=pause)
