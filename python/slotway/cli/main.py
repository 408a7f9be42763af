"""The command `slotway`: a list of what there is. Each command has a file of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from slotway.cli import action, activation, cluster, config, container, queue
from slotway.cli.dev import dev
from slotway.cli.drill import drill
from slotway.cli.load import load
from slotway.cli.manager import manager
from slotway.cli.parameters import ParametersCommand
from slotway.cli.report import EXIT_CODES
from slotway.cli.router import router

app = typer.Typer(
    name="slotway",
    help="Functions in containers, each with an exact limit on the requests that it runs at once.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"slotway {metadata.version('slotway')}")
        raise typer.Exit


@app.callback()
def _slotway(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


app.command()(dev)
app.add_typer(action.app, name="action")
app.add_typer(activation.app, name="activation")
app.add_typer(container.app, name="container")
app.add_typer(queue.app, name="queue")
app.add_typer(cluster.app, name="cluster")
app.add_typer(config.app, name="config")
app.command(cls=ParametersCommand, epilog=EXIT_CODES)(load)
app.command(epilog=EXIT_CODES)(drill)
app.command()(manager)
app.command()(router)
