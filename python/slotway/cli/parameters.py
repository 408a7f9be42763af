"""`-p KEY VALUE` and `-P FILE`, as wsk has them.

Typer's options take one value or a fixed number once; `-p` takes two, any number of times. So the
two are joined into one JSON array before Typer parses, and taken apart again after.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from slotway.errors import SlotwayError

_NAMES = ("-p", "--param")

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        *_NAMES,
        metavar="KEY VALUE",
        help="An argument; VALUE is JSON, or else a string. Can be given many times.",
        show_default=False,
    ),
]
ParameterFile = Annotated[
    Path | None,
    typer.Option(
        "-P",
        "--param-file",
        metavar="FILE",
        help="A JSON object with arguments; those of -p win.",
        show_default=False,
    ),
]


class ParametersCommand(TyperCommand):
    """A command with `Parameters` among its options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Joins the two values of each `-p`."""
        joined, rest = [], list(args)
        while rest:
            word = rest.pop(0)
            joined.append(word)
            if word == "--":
                break
            if word in _NAMES:
                if len(rest) < 2:
                    raise typer.BadParameter(f"{word} takes two values: {word} KEY VALUE", ctx=ctx)
                joined.append(json.dumps([rest.pop(0), rest.pop(0)]))
        return super().parse_args(ctx, joined + rest)


def read(pairs: list[str] | None, file: Path | None) -> dict[str, Any] | None:
    """The arguments as one object; None if none were given."""
    if not pairs and file is None:
        return None
    values: dict[str, Any] = {}
    if file is not None:
        try:
            found = json.loads(file.read_bytes())
        except ValueError as error:
            raise _invalid(f"{file} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise _invalid(f"{file} must hold one JSON object")
        values.update(found)
    for pair in pairs or ():
        key, text = json.loads(pair)
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values


def _invalid(message: str) -> SlotwayError:
    return SlotwayError(message, reason="INVALID_FIELD")
