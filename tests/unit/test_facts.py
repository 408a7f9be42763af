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
    facts.report(report(0, waiting=3), TERM, 1)
    assert facts.idle("a/b", "c", 4) == 4
    facts.report(report(1, c=1), TERM, 1)
    assert facts.idle("a/b", "c", 4) == 1
    assert facts.confirmed("c")


def test_a_lowering_that_a_report_has_not_seen_takes_from_what_it_says() -> None:
    facts = Facts(0.0)
    facts.hold([("c", 10)])
    facts.report(report(0, c=6), TERM, 1)
    facts.sent("c", 1, 7, 0.0)
    assert facts.idle("a/b", "c", 7) == 3
    assert not facts.confirmed("c")
    facts.report(report(1, c=3), TERM, 1)
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
    facts.report(report(2), TERM, 1)
    assert facts.unconfirmed_since() == 3.0


def test_slots_that_are_given_back_before_an_order_arrives_come_with_it() -> None:
    """An order of "5, as before" has crossed the gift: it gives back what the gift had taken."""
    facts = Facts(0.0)
    facts.hold([("c", 5)])
    facts.sent("c", 75, 5, 0.0)
    facts.report(report(61, c=0), TERM, 1)
    facts.acknowledged("c", 3, 61)
    assert facts.idle("a/b", "c", 5) == 2
    facts.acknowledged("c", 4, 75)  # after that order: the next report tells
    assert facts.idle("a/b", "c", 5) == 2


def test_slots_that_are_given_back_before_a_report_are_not_taken_for_held() -> None:
    """They idled, and no report had told yet that their order was obeyed."""
    facts = Facts(0.0)
    facts.sent("c", 7, 9, 0.0)
    facts.acknowledged("c", 2, 7)
    facts.report(report(7, c=2), TERM, 1)
    facts.sent("c", 8, 6, 1.0)
    assert facts.idle("a/b", "c", 6) == 6


def test_a_hello_begins_anew() -> None:
    """Another term counts its orders from one again."""
    facts = Facts(0.0)
    facts.sent("c", 500, 4, 0.0)
    facts.report(report(500, waiting=2, c=1), TERM, 1)
    facts.hold([("c", 4)])
    assert (facts.waiting, facts.idle("a/b", "c", 4)) == ({}, 0)
    facts.sent("c", 1, 5, 1.0)
    facts.report(report(500, term=7, c=1), (1, 9), 1)  # the obeyed order is of the older term
    assert not facts.confirmed("c")
    facts.report(report(1, term=9, c=2), (1, 9), 1)
    assert facts.confirmed("c")
    assert facts.idle("a/b", "c", 5) == 2


def test_changes_are_told_once_and_demand_always() -> None:
    facts = Facts(0.0)
    assert facts.report(report(0, c=1), TERM, 1) == {"a/b"}
    assert facts.report(report(0, c=1), TERM, 1) == set()
    assert facts.report(report(0, waiting=1), TERM, 1) == {"a/b"}
    assert facts.report(report(0, waiting=1), TERM, 1) == {"a/b"}
    assert facts.report(report(0), TERM, 1) == {"a/b"}
    assert facts.report(report(0), TERM, 1) == set()


def test_a_report_tells_up_to_which_turn_it_had_heard() -> None:
    facts = Facts(0.0)
    said = report(0, waiting=2)
    said.turn = 6
    facts.report(said, TERM, 8)
    assert (facts.turn, facts.waited("a/b"), facts.waited("a/c")) == (6, 8, 0)
    facts.report(report(0, waiting=2), TERM, 9)  # as many wait: an answer to a question, perhaps
    assert (facts.turn, facts.waited("a/b")) == (6, 8)
    facts.report(report(0, waiting=3), TERM, 9)
    assert facts.waited("a/b") == 9
    facts.report(report(0), TERM, 10)
    assert facts.waited("a/b") == 0
    facts.hold([])
    assert facts.turn == 0, "another term counts its turns anew"


def test_since_when_a_share_idles() -> None:
    facts = Facts(0.0)
    facts.sent("c", 1, 4, 0.0)
    assert facts.idle_since("a/b", "c", 4) is None  # granted, and nobody knows what runs
    for at, counter, idle in ((1.0, 0, 4), (2.0, 1, 3), (3.0, 1, 4)):
        facts.reported_at = at
        facts.report(report(counter, c=idle), TERM, 1)
        assert facts.idle_since("a/b", "c", 4) == (3.0 if at == 3.0 else None)
    facts.reported_at = 4.0
    facts.report(pb.AttachRequest(obeyed=report(1).obeyed), TERM, 1)
    assert facts.idle_since("a/b", "c", 4) == 3.0
    facts.reported_at = 4.5
    facts.report(report(1, c=4), TERM, 1)  # told of again: a request came and went
    assert facts.idle_since("a/b", "c", 4) == 4.5
    assert facts.idle_since("a/b", "c", 5) is None  # one more is staged
    facts.sent("c", 2, 5, 4.0)
    assert facts.idle_since("a/b", "c", 4) is None
    facts.reported_at = 5.0
    facts.report(report(2, c=5), TERM, 1)
    assert facts.idle_since("a/b", "c", 5) == 5.0
    facts.forget("c")
    assert facts.idle_since("a/b", "c", 5) is None


def test_what_was_refused_does_not_wait_any_more() -> None:
    facts = Facts(0.0)
    facts.report(report(0, waiting=2), TERM, 8)
    facts.refused("a/b")
    assert (facts.waiting, facts.waited("a/b")) == ({}, 0)
    facts.refused("a/b")
    facts.report(report(0, waiting=1), TERM, 9)
    assert (facts.waiting, facts.waited("a/b")) == ({"a/b": 1}, 9)
