"""`slotway config`: looks at the configuration without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `check` a command of its own."""


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The TOML file.", envvar="SLOTWAY_CONFIG")],
) -> None:
    """Explain every mistake in FILE and in the SLOTWAY_* variables."""
    from slotway.cli.settings import ConfigError, read, unknown_variables

    for name in unknown_variables():
        typer.echo(f"{name}: this variable means nothing to slotway", err=True)
    try:
        settings = read({}, file)
    except ConfigError as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(1) from exc
    typer.echo(f"{file}: no mistakes (cluster {settings.cluster})")
