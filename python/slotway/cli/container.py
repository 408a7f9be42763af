"""`slotway container …`: looks at containers."""

from __future__ import annotations

from typing import Annotated

import typer

from slotway.cli.options import Endpoint, Format, Output, full_name
from slotway.cli.report import EXIT_CODES, print_json, print_table

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Look at containers.")

COLUMNS = ("id", "action", "state", "capacity", "granted", "routers", "address")

ENDED_COLUMNS = ("id", "action", "revision", "served_seconds", "ended_at", "crashed", "reason")


@app.callback()
def _group() -> None:
    """Look at containers."""


@app.command(name="list", epilog=EXIT_CODES)
def list_(
    action: Annotated[
        str | None, typer.Option("--action", help="Only of this action.", show_default=False)
    ] = None,
    ended: Annotated[
        bool,
        typer.Option(
            "--ended",
            help="Those that ended under the present leader, and why: the newest 10 of each "
            "action.",
        ),
    ] = False,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Lists the containers on the ledger, and who holds how many of their slots.

    Examples:
      slotway container list
      slotway container list --ended --action hello
      slotway container list --action hello -o json
    """
    from slotway.cli import describe
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        wanted = full_name(action) if action is not None else None
        cluster = client.cluster(with_ended=ended)
    shown = (
        list(map(describe.ended, cluster.ended))
        if ended
        else describe.cluster(cluster)["containers"]
    )
    found = [container for container in shown if wanted in (None, container["action"])]
    if output is Format.JSON:
        print_json(found)
        return
    if ended:
        rows = [[container[column] for column in ENDED_COLUMNS] for container in found]
        print_table(
            ENDED_COLUMNS, [["-" if cell is None else cell for cell in row] for row in rows]
        )
        return
    for container in found:
        container["routers"] = describe.shares(container)
        container["action"] = describe.owner(container)
    print_table(COLUMNS, [[container[column] for column in COLUMNS] for container in found])


@app.command(epilog=EXIT_CODES)
def logs(
    container: Annotated[str, typer.Argument(metavar="ID", help="The container.")],
    activation: Annotated[
        str | None,
        typer.Option("--activation", metavar="ID", help="Only lines of this.", show_default=False),
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=10_000, help="The last ones, at most.")
    ] = 1000,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Prints what a container printed last: time, activation, stream and text of each line.

    `slotway action invoke` tells an activation and its container. A process's log is kept for a
    while after its end; Docker's goes with the container.

    Examples:
      slotway container logs 2b7fa08445290c62
      slotway container logs 2b7fa08445290c62 --activation 0199a2c4-…
    """
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        found = client.log(container, activation_id=activation or "", lines=lines)
    if output is Format.JSON:
        print_json(found)
        return
    for line in found:
        typer.echo(line)
