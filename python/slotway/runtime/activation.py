"""The activation that the running code belongs to: carried by a context variable into tasks and
threads."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Activation:
    """One run of the action, as the caller of `/run` described it."""

    id: str
    """The activation id; "-" outside of any."""
    action_name: str = ""
    deadline_ms: int = 0
    """When the action's time is up, in milliseconds since 1970; 0: nobody said."""
    fields: Mapping[str, object] = field(default_factory=dict)
    """Whatever else `/run` carried beside `value`."""
    logged_bytes: int = 0
    partial: dict[str, str] = field(default_factory=dict)
    """The unfinished line of each output stream."""

    def remaining_ms(self) -> int:
        """Milliseconds until the deadline, at least 0; 0 also when there is none."""
        return max(0, self.deadline_ms - int(time.time() * 1000))

    @classmethod
    def of(cls, request: Mapping[str, object]) -> Activation:
        """The activation of a `/run` request; OpenWhisk sends the deadline as text."""
        deadline = request.get("deadline", 0)
        try:
            deadline_ms = int(deadline) if isinstance(deadline, (str, int, float)) else 0
        except (ValueError, OverflowError):
            deadline_ms = 0
        return cls(
            id=_word(request.get("activation_id")),
            action_name=str(request.get("action_name", "")),
            deadline_ms=deadline_ms,
            fields={key: value for key, value in request.items() if key != "value"},
        )


def _word(value: object) -> str:
    """An id as one word of a log line."""
    text = str(value)[:64] if value else "-"
    return text if text.isprintable() and " " not in text else "-"


OUTSIDE = Activation("-")
"""Stands for code that runs outside of any activation: while it is loaded, or in a thread of its
own."""

current: contextvars.ContextVar[Activation] = contextvars.ContextVar("activation", default=OUTSIDE)


def activation() -> Activation:
    """The activation of the calling code. Threads that the action starts itself are outside of any,
    unless it runs them in `contextvars.copy_context()`; `asyncio.to_thread` and tasks carry it."""
    return current.get()
