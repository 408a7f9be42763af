"""Logs, configured in one place: for people in a terminal, one JSON object per line otherwise."""

from __future__ import annotations

import logging
import sys

import structlog

from slotway.config import LogConfig


def configure(config: LogConfig, **context: str) -> None:
    """Logs to standard error from now on; `context` (say, `router="r1"`) is in every line."""
    people = config.format == "console" or (config.format == "auto" and sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[config.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not people),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if people
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**context)
    # What libraries log by the standard module joins in.
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr, force=True)
