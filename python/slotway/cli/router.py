"""`slotway router`: runs one Router in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from slotway.cli.report import reporting

_UNSET: dict[str, Any] = {"show_default": False}


def router(
    name: Annotated[
        str | None, typer.Option(help="Differs between the Routers of a cluster.", **_UNSET)
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The front door.", **_UNSET)
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="What others connect to, if not --listen.", **_UNSET
        ),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure",
            help="Allow an address other than loopback: there is no TLS yet.",
            **_UNSET,
        ),
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="The cluster's name.", **_UNSET)] = None,
    etcd: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,…", help="etcd's endpoints, with commas between.", **_UNSET
        ),
    ] = None,
    queue_max: Annotated[
        int | None, typer.Option(help="Requests of one action that may wait.", **_UNSET)
    ] = None,
    actions_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where actions invoke others; the same for all Routers of a machine.",
            **_UNSET,
        ),
    ] = None,
    nested_max_wait: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help='How long a request of a running action waits at most, "5s".',
            **_UNSET,
        ),
    ] = None,
    max_wait: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help='How long a request waits at most, "60s".', **_UNSET),
    ] = None,
    give_back: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help='When slots that idled so long are given back, "10s".',
            **_UNSET,
        ),
    ] = None,
    drain: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help='How long a stop waits for what runs, "30s".', **_UNSET
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Native threads.", **_UNSET)] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keeps asynchronous invocations: sqlite:////path, or postgresql://user@host/db.",
            **_UNSET,
        ),
    ] = None,
    async_wait: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help='How long these may wait until they count as demand, "1s".',
            **_UNSET,
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error.", **_UNSET)
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, console or json.", **_UNSET)] = None,
    planted_bug: Annotated[str | None, typer.Option(hidden=True)] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", envvar="SLOTWAY_CONFIG", help="A TOML file.", **_UNSET),
    ] = None,
) -> None:
    """Runs one Router in the foreground: the front door for requests, which shares containers with
    the other Routers.

    Flags win over SLOTWAY_ROUTER_… variables, and these over the file; `slotway config check`
    explains mistakes. SIGTERM stops it in order; a second one at once.

    Examples:
      slotway router --listen 127.0.0.1:7100 --etcd 127.0.0.1:2379
      slotway router --name r2 --listen 10.0.0.5:7100 --insecure --config slotway.toml
    """
    import asyncio

    from slotway import log
    from slotway.cli.settings import load
    from slotway.config import RouterConfig

    flags = {
        "cluster": cluster,
        "etcd": _given(endpoints=etcd),
        "log": _given(level=log_level, format=log_format),
        "router": _given(
            name=name,
            listen=listen,
            advertise=advertise,
            insecure=insecure,
            queue_max=queue_max,
            actions_listen=actions_listen,
            nested_max_wait=nested_max_wait,
            max_wait=max_wait,
            give_back=give_back,
            drain=drain,
            threads=threads,
            store=store,
            async_wait=async_wait,
            planted_bug=planted_bug,
        ),
    }
    with reporting():
        settings = load(RouterConfig, _given(**flags), config)
        log.configure(settings.log, router=settings.name)
        from slotway.router.server import serve
        from slotway.signals import until_signalled

        asyncio.run(until_signalled(serve(settings)))


def _given(**flags: Any) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value not in (None, {})}
