"""The extension's `Ledger` and `SlotTable`, talking to each other without a network."""

import pytest

from slotway._slotcore import (
    Commit,
    CommitPending,
    Ledger,
    LedgerError,
    Order,
    SlotTable,
    Version,
)

TERM = (1, 10)
ROUTER, OTHER = "router-1", "router-2"


def led(*records: tuple[str, int, dict[str, int]]) -> Ledger:
    ledger = Ledger()
    assert ledger.attach(ROUTER, 1)
    assert ledger.attach(OTHER, 1)
    assert ledger.lead(TERM, 0, records) == [(ROUTER, 1), (OTHER, 1)]
    return ledger


def known(*records: tuple[str, int, dict[str, int]]) -> Ledger:
    """A ledger whose routers have said Hello and hold what is recorded."""
    ledger = led(*records)
    for router in (ROUTER, OTHER):
        holdings = [(c, shares[router], 0) for c, _, shares in records if router in shares]
        assert ledger.hello(router, 1, TERM, holdings) == []
    return ledger


def commit(ledger: Ledger, revision: int) -> Commit:
    taken = ledger.begin(126)
    assert taken is not None
    ledger.committed(revision)
    return taken


def told(orders: list[Order]) -> list[tuple[str, str, int, Version]]:
    return [(o.router, o.container, o.target, o.version) for o in orders]


def test_a_raise_is_told_after_its_record() -> None:
    ledger = known()
    ledger.add("c", 2)
    ledger.grant("c", ROUTER, 2)
    taken = ledger.begin(126)
    assert taken is not None
    assert (taken.term, taken.turn, taken.puts, taken.deletes) == (
        TERM,
        0,
        [("c", {ROUTER: 2})],
        [],
    )
    assert ledger.orders() == []
    ledger.committed(11)
    assert told(ledger.orders()) == [(ROUTER, "c", 2, (1, 10, 1))]
    assert ledger.orders() == []
    assert ledger.shares("c") == {ROUTER: 2}
    assert ledger.containers_of(ROUTER) == ["c"]


def test_a_lowering_is_recorded_after_its_acknowledgement() -> None:
    ledger = known(("c", 2, {ROUTER: 2}))
    ledger.recall("c", ROUTER, 1)
    assert ledger.begin(126) is None
    assert told(ledger.orders()) == [(ROUTER, "c", 1, (1, 10, 1))]
    assert ledger.target("c", ROUTER) == 1
    assert ledger.free("c") == 0
    assert not ledger.acknowledge(ROUTER, 1, "c", 1, (1, 10, 0))
    assert ledger.acknowledge(ROUTER, 1, "c", 1, (1, 10, 1))
    assert (ledger.free("c"), ledger.shares("c")) == (1, {ROUTER: 2})
    ledger.grant("c", OTHER, 1)
    assert commit(ledger, 11).puts == [("c", {ROUTER: 1, OTHER: 1})]
    assert told(ledger.orders()) == [(OTHER, "c", 1, (1, 10, 2))]


def test_the_capacity_is_never_exceeded() -> None:
    ledger = known(("c", 2, {ROUTER: 1}))
    with pytest.raises(LedgerError, match="shares of c would be 3, of 2"):
        ledger.grant("c", OTHER, 2)
    with pytest.raises(LedgerError, match="not above"):
        ledger.grant("c", ROUTER, 1)
    with pytest.raises(LedgerError, match="of 1"):
        Ledger().lead(TERM, 0, [("c", 1, {ROUTER: 1, OTHER: 1})])


def test_events_wait_while_a_commit_is_under_way() -> None:
    ledger = known(("c", 2, {}))
    ledger.touch("c")
    assert ledger.begin(126) is not None
    for step in (
        lambda: ledger.grant("c", ROUTER, 1),
        lambda: ledger.recall("c", ROUTER, 0),
        lambda: ledger.add("d", 1),
        lambda: ledger.remove("c"),
        lambda: ledger.touch("c"),
        lambda: ledger.acknowledge(ROUTER, 1, "c", 0, (1, 10, 1)),
        lambda: ledger.hello(ROUTER, 1, TERM, []),
        lambda: ledger.begin(126),
        ledger.begin_empty,
    ):
        with pytest.raises(CommitPending):
            step()
    assert ledger.pending
    ledger.committed(11)
    assert not ledger.pending


def test_an_unknown_outcome_is_settled_by_what_etcd_says() -> None:
    ledger = known(("c", 2, {ROUTER: 1}))
    ledger.grant("c", OTHER, 1)
    assert ledger.begin(126) is not None
    assert ledger.unknown() == TERM
    assert ledger.orders() == []
    with pytest.raises(LedgerError):
        ledger.committed(12)
    ledger.settled(12, [("c", 2, {ROUTER: 1, OTHER: 1})])
    assert told(ledger.orders()) == [
        (ROUTER, "c", 1, (1, 10, 1)),
        (OTHER, "c", 1, (1, 10, 2)),
    ]
    ledger.touch("c")
    taken = ledger.begin(126)
    assert taken is not None
    assert taken.turn == 12


def test_a_deposed_ledger_says_nothing() -> None:
    ledger = known(("c", 2, {ROUTER: 2}))
    ledger.add("d", 1)
    ledger.recall("c", ROUTER, 0)
    assert ledger.begin(126) is not None
    ledger.rejected()
    assert ledger.orders() == []
    assert (ledger.term, ledger.known(ROUTER), ledger.shares("d")) == (None, False, {})
    with pytest.raises(LedgerError, match="no term"):
        ledger.touch("c")
    with pytest.raises(LedgerError, match="led before"):
        ledger.lead(TERM, 20, [])
    assert ledger.lead((1, 20), 20, []) == [(ROUTER, 1), (OTHER, 1)]


