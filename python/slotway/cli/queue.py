"""`slotway queue …`: what waits to be run without anybody waiting for it, and what was given up."""

from __future__ import annotations

from typing import Annotated

import typer

from slotway.cli.activation import described
from slotway.cli.options import Endpoint, Format, Output, full_name
from slotway.cli.report import EXIT_CODES, print_json, print_table, reporting, say
from slotway.errors import SlotwayError

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Look after the queue.")

DEAD_COLUMNS = ("submitted", "id", "action", "attempts", "reason")


@app.callback()
def _group() -> None:
    """Look after the queue of invocations without -b."""


@app.command(epilog=EXIT_CODES)
def status(output: Output = Format.TABLE, endpoint: Endpoint = None) -> None:
    """Shows what could be run now, by action, and how many activations were given up.

    Examples:
      slotway queue status
    """
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        queue = client.queue()
    waiting = [
        {"action": one.action, "waiting": one.count, "since": one.since.ToJsonString()}
        for one in queue.waiting
    ]
    if output is Format.JSON:
        print_json({"waiting": waiting, "dead": queue.dead})
        return
    if waiting:
        print_table(("action", "waiting", "since"), [list(one.values()) for one in waiting])
    else:
        say("nothing waits")
    if queue.dead:
        say(f"{queue.dead} were given up: `slotway queue dead` lists them")


@app.command(epilog=EXIT_CODES)
def dead(
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, max=1000, help="At most.")] = 30,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Lists the oldest activations that were given up, and why.

    Examples:
      slotway queue dead
    """
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        found = [described(one) for one in client.list_dead(limit=limit)]
    shown = [{column: one[column] for column in DEAD_COLUMNS} for one in found]
    if output is Format.JSON:
        print_json(shown)
    elif shown:
        print_table(DEAD_COLUMNS, [list(one.values()) for one in shown])
    else:
        say("none was given up")


@app.command(epilog=EXIT_CODES)
def redrive(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]…", help="These.", show_default=False),
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", help="All of this action.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All.")] = False,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Queues activations anew that were given up, as if they had been submitted now.

    Examples:
      slotway queue redrive 0199a2c4-…
      slotway queue redrive --action hello
      slotway queue redrive --all
    """
    from slotway.cli.connection import connected

    if bool(ids) + (action is not None) + every != 1:
        raise typer.BadParameter("name ids, or --action, or --all")
    with reporting(), connected(endpoint) as client:
        done = client.redrive(ids or (), action=full_name(action) if action is not None else "")
        if output is Format.JSON:
            print_json(done)
        else:
            say(f"queued {len(done)} anew")
        if missing := sorted(set(ids or ()) - set(done)):
            raise SlotwayError(
                f"not given up, so not queued: {', '.join(missing)}", reason="ACTIVATION_NOT_FOUND"
            )
