"""Runs what is queued: slot first, then claim.

One turn: what has ended is recorded; for the slots that came, activations are claimed and run;
slots without one go back; then the lane is told what is wanted, fairly between namespaces and
actions. Blocking requests go first at the slot table, which gives this lane its small share.

An action whose activations wait longer than the target gets one place among its blocking requests:
that counts as demand, and so makes containers.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from slotway.activations import (
    BATCH_MAX,
    Finish,
    Outcome,
    Status,
    Store,
    StoreUnavailableError,
    Want,
)
from slotway.activations.fair import shares
from slotway.router.plane import Ended, LanePlane
from slotway.v1.router_pb2 import InvokeResponse

_log = structlog.get_logger()

PLACES_MAX = 256
"""Places in the async lane at once, of all actions."""
LOOK_S = 1.0
"""Between two looks at what has become due, or lapsed."""
PURGE_S = 60.0
PAUSE_S = 1.0
"""After the store failed."""
LEASE_GRACE_MS = 5_000
"""Beyond the action's timeout."""
RECORD_AGE_MS = 7 * 86_400_000
RECORDS_MAX = 1_000_000
PREFIX_BYTES = 5
"""Of a gRPC message."""

_DEVELOPERS = ("BAD_ANSWER", "RESULT_TOO_LARGE", "INVALID_PAYLOAD", "INIT_FAILED")
_FINAL = ("INIT_FAILED", "ACTION_NOT_FOUND")
"""Reasons for which there will be no slot, however long one waits."""


class Dispatcher:
    """The loop, for a thread of its own."""

    def __init__(
        self, plane: LanePlane, store: Callable[[], Store], router: str, target: timedelta
    ) -> None:
        """`target`: how long activations may wait until they are demand."""
        self._plane = plane
        self._store = store
        self._router = router
        self._target_ms = target.total_seconds() * 1000
        self._ended: list[Finish] = []
        """Not recorded yet."""
        self._wanted: dict[str, tuple[int, bool]] = {}
        self._draining = threading.Event()
        self._stops = threading.Event()
        self._looked_at = self._purged_at = float("-inf")

    def drain(self) -> None:
        """Begins nothing any more."""
        self._draining.set()
        self._plane.ring()

    def stop(self) -> None:
        """Ends the loop, when it has recorded what has ended."""
        self._draining.set()
        self._stops.set()
        self._plane.ring()

    def run(self) -> None:
        """Until it is stopped."""
        while True:
            stops = self._stops.is_set()
            slots, ended, refused = self._plane.wait_for_lane(0 if stops else int(LOOK_S * 1000))
            self._ended += [self._finish(one) for one in ended]
            try:
                self._turn(slots, refused)
            except StoreUnavailableError as error:
                _log.warning("queued activations wait for the store", why=str(error))
                self._rest()
            except Exception:  # whatever it is: without this thread nothing queued is run
                _log.exception("a turn of the dispatcher failed")
                self._rest()
            if stops:
                return

    def _rest(self) -> None:
        self._plane.run([])  # gives the slots back
        self._want({})
        self._stops.wait(PAUSE_S)

    def _turn(
        self, slots: Sequence[tuple[str, int, int]], refused: Sequence[tuple[str, str, str]]
    ) -> None:
        store = self._store()
        while self._ended:
            batch = self._ended[:BATCH_MAX]
            states = store.finish(batch, _now_ms())
            del self._ended[: len(batch)]
            for one, state in zip(batch, states, strict=True):
                if state is None:
                    _log.warning("an attempt came too late to count", activation=one.id)
        if self._draining.is_set():
            self._plane.run([])
            self._want({})
            return
        if slots:
            self._claim(store, slots)
        for action, reason, message in refused:
            self._wanted.pop(action, None)
            if reason in _FINAL:
                self._refuse(store, action, message)
        self._keep(store)
        self._look(store)

    def _claim(self, store: Store, slots: Sequence[tuple[str, int, int]]) -> None:
        wants, room = [], BATCH_MAX
        for action, count, timeout_ms in slots:
            if count := min(count, room):
                wants.append(Want(action, count, timeout_ms + LEASE_GRACE_MS))
                room -= count
        claims = store.claim(wants, _now_ms())
        without = set(
            self._plane.run([(one.id, one.token, one.action, one.payload) for one in claims])
        )
        why = "the store was slower than a slot may wait"
        self._ended += [Finish(one.id, one.token, why) for one in claims if one.id in without]

    def _refuse(self, store: Store, action: str, message: str) -> None:
        """There is no slot for them and will be none: that is their outcome."""
        now_ms = _now_ms()
        claims = store.claim([Want(action, BATCH_MAX, LEASE_GRACE_MS)], now_ms)
        outcome = Outcome(Status.DEVELOPER_ERROR, _error(message), now_ms, 0, self._router, "")
        self._ended += [Finish(one.id, one.token, outcome) for one in claims]
        if claims:
            self._plane.ring()

    def _keep(self, store: Store) -> None:
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            store.lapse(_now_ms())
        if now - self._purged_at >= PURGE_S:
            purged = store.purge(_now_ms(), RECORD_AGE_MS, RECORDS_MAX)
            if purged < BATCH_MAX:
                self._purged_at = now

    def _look(self, store: Store) -> None:
        now_ms = _now_ms()
        waiting = store.waiting(now_ms, PLACES_MAX)
        places = shares(waiting, PLACES_MAX)
        self._want(
            {
                one.action: (
                    places[one.action],
                    now_ms - one.due_at_ms > self._target_ms * self._lateness(one.action),
                )
                for one in waiting
                if places[one.action]
            }
        )

    def _lateness(self, action: str) -> float:
        """1 to 2, by Router and action: that not all Routers demand a container for the same."""
        digest = hashlib.blake2b(f"{self._router} {action}".encode(), digest_size=1).digest()
        return 1 + digest[0] / 255

    def _want(self, wanted: dict[str, tuple[int, bool]]) -> None:
        for action in self._wanted.keys() - wanted.keys():
            self._plane.want(action, 0, False)
        for action, (count, is_urgent) in wanted.items():
            self._plane.want(action, count, is_urgent)
        self._wanted = wanted

    def _finish(self, ended: Ended) -> Finish:
        id, token, started_at_ms, answer, reason, message = ended
        if answer is None:
            if reason == "ACTION_TIMEOUT":
                status = Status.TIMEOUT
            elif reason in _DEVELOPERS:
                status = Status.DEVELOPER_ERROR
            else:
                return Finish(id, token, f"{reason}: {message}")
            outcome = Outcome(status, _error(message), started_at_ms, 0, self._router, "")
            return Finish(id, token, outcome)
        response = InvokeResponse.FromString(answer[PREFIX_BYTES:])
        failed = response.WhichOneof("outcome") == "application_error"
        return Finish(
            id,
            token,
            Outcome(
                Status.APPLICATION_ERROR if failed else Status.SUCCESS,
                response.application_error.error if failed else response.result,
                started_at_ms,
                response.timing.run.ToMicroseconds(),
                self._router,
                response.container_id,
            ),
        )


def _error(message: str) -> bytes:
    return json.dumps({"error": message}).encode()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
