"""What commands print, and what they exit with.

Answers go to stdout and nothing else does; messages go to stderr, one line that says what to do,
without a traceback.
"""

from __future__ import annotations

import contextlib
import json
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
    except OSError as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_USER) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def print_line(value: Any) -> None:
    """One JSON document on one line of stdout, for streams of them."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; not cut to the terminal's width where there is no terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 250
    console.print(table(headings, rows))


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Any:
    """A table of plain text."""
    from rich.markup import escape
    from rich.table import Table

    made = Table(*headings, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made
