"""`slotway activation …`: what became of asynchronous invocations."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from slotway.cli.options import DEFAULT_NAMESPACE, Endpoint, Format, Output, full_name
from slotway.cli.report import EXIT_CODES, as_json, print_json, print_table, reporting, say
from slotway.errors import SlotwayError

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="See what became of invocations."
)

ActivationId = Annotated[str, typer.Argument(metavar="ID", help="As `action invoke` told it.")]
COLUMNS = ("submitted", "id", "action", "state", "status", "attempts", "run_ms", "reason")
_POLL_S = 0.2


@app.callback()
def _group() -> None:
    """See what became of invocations without -b."""


@app.command(epilog=EXIT_CODES)
def get(id: ActivationId, output: Output = Format.TABLE, endpoint: Endpoint = None) -> None:
    """Shows one activation.

    Examples:
      slotway activation get 0199a2c4-…
    """
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        shown = described(client.get_activation(id))
    if output is Format.JSON:
        print_json(shown)
        return
    rows = {**shown, "result": None if shown["result"] is None else as_json(shown["result"])}
    print_table(("field", "value"), [(name, _cell(value)) for name, value in rows.items()])


@app.command(epilog=EXIT_CODES)
def result(
    id: ActivationId,
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait",
            "-w",
            metavar="SECONDS",
            min=0,
            help="Wait so long for an outcome.",
            show_default=False,
        ),
    ] = None,
    endpoint: Endpoint = None,
) -> None:
    """Prints what the action returned; it is an error if there is no result.

    Examples:
      slotway activation result 0199a2c4-…
      slotway activation result 0199a2c4-… --wait 30
    """
    from slotway.cli.connection import connected

    with reporting(), connected(endpoint) as client:
        until = time.monotonic() + (wait or 0)
        while (one := described(client.get_activation(id)))["state"] in ("queued", "claimed"):
            if time.monotonic() >= until:
                raise SlotwayError(
                    f"{id} has no outcome yet: it is {one['state']}", reason="DEADLINE"
                )
            time.sleep(_POLL_S)
        if one["state"] == "dead":
            raise SlotwayError(f"{id} was given up: {one['reason']}", reason="APPLICATION_ERROR")
        print_json(one["result"])
        if one["status"] != "success":
            raise SlotwayError(f"{id}: {one['status']}", reason="APPLICATION_ERROR")


@app.command(name="list", epilog=EXIT_CODES)
def list_(
    action: Annotated[
        str | None,
        typer.Argument(metavar="[ACTION]", help="Only of this action.", show_default=False),
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Of all its actions.")
    ] = DEFAULT_NAMESPACE,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, max=1000, help="At most.")] = 30,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Lists the newest activations, of an action or of a namespace.

    Examples:
      slotway activation list
      slotway activation list hello --limit 5 -o json
    """
    from slotway.cli.connection import connected

    name = full_name(action) if action is not None else ""
    with connected(endpoint) as client:
        found = client.list_activations(
            name.partition("/")[0] or namespace, action=name, limit=limit
        )
    shown = [described(one) for one in found]
    if output is Format.JSON:
        for one in shown:
            del one["result"]
        print_json(shown)
        return
    if not shown:
        say("no activations")
        return
    print_table(COLUMNS, [[_cell(one[column]) for column in COLUMNS] for one in shown])


def described(one: Any) -> dict[str, Any]:
    """An activation for people and programs."""
    from slotway.v1 import activation_pb2 as pb

    def moment(name: str) -> str | None:
        return getattr(one, name).ToJsonString() if one.HasField(name) else None

    status = pb.Activation.Status.Name(one.status).removeprefix("STATUS_").lower()
    return {
        "id": one.id,
        "action": one.action,
        "state": pb.Activation.State.Name(one.state).removeprefix("STATE_").lower(),
        "status": status if one.status else None,
        "attempts": one.attempts,
        "submitted": moment("submitted_at"),
        "started": moment("started_at"),
        "finished": moment("finished_at"),
        "run_ms": one.run.ToMicroseconds() / 1000 if one.HasField("run") else None,
        "router": one.router or None,
        "container_id": one.container_id or None,
        "result": json.loads(one.result) if one.result else None,
        "reason": one.reason or None,
    }


def _cell(value: object) -> object:
    return "-" if value is None else value
