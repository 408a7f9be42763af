"""Options and arguments that many commands share."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from slotway.errors import SlotwayError

DEFAULT_NAMESPACE = "default"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


class Format(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[
    Format,
    typer.Option("--output", "-o", help="For people, or JSON for programs (messages on stderr)."),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        envvar="SLOTWAY_ENDPOINT",
        metavar="HOST:PORT",
        help="Any Router; otherwise the first one of `slotway dev`.",
        show_default=False,
    ),
]
Endpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        metavar="HOST:PORT",
        help="A Router; may be given several times. Otherwise all of `slotway dev`.",
        show_default=False,
    ),
]
ActionName = Annotated[
    str,
    typer.Argument(
        metavar="ACTION",
        help="NAME (in the namespace default), NAMESPACE/NAME or /NAMESPACE/NAME.",
        show_default=False,
    ),
]


def full_name(given: str) -> str:
    """The action's "namespace/name"; as in wsk, the namespace "_" stands for the default one."""
    parts = given.removeprefix("/").split("/")
    if len(parts) == 1 and not given.startswith("/"):
        parts = [DEFAULT_NAMESPACE, *parts]
    if len(parts) != 2 or not all(_PART.fullmatch(part) for part in parts):
        raise SlotwayError(
            f"{given!r} is no action's name: use NAME, NAMESPACE/NAME or /NAMESPACE/NAME, "
            "each part of letters, digits and _.@- (64 at most)",
            reason="INVALID_FIELD",
        )
    namespace, name = parts
    return f"{DEFAULT_NAMESPACE if namespace == '_' else namespace}/{name}"
