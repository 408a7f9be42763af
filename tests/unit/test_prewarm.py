"""How many stem cells there are to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotway.config import ManagerConfig
from slotway.manager.cells import PAUSE_S, PAUSE_S_MAX, Cells
from slotway.manager.container import Container
from slotway.manager.plan import Cell, Stock, refill
from slotway.v1.ledger_pb2 import (
    CONTAINER_STATE_CREATING,
    CONTAINER_STATE_PREWARMED,
    ActionRecord,
    ContainerRecord,
    ContainerState,
)

STOCK = Stock("python:3", 2, 5, ttl_s=100.0)


def cells(*since: float) -> list[Cell]:
    return [Cell(f"c{number}", at) for number, at in enumerate(since)]


def test_the_minimum_is_kept() -> None:
    assert refill(STOCK, [], [], 0.0, busy=False).create == 2
    assert refill(STOCK, cells(0.0), [], 0.0, busy=False).create == 1
    assert refill(STOCK, cells(0.0, 0.0), [], 0.0, busy=False).create == 0


def test_cold_starts_raise_the_stock_up_to_the_maximum_until_they_are_old() -> None:
    starts = [10.0, 20.0, 30.0]
    assert refill(STOCK, cells(0.0, 0.0), starts, 40.0, busy=False).create == 1
    assert refill(STOCK, cells(0.0, 0.0), [*starts] * 9, 40.0, busy=False).create == 3
    assert refill(STOCK, cells(0.0, 0.0), starts, 125.0, busy=False).create == 0


def test_cells_that_are_not_needed_end_when_they_are_old() -> None:
    four = cells(0.0, 50.0, 10.0, 60.0)
    assert refill(STOCK, four, [], 99.0, busy=False).retire == []
    assert refill(STOCK, four, [], 105.0, busy=False).retire == ["c0"]
    assert refill(STOCK, four, [], 500.0, busy=True).retire == ["c0", "c2"]


def test_none_is_made_while_actions_wait() -> None:
    assert refill(STOCK, [], [1.0], 2.0, busy=True).create == 0


@given(
    st.lists(st.floats(0, 1000), max_size=8),
    st.lists(st.floats(0, 1000), max_size=8),
    st.floats(1000, 2000),
    st.booleans(),
)
def test_the_stock_stays_within_its_bounds(
    since: list[float], starts: list[float], now: float, busy: bool
) -> None:
    what = refill(STOCK, cells(*since), starts, now, busy=busy)
    after = len(since) + what.create - len(what.retire)
    assert not (what.create and what.retire)
    assert what.create == 0 or STOCK.minimum <= after <= STOCK.maximum
    assert not what.retire or after >= STOCK.minimum


def cell(
    state: ContainerState.ValueType = CONTAINER_STATE_PREWARMED,
    since: float = 0.0,
    **fields: object,
) -> Container:
    record = ContainerRecord(kind="python:3", memory_mib=256, made_for=200, state=state)
    for name, value in fields.items():
        setattr(record, name, value)
    record.id = record.id or f"at-{since}"
    return Container(record, since)


def action(**fields: object) -> ActionRecord:
    record = ActionRecord(kind="python:3", memory_mib=256, concurrency=10)
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def test_the_oldest_cell_is_taken_once() -> None:
    pool = Cells([STOCK])
    for since in (3.0, 1.0, 2.0):
        pool.add(cell(since=since))
    taken = [pool.take(action()) for _ in range(4)]
    assert [one and one.since for one in taken] == [1.0, 2.0, 3.0, None]


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "python:4"},
        {"memory_mib": 255},
        {"memory_mib": 512},
        {"concurrency": 201},
        {"image": "mine"},
        {"network": True},
    ],
)
def test_a_cell_that_does_not_fit_is_left(other: dict[str, object]) -> None:
    pool = Cells([STOCK])
    pool.add(cell())
    assert pool.take(action(**other)) is None
    assert pool.take(action()) is not None


def test_a_cell_that_only_comes_or_has_ended_is_left() -> None:
    pool = Cells([STOCK])
    pool.add(cell(CONTAINER_STATE_CREATING))
    assert pool.take(action()) is None
    ended = cell(since=1.0)
    ended.ended = True
    pool.add(ended)
    assert pool.take(action()) is None


def test_failures_put_the_next_try_off_until_a_cell_is_taken() -> None:
    pool = Cells([STOCK])
    failed, now = cell(CONTAINER_STATE_CREATING), 0.0
    for number in range(9):
        pause_s = min(PAUSE_S_MAX, PAUSE_S * 2**number)
        pool.failed(failed, now)
        pool.failed(failed, now)  # a crowd that fails together counts once
        assert pool.look(now + pause_s - 0.1, busy=False)["python:3"].create == 0
        now += pause_s
        assert pool.look(now, busy=False)["python:3"].create == 2
    pool.add(cell())
    assert pool.take(action()) is not None
    pool.failed(failed, now)
    assert pool.look(now + PAUSE_S, busy=False)["python:3"].create == 2


def test_cells_that_are_of_no_stock_any_more_end() -> None:
    pool = Cells([STOCK])
    pool.add(cell(id="here"))
    pool.add(cell(id="other-kind", kind="node:20"))
    pool.add(cell(id="other-size", memory_mib=512))
    retired = [name for what in pool.look(0.0, busy=True).values() for name in what.retire]
    assert sorted(retired) == ["other-kind", "other-size"]


@pytest.mark.parametrize("text", ["python:3", "python:3=x", "python:3=5-2", "python:3=2000"])
def test_a_stock_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        ManagerConfig.model_validate({"prewarm": text})
    assert ManagerConfig.model_validate({"prewarm": "python:3=2-8"}).prewarm == {"python:3": "2-8"}
