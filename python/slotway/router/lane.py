"""The async lane of a Router: three threads between the data plane and the store.

The submitter takes all submissions that wait and stores them in one transaction; who comes
meanwhile is in the next one. The dispatcher gets slots, and claims activations for them. The
listener hears when another Router has queued something.

They are threads, not tasks: what they do is to block, in the data plane's waits and in commits.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from datetime import timedelta

import structlog

from slotway.activations import BATCH_MAX, Store, StoreUnavailableError, Submission
from slotway.errors import SlotwayError
from slotway.router.dispatcher import Dispatcher
from slotway.router.plane import LanePlane

_log = structlog.get_logger()

PATIENCE_MS = 500
PAUSE_S = 1.0
"""After the store failed."""
JOIN_S = 40.0
"""Longer than a transaction may take."""


class LateStore:
    """A store that is opened when it is first needed and can be: a Router starts without it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: Store | None = None
        self._lock = threading.Lock()

    def get(self) -> Store:
        """The store. StoreUnavailableError if it cannot be opened now; SlotwayError if never."""
        with self._lock:
            if self._store is None:
                self._store = Store(self._url)
            return self._store

    def close(self) -> None:
        """Closes it."""
        with self._lock:
            if self._store is not None:
                self._store.close()


class Lane:
    """The threads; `start`, then `drain` when the Router stops, then `stop`."""

    def __init__(self, plane: LanePlane, store: LateStore, router: str, target: timedelta) -> None:
        self._plane = plane
        self._store = store
        self._dispatcher = Dispatcher(plane, store.get, router, target)
        self._stops = threading.Event()
        loops = (self._submit, self._dispatcher.run, self._listen)
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in loops]

    def start(self) -> None:
        """Takes submissions from now on, and runs what is queued. SlotwayError if the store's URL
        is bad, or it is one that must not be used."""
        try:
            self._store.get()
        except StoreUnavailableError as error:
            _log.warning("asynchronous invocations are refused for now", why=str(error))
        self._plane.open_submissions(True)
        for thread in self._threads:
            thread.start()

    def drain(self) -> None:
        """Begins no further attempts; those that run come to their end and are recorded."""
        self._dispatcher.drain()

    def stop(self) -> None:
        """Ends the threads, and closes the store; blocks."""
        self._stops.set()
        self._plane.open_submissions(False)
        self._dispatcher.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(JOIN_S)
        self._store.close()

    def _submit(self) -> None:
        while (batch := self._plane.take_submissions(BATCH_MAX, PATIENCE_MS)) is not None:
            if not batch:
                continue
            try:
                ids = self._store.get().submit(
                    [Submission(*one) for one in batch], time.time_ns() // 1_000_000
                )
            except SlotwayError as error:
                delay = error.retry_delay
                retry_ms = -1 if delay is None else round(delay.total_seconds() * 1000)
                self._plane.refuse_submissions(error.reason, str(error), retry_ms)
            except Exception as error:  # whatever it is: without this thread nothing is accepted
                _log.exception("a batch of submissions failed")
                self._plane.refuse_submissions("INTERNAL", str(error), -1)
            else:
                self._plane.acknowledge(ids)
                self._plane.ring()

    def _listen(self) -> None:
        while not self._stops.is_set():
            try:
                with closing(self._store.get().bell()) as bell:
                    self._plane.ring()
                    while not self._stops.is_set():
                        if bell.wait(PATIENCE_MS / 1000):
                            self._plane.ring()
            except StoreUnavailableError:
                self._stops.wait(PAUSE_S)
            except Exception:
                _log.exception("the store is not listened to for a moment")
                self._stops.wait(PAUSE_S)
