"""The slot table: how long an acquire and a release take, in Rust and from Python."""

import json
import subprocess
import sys
from pathlib import Path

from figure import ROOT, Figure

EXAMPLE = "pair"
GOAL_NS = 100
GOAL_PYTHON_US = 1


def rust() -> Figure:
    """What the accounting's own example prints: nanoseconds for a pair."""
    name = "accounting.acquire_release_ns"
    if not (ROOT / "slotcore" / "accounting" / "examples" / f"{EXAMPLE}.rs").exists():
        return Figure(name, None, "ns", GOAL_NS, f"there is no example {EXAMPLE}")
    command = ["cargo", "run", "-q", "--release", "--locked", "-p", "slotcore-accounting"]
    done = subprocess.run(
        [*command, "--example", EXAMPLE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    note = "the best of many short rounds, in a table of 1,000 actions × 10 slots"
    return Figure(name, json.loads(done.stdout)["value"], "ns", GOAL_NS, note)


def python(directory: Path, quick: bool) -> Figure:
    """pytest-benchmark's median for a pair."""
    result = directory / "slot_table.json"
    benches = str(Path(__file__).with_name("slot_table.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", benches]
    command += [f"--benchmark-json={result}", f"--benchmark-max-time={0.5 if quick else 3}"]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    stats = json.loads(result.read_text(encoding="utf-8"))["benchmarks"][0]["stats"]
    low, high = (stats[quartile] * 1e6 for quartile in ("q1", "q3"))
    note = f"quartiles {low:.3g} … {high:.3g}"
    value = stats["median"] * 1e6
    return Figure("accounting.acquire_release_python_us", value, "µs", GOAL_PYTHON_US, note)


def measure(directory: Path, quick: bool) -> list[Figure]:
    """Both."""
    return [rust(), python(directory, quick)]
