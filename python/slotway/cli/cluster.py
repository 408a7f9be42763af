"""`slotway cluster …`: the cluster as its leader sees it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from slotway.cli.options import Endpoint, Format, Output
from slotway.cli.report import (
    EXIT_CODES,
    console,
    print_json,
    print_line,
    print_table,
    reporting,
    say,
    table,
)

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Look at the cluster.")

RETRY_SECONDS = 1.0
"""Between two attempts to watch while nobody leads."""
_ROUTERS = ("router", "state", "address", "waiting", "idle", "slots", "incarnation")
_STANDBYS = ("standby", "address", "revision", "lag", "ready", "incarnation")
_STANDBY_KEYS = ("manager", *_STANDBYS[1:])
_CONTAINERS = ("container", "action", "state", "capacity", "granted", "held by")


@app.command(epilog=EXIT_CODES)
def status(output: Output = Format.TABLE, endpoint: Endpoint = None) -> None:
    """Shows the leader, its standbys, the Routers and the containers.

    Examples:
      slotway cluster status
      slotway cluster status -o json | jq .leader
    """
    from slotway.cli import describe
    from slotway.cli.connection import connected

    with connected(endpoint) as client:
        shown = describe.cluster(client.cluster())
    if output is Format.JSON:
        print_json(shown)
        return
    print_table(("cluster", "leader", "address", "term", "ledger", "actions"), [_summary(shown)])
    print()
    print_table(_STANDBYS, [[one[key] for key in _STANDBY_KEYS] for one in shown["standbys"]])
    print()
    print_table(_ROUTERS, _router_rows(shown))
    print()
    print_table(_CONTAINERS, _container_rows(shown))


@app.command(epilog=EXIT_CODES)
def watch(
    count: Annotated[
        int | None,
        typer.Option("--count", help="End after this many changes.", show_default=False, min=1),
    ] = None,
    output: Output = Format.TABLE,
    endpoint: Endpoint = None,
) -> None:
    """Shows live who holds which slots, and what waits for them; end it with Ctrl-C.

    Where there is no terminal, each change is printed below the one before. With -o json it prints
    one line for the cluster as it is, and one after each change.

    Examples:
      slotway cluster watch
      slotway cluster watch -o json --count 1
    """
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def draw(shown: dict[str, Any]) -> Group:
        name, leader, address, term, ledger, actions = _summary(shown)
        head = (
            f"{name}: {leader} at {address} leads, term {term}, ledger {ledger}, {actions} actions"
        )
        return Group(
            Text(head, style="bold"),
            Text(),
            table(_ROUTERS[:-1], [row[:-1] for row in _router_rows(shown)]),
            Text(),
            table(_CONTAINERS, _container_rows(shown)),
        )

    with reporting():
        if output is Format.JSON:
            for shown in _changes(endpoint, count):
                print_line(shown)
        elif (to := console()).is_terminal:
            with Live(console=to, auto_refresh=False) as live:
                for shown in _changes(endpoint, count):
                    live.update(draw(shown), refresh=True)
        else:
            for shown in _changes(endpoint, count):
                to.print(draw(shown), "")
                sys.stdout.flush()


@app.command(epilog=EXIT_CODES)
def recover(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    above: Annotated[
        int,
        typer.Option(
            help="An epoch that was in use: needed if etcd has lost the ledger altogether.", min=0
        ),
    ] = 0,
    cluster: Annotated[
        str | None, typer.Option(help="The cluster's name.", show_default=False)
    ] = None,
    etcd: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,…", help="etcd's endpoints, with commas between.", show_default=False
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", envvar="SLOTWAY_CONFIG", help="A TOML file.", show_default=False),
    ] = None,
) -> None:
    """Begins a new epoch after etcd was wiped or restored: all containers are ended.

    An etcd that has lost history may have forgotten who may use what, so what runs has to end: the
    next leader ends every container of the older epochs before it serves anybody. This speaks with
    etcd itself; start the Managers that have stopped again afterwards. The epoch that was in use is
    the first number of `term` in `slotway cluster status`.

    Examples:
      slotway cluster recover --etcd 127.0.0.1:2379 --cluster default
      slotway cluster recover --etcd 127.0.0.1:2379 --above 3 --yes
    """
    import asyncio

    from slotway.cli.settings import read
    from slotway.manager.ledger import begin_epoch

    with reporting():
        flags: dict[str, Any] = {"cluster": cluster} if cluster is not None else {}
        if etcd is not None:
            flags["etcd"] = {"endpoints": etcd}
        settings = read(flags, config)
        where = f"cluster {settings.cluster!r} in etcd {', '.join(settings.etcd.endpoints)}"
        if not yes:
            typer.confirm(f"End every container of {where}, and begin anew?", abort=True)
        epoch = asyncio.run(begin_epoch(settings.etcd.access(), settings.cluster, above))
    say(f"epoch {epoch} of {where} has begun; the next leader ends what is older, then serves")


def _changes(endpoint: str | None, count: int | None) -> Any:
    """The cluster after each change, across changes of the leader; a Router has to be there."""
    from slotway.aio import CallError
    from slotway.cli import describe
    from slotway.cli.connection import connected

    seen = 0
    with connected(endpoint) as client:
        while True:
            try:
                for message in client.watch():
                    yield describe.cluster(message)
                    seen += 1
                    if seen == count:
                        return
            except CallError as error:
                if error.reason != "NO_LEADER":
                    raise
                say(str(error))
            time.sleep(RETRY_SECONDS)


def _summary(shown: dict[str, Any]) -> list[Any]:
    keys = ("name", "leader", "leader_address", "term", "ledger_revision", "actions")
    return [shown[key] for key in keys]


def _router_rows(shown: dict[str, Any]) -> list[list[Any]]:
    slots: dict[str, int] = {}
    for container in shown["containers"]:
        for incarnation, held in container["shares"].items():
            slots[incarnation] = slots.get(incarnation, 0) + held
    return [
        [
            router["name"] or "?",
            router["state"],
            router["address"],
            sum(demand["waiting"] for demand in router["demand"].values()),
            sum(demand["idle"] for demand in router["demand"].values()),
            slots.get(router["incarnation"], 0),
            router["incarnation"],
        ]
        for router in shown["routers"]
    ]


def _container_rows(shown: dict[str, Any]) -> list[list[Any]]:
    from slotway.cli import describe

    return [
        [
            container["id"],
            describe.owner(container),
            container["state"],
            container["capacity"],
            container["granted"],
            describe.shares(container),
        ]
        for container in shown["containers"]
    ]
