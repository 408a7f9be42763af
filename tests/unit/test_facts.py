"""What a report says is read against the orders that it had seen."""

from __future__ import annotations

from slotway.manager.facts import Facts
from slotway.v1 import manager_pb2 as pb

TERM = (1, 7)


def report(counter: int, waiting: int = 0, term: int = 7, **idle: int) -> pb.AttachRequest:
    shares = [pb.IdleShare(container_id=name, idle=count) for name, count in idle.items()]
    return pb.AttachRequest(
        demand=[pb.ActionDemand(action="a/b", waiting=waiting, idle=shares)],
        obeyed=pb.Version(term=pb.Term(epoch=1, revision=term), counter=counter),
    )


def test_granted_slots_that_a_report_has_not_seen_are_free() -> None:
    facts = Facts(0.0)
    facts.sent("c", 1, 4, 0.0)
    assert facts.idle("a/b", "c", 4) == 4
    facts.report(report(0, waiting=3), TERM)
    assert facts.idle("a/b", "c", 4) == 4
    facts.report(report(1, c=1), TERM)
    assert facts.idle("a/b", "c", 4) == 1
    assert facts.confirmed("c")


def test_a_lowering_that_a_report_has_not_seen_takes_from_what_it_says() -> None:
    facts = Facts(0.0)
    facts.hold([("c", 10)])
    facts.report(report(0, c=6), TERM)
    facts.sent("c", 1, 7, 0.0)
    assert facts.idle("a/b", "c", 7) == 3
    assert not facts.confirmed("c")
    facts.report(report(1, c=3), TERM)
    assert facts.idle("a/b", "c", 7) == 3
    assert facts.idle("a/b", "c", 2) == 0  # never below nothing


def test_only_raises_have_to_be_confirmed_in_time() -> None:
    facts = Facts(0.0)
    facts.hold([("c", 4)])
    facts.sent("c", 1, 2, 1.0)
    assert facts.unconfirmed_since() is None
    facts.sent("c", 2, 4, 2.0)
    facts.sent("d", 3, 1, 3.0)
    assert facts.unconfirmed_since() == 2.0
    facts.report(report(2), TERM)
    assert facts.unconfirmed_since() == 3.0


def test_slots_that_are_given_back_before_an_order_arrives_come_with_it() -> None:
    """An order of "5, as before" has crossed the gift: it gives back what the gift had taken."""
    facts = Facts(0.0)
    facts.hold([("c", 5)])
    facts.sent("c", 75, 5, 0.0)
    facts.report(report(61, c=0), TERM)
    facts.acknowledged("c", 3, 61)
    assert facts.idle("a/b", "c", 5) == 2
    facts.acknowledged("c", 4, 75)  # after that order: the next report tells
    assert facts.idle("a/b", "c", 5) == 2


def test_a_hello_begins_anew() -> None:
    """Another term counts its orders from one again."""
    facts = Facts(0.0)
    facts.sent("c", 500, 4, 0.0)
    facts.report(report(500, waiting=2, c=1), TERM)
    facts.hold([("c", 4)])
    assert (facts.waiting, facts.idle("a/b", "c", 4)) == ({}, 0)
    facts.sent("c", 1, 5, 1.0)
    facts.report(report(500, term=7, c=1), (1, 9))  # the obeyed order is of the older term
    assert not facts.confirmed("c")
    facts.report(report(1, term=9, c=2), (1, 9))
    assert facts.confirmed("c")
    assert facts.idle("a/b", "c", 5) == 2


def test_changes_are_told_once_and_demand_always() -> None:
    facts = Facts(0.0)
    assert facts.report(report(0, c=1), TERM) == {"a/b"}
    assert facts.report(report(0, c=1), TERM) == set()
    assert facts.report(report(0, waiting=1), TERM) == {"a/b"}
    assert facts.report(report(0, waiting=1), TERM) == {"a/b"}
    assert facts.report(report(0), TERM) == {"a/b"}
    assert facts.report(report(0), TERM) == set()
