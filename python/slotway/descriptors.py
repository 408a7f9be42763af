"""File descriptors: the soft limit is raised to the hard one, and said if that is too low."""

from __future__ import annotations

import resource

import structlog

log = structlog.get_logger(__name__)


def raise_limit(wanted: int, what: str) -> int:
    """Raises the soft limit as far as allowed; warns if fewer than `wanted` are. Returns them.

    `what` says what each is for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < wanted:
        log.warning(
            "too few file descriptors: raise the hard limit (`ulimit -Hn`)",
            allowed=hard,
            wanted=wanted,
            what=what,
        )
    return hard
