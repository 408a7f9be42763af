"""Max-min fairness in whole slots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping


def fair(
    supply: int,
    base: Mapping[str, int],
    want: Mapping[str, int],
    prefer: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Shares `supply` out among the keys of `want`, the least base first.

    Nobody gets more than it wants, and nobody gets anything while another one who still wants has
    a smaller base + gain, by more than one. What is left over by rounding goes to those that
    `prefer` (by default `base`) puts higher, so that a repeated run changes nothing, then by name.
    Returns the gains; their sum is min(supply, sum of want).
    """
    first = base if prefer is None else prefer
    wants = {key: amount for key, amount in want.items() if amount > 0}
    supply = min(supply, sum(wants.values()))
    if supply <= 0:
        return {}

    def gain(key: str, level: int) -> int:
        return max(0, min(wants[key], level - base.get(key, 0)))

    low = min(base.get(key, 0) for key in wants)
    high = max(base.get(key, 0) + amount for key, amount in wants.items())
    while low < high:  # the greatest level that the supply reaches
        level = (low + high + 1) // 2
        if sum(gain(key, level) for key in wants) <= supply:
            low = level
        else:
            high = level - 1
    gains = {key: gain(key, low) for key in wants}
    left = supply - sum(gains.values())
    for key in sorted(wants, key=lambda key: (-first.get(key, 0), key)):
        if left and gain(key, low + 1) > gains[key]:
            gains[key] += 1
            left -= 1
    assert left == 0
    return {key: amount for key, amount in gains.items() if amount}


def by_router(slots: Mapping[tuple[str, str], int]) -> defaultdict[str, int]:
    """Sums up what is counted by (container, router); a router that is not there has 0."""
    totals: defaultdict[str, int] = defaultdict(int)
    for (_, router), amount in slots.items():
        totals[router] += amount
    return totals
