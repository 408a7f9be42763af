"""`slotway config`: looks at the configuration without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slotway.cli.options import Format, Output
from slotway.cli.report import EXIT_CODES, EXIT_USER, print_json, say

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Look at the configuration.")


@app.callback()
def _group() -> None:
    """Keeps `check` a command of its own."""


@app.command(epilog=EXIT_CODES)
def check(
    file: Annotated[Path, typer.Argument(help="The TOML file.", envvar="SLOTWAY_CONFIG")],
    output: Output = Format.TABLE,
) -> None:
    """Explains every mistake in FILE and in the SLOTWAY_* variables.

    Examples:
      slotway config check slotway.toml
    """
    from slotway.cli.settings import ConfigError, read, unknown_variables

    notes = [f"{name}: this variable means nothing to slotway" for name in unknown_variables()]
    mistakes: list[str] = []
    try:
        settings = read({}, file)
    except ConfigError as exc:
        mistakes = str(exc).splitlines()
    if output is Format.JSON:
        print_json({"file": str(file), "mistakes": mistakes, "notes": notes})
    else:
        for line in (*notes, *mistakes):
            say(line)
        if not mistakes:
            typer.echo(f"{file}: no mistakes (cluster {settings.cluster})")
    if mistakes:
        raise typer.Exit(EXIT_USER)
