"""The store of activations by itself: submits in batches of 64, attempts, and what depth costs.

SQLite and a PostgreSQL server of our own, on the disk of the temporary folder. Batches of 64 are
what 64 callers at once make: who comes while a batch is committed is in the next one. Times are of
each activation; a ratio compares the same work, in turns, on a store with few queued and on one
with a million.
"""

import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figure import ROOT, Figure

sys.path.insert(0, str(ROOT))
from slotway.activations import (
    BATCH_MAX,
    Finish,
    Outcome,
    Status,
    Store,
    Submission,
    Want,
)
from tests.contract.postgres import NoPostgresError, PostgresServer

BATCH = 64
PAYLOAD = b'{"text": "a payload of 64 bytes, as in the other benchmarks here"}'
GOAL_SUBMIT_US = {"sqlite": 1e6 / 5_000, "postgresql": 1e6 / 2_000}
GOAL_ATTEMPT_US = 1e6 / 2_000
GOAL_P99_MS = 25.0
GOAL_DEPTH = 1.2
DEPTH, DEPTH_QUICK = 1_000_000, 50_000
ROUNDS, ROUNDS_QUICK = 300, 40
WARM_ROUNDS = 20
ACTIONS = tuple(f"ns{number % 3}/action{number}" for number in range(10))
_numbers = itertools.count(1)


def measure(directory: Path, quick: bool) -> list[Figure]:
    """See the module."""
    figures = []
    rounds, depth = (ROUNDS_QUICK, DEPTH_QUICK) if quick else (ROUNDS, DEPTH)
    for kind in ("sqlite", "postgresql"):
        try:
            with places(kind, directory) as urls:
                figures += one(kind, urls, rounds, depth)
        except NoPostgresError as error:
            name = f"store.{kind}_submit_us"
            figures.append(Figure(name, None, "µs", GOAL_SUBMIT_US[kind], f"not measured: {error}"))
    return figures


@contextmanager
def places(kind: str, directory: Path) -> Iterator[tuple[str, str]]:
    """The URLs of two empty databases."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'shallow.db'}", f"sqlite:///{directory / 'deep.db'}"
        return
    with PostgresServer() as server:
        server.psql("CREATE DATABASE deep")
        yield server.url(), server.url().replace("/postgres?", "/deep?")


def one(kind: str, urls: tuple[str, str], rounds: int, depth: int) -> list[Figure]:
    """The figures of one kind of store."""
    shallow, deep = (Store(url) for url in urls)
    took: dict[str, list[float]] = {}
    began = time.monotonic()
    for start in range(0, depth, BATCH_MAX):
        submit(deep, min(BATCH_MAX, depth - start))
    filled = depth / (time.monotonic() - began)
    for number in range(WARM_ROUNDS + rounds):
        for name, store in (("shallow", shallow), ("deep", deep)):
            for what, call in (("submit", submit), ("attempt", attempt)):
                took_s = timed(call, store)
                if number >= WARM_ROUNDS:
                    took.setdefault(f"{name} {what}", []).append(took_s)
    shallow.close()
    deep.close()
    load = f"load {os.getloadavg()[0]:.1f}"
    figures = []
    for what, goal in (("submit", GOAL_SUBMIT_US[kind]), ("attempt", GOAL_ATTEMPT_US)):
        times = sorted(took[f"shallow {what}"])
        whole_us = sum(times) / len(times) / BATCH * 1e6
        note = f"{1e6 / whole_us:,.0f}/s in batches of {BATCH}, {len(times)} of them; {load}"
        if what == "attempt":
            note += "; claimed, and finished with a result: two commits"
        figures.append(Figure(f"store.{kind}_{what}_us", whole_us, "µs", goal, note))
        if what == "submit":
            p99 = times[-1 - len(times) // 100] * 1e3
            spread = f"median {statistics.median(times) * 1e3:.1f}, most {times[-1] * 1e3:.1f}"
            name = f"store.{kind}_batch_p99_ms"
            figures.append(Figure(name, p99, "ms", GOAL_P99_MS, f"{spread}; {load}"))
        slow, fast = took[f"deep {what}"], took[f"shallow {what}"]
        ratio = statistics.median(slow) / statistics.median(fast)
        note = f"medians, with {depth:,} queued and with none; filled at {filled:,.0f}/s; {load}"
        figures.append(Figure(f"store.{kind}_{what}_depth_ratio", ratio, "", GOAL_DEPTH, note))
    return figures


def timed(call: Callable[[Store], None], store: Store) -> float:
    """Seconds."""
    began = time.monotonic()
    call(store)
    return time.monotonic() - began


def submit(store: Store, count: int = BATCH) -> None:
    """One batch, spread over the actions."""
    now_ms = time.time_ns() // 1_000_000
    names = (f"{now_ms:012x}-{next(_numbers):09}" for _ in range(count))
    batch = [Submission(id, ACTIONS[n % len(ACTIONS)], PAYLOAD) for n, id in enumerate(names)]
    store.submit(batch, now_ms)


def attempt(store: Store) -> None:
    """Claims as many as a batch, from all actions, and finishes them."""
    now_ms = time.time_ns() // 1_000_000
    counts = [BATCH // len(ACTIONS) + (n < BATCH % len(ACTIONS)) for n in range(len(ACTIONS))]
    wants = [Want(name, n, 60_000) for name, n in zip(ACTIONS, counts, strict=True)]
    claims = store.claim(wants, now_ms)
    assert len(claims) == BATCH
    outcome = Outcome(Status.SUCCESS, PAYLOAD, now_ms, 1_000, "r1", "c1")
    store.finish([Finish(claim.id, claim.token, outcome) for claim in claims], now_ms)
