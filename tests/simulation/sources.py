"""What a process takes from outside, replaced for the length of a simulation.

Time is the loop's; gRPC is the simulated network's; every source of randomness is one generator of
the seed. Whatever product code is added later is in the simulation's hands by itself, because the
sources are replaced where they are, and not where they are used.
"""

from __future__ import annotations

import contextlib
import gc
import random
import sys
from collections import Counter
from collections.abc import Iterator, MutableMapping
from typing import Any
from unittest import mock

import structlog

from tests.simulation.channel import Channel
from tests.simulation.loop import NODE, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.server import Server

EPOCH_S = 1_800_000_000.0
"""The wall clock when a simulation begins."""

EXPECTED = {"the loop does not turn"}
"""Errors that faults are to cause: a leader is paused, or its etcd does not answer."""


class Log:
    """Counts what the product logs, and keeps what should never be logged."""

    def __init__(self, loop: VirtualLoop, show: bool) -> None:
        self.count: Counter[str] = Counter()
        self.errors: list[str] = []
        self._loop, self._show = loop, show
        self._muted = False

    def mute(self) -> None:
        """The simulation is over: what is said now is said by what is dropped."""
        self._muted = True

    def __call__(self, logger: Any, method: str, line: MutableMapping[str, Any]) -> Any:
        """A processor of structlog's: the last one."""
        if self._muted:
            raise structlog.DropEvent
        self.count[line["event"]] += 1
        node = NODE.get()
        if method in ("error", "exception") and line["event"] not in EXPECTED:
            self.errors.append(f"{node.name if node else '-'}: {line}")
        if self._show:
            fields = " ".join(f"{k}={v}" for k, v in line.items() if k != "event")
            self.say(f"{line['event']}: {fields}")
        raise structlog.DropEvent

    def say(self, text: str) -> None:
        """For a replay: a line of what happens."""
        if self._show:
            node = NODE.get()
            print(f"{self._loop.time() - 1000:9.4f} {node.name if node else '-':8} {text}")


@contextlib.contextmanager
def replaced(loop: VirtualLoop, network: Network, rng: random.Random, log: Log) -> Iterator[None]:
    """See the module."""
    before = structlog.get_config()
    structlog.configure(
        processors=[log],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        cache_logger_on_first_use=False,
    )
    random.seed(rng.getrandbits(64))
    with contextlib.ExitStack() as stack:
        for name, value in {
            "grpc.aio.insecure_channel": lambda target, *_, **__: Channel(network, target),
            "grpc.aio.server": lambda *_, **__: Server(network),
            "secrets.token_hex": lambda length: rng.randbytes(length).hex(),
            "random.SystemRandom": lambda: rng,
            "time.time": lambda: EPOCH_S + loop.time(),
            "time.time_ns": lambda: int((EPOCH_S + loop.time()) * 1e9),
            "slotway.manager.starts.CREATES_MAX": 4,  # it depends on the machine's processors
            "slotway.manager.starts.INITS_MAX": 8,
        }.items():
            stack.enter_context(mock.patch(name, value))
        try:
            yield
        finally:
            structlog.configure(**before)


def _drop(logger: Any, method: str, line: MutableMapping[str, Any]) -> Any:
    raise structlog.DropEvent


@contextlib.contextmanager
def buried() -> Iterator[None]:
    """What the body leaves is dropped at its end, and complains to nobody: coroutines of processes
    that are gone. Nothing is collected before, so that all runs are alike."""
    gc.disable()
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    log = structlog.get_config()
    try:
        yield
        structlog.configure(processors=[_drop])
        gc.collect()
    finally:
        structlog.configure(**log)
        sys.unraisablehook = hook
        gc.enable()
