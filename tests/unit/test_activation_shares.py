"""The places of the async lane."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slotway.activations import Waiting
from slotway.activations.fair import shares


def test_a_flood_takes_no_place_that_another_wants() -> None:
    waiting = [
        Waiting("flood/a", 256, 1),
        Waiting("flood/b", 256, 2),
        Waiting("quiet/c", 3, 9),
        Waiting("other/d", 256, 5),
    ]
    assert shares(waiting, 27) == {"flood/a": 6, "flood/b": 6, "quiet/c": 3, "other/d": 12}


def test_where_there_is_too_little_the_longest_wait_comes_first() -> None:
    waiting = [Waiting(f"ns{number}/a", 5, 100 - number) for number in range(10)]
    assert {one for one, places in shares(waiting, 3).items() if places} == {
        "ns9/a",
        "ns8/a",
        "ns7/a",
    }


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("xyz"), st.sampled_from("abc")), st.integers(1, 40), min_size=1
    ),
    st.integers(0, 60),
)
def test_max_min(counts: dict[tuple[str, str], int], room: int) -> None:
    waiting = [Waiting("/".join(name), count, 0) for name, count in counts.items()]
    given_ = shares(waiting, room)
    assert sum(given_.values()) == min(room, sum(counts.values()))
    for one in waiting:
        assert given_[one.action] <= one.count
        if given_[one.action] == one.count:
            continue
        # Who wants more has as much as anyone, in its namespace and among them, but for one.
        namespace = one.action[0]
        for other in waiting:
            if other.action[0] == namespace:
                assert given_[other.action] <= given_[one.action] + 1
            assert _of(given_, other.action[0]) <= _of(given_, namespace) + 1


def _of(places: dict[str, int], namespace: str) -> int:
    return sum(count for action, count in places.items() if action[0] == namespace)
