"""The containers that ended under this leader, and why: the newest few of each action.

They are gone from the ledger, but an operator who looks at a crash loop sees nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

ENDINGS_MAX = 10
"""Kept of one action."""
ACTIONS_MAX = 500
"""Of so many actions, those of which one ended last."""
REASON_MAX = 500
"""Characters."""


@dataclass(frozen=True, slots=True)
class Ending:
    """One container's end."""

    container: str
    action: str
    """Empty: it was a stem cell."""
    revision: int
    reason: str
    crashed: bool
    """It ended by itself; else the Manager ended it."""
    served_s: float | None
    """For how long it had served; None: it never did, or not only under this leader."""
    ended_at_ms: int
    """Since 1970."""


class Endings:
    """A bounded memory, lost with the term."""

    def __init__(self) -> None:
        self._of: dict[str, deque[Ending]] = {}

    def note(self, ending: Ending) -> None:
        """Adds one; the oldest make room."""
        rows = self._of.pop(ending.action, None) or deque(maxlen=ENDINGS_MAX)
        rows.append(ending)
        self._of[ending.action] = rows
        if len(self._of) > ACTIONS_MAX:
            del self._of[next(iter(self._of))]

    def __iter__(self) -> Iterator[Ending]:
        """By action, the newest first."""
        for action in sorted(self._of):
            yield from reversed(self._of[action])
