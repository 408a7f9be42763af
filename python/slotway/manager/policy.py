"""What the cluster is configured to."""

from __future__ import annotations

from dataclasses import dataclass

from slotway.manager.plan import Stock


@dataclass(frozen=True, slots=True)
class Policy:
    """How many containers there may be, and how long they are kept. Seconds."""

    containers_max: int = 100
    memory_mib_max: int = 64 * 1024
    keep_warm_s: float = 60.0
    overrun_grace_s: float = 5.0
    drain_grace_s: float = 5.0
    """Past the action's timeout, for a container that drains."""
    silence_grace_s: float = 30.0
    residence_s: float = 1.0
    """How long a container serves at least, before others may have its room."""
    look_s: float = 1.0
    """Between two looks at all containers for what only time brings about."""
    prewarm: tuple[Stock, ...] = ()
    """What is kept of stem cells."""
