"""What commands print, and what they exit with.

Answers go to stdout and nothing else does; messages go to stderr, one line that says what to do,
without a traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from slotway.errors import SlotwayError

EXIT_USER = 1
EXIT_APPLICATION = 3
EXIT_PLATFORM = 4
EXIT_CODES = """Exit codes:
  0 done
  1 your input is at fault: not found, conflict, out of range
  2 wrong usage
  3 the action's own code failed
  4 Slotway could not do it: no leader, no Router, full"""

_USER = {
    "ACTION_NOT_FOUND",
    "ACTIVATION_NOT_FOUND",
    "INVALID_FIELD",
    "INVALID_PAYLOAD",
    "REQUEST_TOO_LARGE",
    "REVISION_CONFLICT",
}
_APPLICATION = {"APPLICATION_ERROR", "INIT_FAILED", "ACTION_TIMEOUT", "RESULT_TOO_LARGE"}


def exit_code(error: SlotwayError) -> int:
    """Tells user error, application error and platform error apart, by the reason."""
    if error.reason in _USER:
        return EXIT_USER
    return EXIT_APPLICATION if error.reason in _APPLICATION else EXIT_PLATFORM


def say(message: str) -> None:
    """A message for the person at the terminal."""
    print(message, file=sys.stderr)


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Ends the command with a message and the right exit code, whatever fails on purpose."""
    try:
        yield
    except SlotwayError as error:
        message = str(error).rstrip()
        if error.retry_delay is not None:
            message += f" (try again in {error.retry_delay.total_seconds():g} s)"
        say(f"error: {message}")
        raise typer.Exit(exit_code(error)) from error
    except BrokenPipeError:
        # Whoever read has read enough (`… | head`); nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except OSError as error:
        say(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")
        raise typer.Exit(EXIT_USER) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def as_json(value: Any, indent: int | None = 2) -> str:
    """JSON that stdout can take: escaped where its encoding lacks a character, as all lack
    half a surrogate pair."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(as_json(value), flush=True)


def print_line(value: Any) -> None:
    """One JSON document on one line of stdout, for streams of them."""
    print(as_json(value, indent=None), flush=True)


def console() -> Any:
    """Stdout for tables; lines are not broken where there is no terminal."""
    from rich.console import Console

    made = Console()
    if not made.is_terminal:
        made.width = 250
    return made


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout."""
    console().print(table(headings, rows))


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Any:
    """A table of plain text; cells are folded, not cut, so that ids can be copied."""
    from rich.markup import escape
    from rich.table import Table

    made = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made
