"""pytest-benchmark of the slot table over the bridge; bench/accounting.py runs it."""

from pytest_benchmark.fixture import BenchmarkFixture

from slotway._slotcore import SlotTable

ACTION = "bench/echo"


def test_acquire_release(benchmark: BenchmarkFixture) -> None:
    """One acquire and one release, with 2 containers × 16 slots and nobody waiting."""
    table = SlotTable()
    table.open_stream("manager", 1)
    table.welcome("manager", 1, (1, 1))
    for counter in (1, 2):
        table.order("manager", 1, (1, 1, counter), f"container-{counter}", 16, ACTION, 16)

    def pair() -> None:
        slot = table.acquire(ACTION)
        assert slot is not None
        table.release(slot)

    benchmark(pair)