def test_only_the_newest_stream_counts() -> None:
    ledger = known(("c", 2, {ROUTER: 2}))
    ledger.recall("c", ROUTER, 0)
    assert ledger.attach(ROUTER, 3)
    assert not ledger.attach(ROUTER, 2)
    assert ledger.orders() == []
    assert ledger.version_sent("c", ROUTER) is None
    with pytest.raises(LedgerError, match="Hello"):
        ledger.recall("c", ROUTER, 0)
    assert ledger.hello(ROUTER, 1, TERM, []) == []
    assert ledger.staged_shares("c") == {ROUTER: 2}
    assert ledger.hello(ROUTER, 3, (1, 9), []) == []
    assert not ledger.known(ROUTER)


def test_a_hello_lowers_the_ledger_and_orders_an_unfinished_lowering_anew() -> None:
    ledger = led(("c", 4, {ROUTER: 4}), ("d", 1, {ROUTER: 1}))
    assert ledger.hello(ROUTER, 1, TERM, [("c", 1, 3), ("gone", 1, 0)]) == ["gone"]
    assert ledger.staged
    assert sorted(commit(ledger, 11).puts) == [("c", {ROUTER: 3}), ("d", {})]
    assert told(ledger.orders()) == [(ROUTER, "c", 1, (1, 10, 1))]
    assert ledger.acknowledge(ROUTER, 1, "c", 1, (1, 10, 1))
    assert commit(ledger, 12).puts == [("c", {ROUTER: 1})]


def test_a_holding_above_the_ledger_is_refused_and_changes_nothing() -> None:
    ledger = led(("c", 2, {ROUTER: 1}), ("d", 2, {ROUTER: 1}))
    with pytest.raises(LedgerError, match="holds 2 of c, 1 are on the ledger"):
        ledger.hello(ROUTER, 1, TERM, [("c", 0, 2)])
    assert not ledger.known(ROUTER)
    assert not ledger.staged


def test_slots_of_an_older_term_that_are_given_back_are_ordered_once_more() -> None:
    ledger = known(("c", 2, {ROUTER: 2}))
    assert not ledger.acknowledge(ROUTER, 1, "c", 0, (1, 5, 7))
    assert told(ledger.orders()) == [(ROUTER, "c", 0, (1, 10, 1))]
    assert ledger.acknowledge(ROUTER, 1, "c", 0, (1, 10, 1))
    assert commit(ledger, 11).puts == [("c", {})]


def test_the_end_of_a_container_voids_its_shares() -> None:
    ledger = known(("c", 2, {ROUTER: 2}))
    ledger.remove("c")
    assert (ledger.free("c"), ledger.staged_shares("c")) == (0, {})
    assert commit(ledger, 11).deletes == ["c"]
    assert ledger.containers_of(ROUTER) == []
    with pytest.raises(LedgerError, match="not on the ledger"):
        ledger.grant("c", ROUTER, 1)


def test_records_beyond_the_limit_wait_for_the_next_transaction() -> None:
    ledger = known()
    for name in "abc":
        ledger.add(name, 1)
        ledger.grant(name, ROUTER, 1)
    taken = ledger.begin(2)
    assert taken is not None
    assert [name for name, _ in taken.puts] == ["a", "b"]
    ledger.committed(11)
    assert [order.container for order in ledger.orders()] == ["a", "b"]
    assert [name for name, _ in commit(ledger, 12).puts] == ["c"]
    assert [order.container for order in ledger.orders()] == ["c"]


def test_a_table_serves_waiters_and_acknowledges() -> None:
    table = SlotTable(action_waiters_max=2)
    table.open_stream("m", 1)
    assert table.welcome("m", 1, TERM) == []
    assert table.enqueue("a/b", 7, True)
    assert table.enqueue("a/b", 8, True)
    assert not table.enqueue("a/b", 9, True)
    assert table.cancel(8)
    assert table.demand() == [("a/b", 1, [])]
    served = table.order("m", 1, (1, 10, 1), "c", 2, "a/b", 2)
    assert served is not None
    assert [waiter for waiter, _ in served] == [7]
    assert table.acknowledgements() == [("c", 2, (1, 10, 1))]
    idle = table.acquire("a/b")
    assert idle is not None
    assert table.acquire("a/b") is None
    assert {idle.index, served[0][1].index} == {0, 1}
    assert table.order("m", 1, (1, 10, 2), "c", 0, "a/b", 2) == []
    assert table.acknowledgements() == [("c", 2, (1, 10, 2))]
    assert table.release(idle) is None
    assert table.acknowledgements() == [("c", 1, (1, 10, 2))]
    assert table.release(served[0][1]) is None
    with pytest.raises(ValueError, match="given back before"):
        table.release(idle)
    assert table.acknowledgements() == [("c", 0, (1, 10, 2))]
    assert table.order("m", 1, (1, 10, 1), "c", 2, "a/b", 2) == []
    assert table.acknowledgements() == [("c", 0, (1, 10, 1))]
    assert table.holdings() == []
    assert table.order("m", 2, (1, 10, 3), "c", 2, "a/b", 2) is None
    with pytest.raises(ValueError, match="capacity"):
        table.order("m", 1, (1, 10, 3), "c", 3, "a/b", 2)
