"""Who gets the places of the async lane: namespaces first, then actions, max-min fair."""

from __future__ import annotations

from collections.abc import Sequence

from slotway.activations.activation import Waiting


def shares(waiting: Sequence[Waiting], room: int) -> dict[str, int]:
    """How many of each action's activations get one of `room` places.

    A place goes to the namespace that has the fewest, and in it to the action that has the fewest;
    of equals, to who waits longest. So a flood of one takes no place that another wants.
    """
    given = {one.action: 0 for one in waiting}
    in_namespace = {_namespace(one): 0 for one in waiting}
    left = sorted(waiting, key=lambda one: one.due_at_ms)
    for _ in range(room):
        left = [one for one in left if given[one.action] < one.count]
        if not left:
            break
        chosen = min(left, key=lambda one: (in_namespace[_namespace(one)], given[one.action]))
        given[chosen.action] += 1
        in_namespace[_namespace(chosen)] += 1
    return given


def _namespace(one: Waiting) -> str:
    return one.action.partition("/")[0]
