"""Open-loop load: requests arrive when a schedule says so, whether or not others were answered.

The generator is native (`bench/openloop`); this is its thread, and what its report comes to. A
latency is counted from the moment that the schedule named, so a server that stalls is not spared
what it would have got (no coordinated omission). Percentiles are an HDR histogram's.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from slotway._slotcore import Load, LoadedAction, LoadReport

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
BUCKET_S = 0.1


class Shape(StrEnum):
    """The shape of the arrivals; each has the rate on average."""

    CONSTANT = "constant"
    POISSON = "poisson"
    BURSTY = "bursty"
    WAVE = "wave"


def zipf(count: int, skew: float) -> list[float]:
    """Weights of `count` actions: the n-th is chosen in proportion to 1 / n ** skew."""
    return [1.0 / rank**skew for rank in range(1, count + 1)]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When requests arrive. Seconds, and requests per second."""

    rate: float
    duration_s: float
    shape: Shape = Shape.POISSON
    factor: float = 1.0
    """Bursty: how many times the rate a burst has. Wave: the part by which the rate swings."""
    period_s: float = 1.0
    seed: int = 0


class Generator:
    """One run of load, in a thread of its own."""

    def __init__(
        self,
        endpoints: Sequence[str],
        targets: Sequence[tuple[str, bytes, float]],
        arrivals: Arrivals,
        *,
        connections: int = 1,
        deadline_s: float = 60.0,
        outstanding_max: int = 10_000,
        late_s: float = 1.0,
        bucket_s: float = BUCKET_S,
    ) -> None:
        """`endpoints` are "address:port", the address an IP address; `targets` (action, payload,
        weight). ValueError if that makes no sense."""
        self._load = Load(
            endpoints=list(endpoints),
            targets=list(targets),
            rate=arrivals.rate,
            duration_s=arrivals.duration_s,
            arrivals=arrivals.shape.value,
            factor=arrivals.factor,
            period_s=arrivals.period_s,
            connections=connections,
            deadline_s=deadline_s,
            outstanding_max=outstanding_max,
            late_s=late_s,
            bucket_s=bucket_s,
            seed=arrivals.seed,
        )
        self._report: LoadReport | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        """Begins; returns at once."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._report = self._load.run()
        except Exception as error:
            self._error = error

    def stop(self) -> None:
        """No more requests arrive; those under way are waited for by `join`."""
        self._load.stop()

    def wait(self, timeout_s: float) -> bool:
        """Waits so long at most; whether everything has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def progress(self) -> tuple[int, int, int]:
        """Requests that arrived, succeeded, failed."""
        return self._load.progress()

    def join(self) -> LoadReport:
        """Waits for the end. ConnectionError if a front door did not answer."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._report is not None
        return self._report


def summary(report: LoadReport) -> dict[str, Any]:
    """The report as plain values. Latencies are in milliseconds."""
    return {
        "seconds": round((report.ended_ns - report.began_ns) / 1e9, 3),
        "generator_lag_ms": {name: report.lag_us(q) / 1e3 for name, q in QUANTILES.items()},
        "actions": [_action(action) for action in report.actions],
    }


def _action(action: LoadedAction) -> dict[str, Any]:
    outcomes = action.outcomes
    return {
        "action": action.action,
        "arrived": sum(outcomes.values()),
        "ok": outcomes.get("ok", 0),
        "failed": {name: count for name, count in outcomes.items() if name != "ok"},
        "late": action.late,
        "latency_ms": {name: action.latency_us(q) / 1e3 for name, q in QUANTILES.items()},
        "longest_gap_ms": action.gap_ns[0] / 1e6,
        "seen_max": action.seen_max,
    }
