"""`slotway manager`: runs one Manager in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slotway.cli.report import reporting

if TYPE_CHECKING:
    from slotway.config import ManagerConfig

_UNSET: dict[str, Any] = {"show_default": False}
DESCRIPTORS_OWN = 256
DESCRIPTORS_PER_CONTAINER = 4


def manager(
    id_: Annotated[
        str | None, typer.Option("--id", help="Differs between a cluster's Managers.", **_UNSET)
    ] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", **_UNSET)] = None,
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
    data_dir: Annotated[
        Path | None, typer.Option(help="Containers' logs and folders, and code.", **_UNSET)
    ] = None,
    driver: Annotated[
        str | None, typer.Option(help="process, docker, or fake (runs no code).", **_UNSET)
    ] = None,
    docker_subnet: Annotated[
        str | None,
        typer.Option(metavar="CIDR", help="Where containers' addresses come from.", **_UNSET),
    ] = None,
    api_host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where actions invoke others: the Routers' --actions-listen.",
            **_UNSET,
        ),
    ] = None,
    code_store: Annotated[
        str | None, typer.Option(metavar="URL", help="Where code is kept: fsspec.", **_UNSET)
    ] = None,
    containers_max: Annotated[
        int | None, typer.Option(help="Containers at most.", **_UNSET)
    ] = None,
    memory_max_mib: Annotated[
        int | None, typer.Option(help="Memory of all containers at most.", **_UNSET)
    ] = None,
    keep_warm: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help='How long an idle container is kept, "5m".', **_UNSET
        ),
    ] = None,
    prewarm: Annotated[
        str | None,
        typer.Option(
            metavar="KIND=MIN-MAX",
            help='Stem cells kept per kind, as in "python:3=2-8": cold starts are quicker.',
            **_UNSET,
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error.", **_UNSET)
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, console or json.", **_UNSET)] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", envvar="SLOTWAY_CONFIG", help="A TOML file.", **_UNSET),
    ] = None,
) -> None:
    """Runs one Manager in the foreground: it creates containers and shares their slots.

    Flags win over SLOTWAY_MANAGER_… variables, and these over the file; `slotway config check`
    explains mistakes. SIGTERM stops it in order, and containers live on; a second one stops it at
    once.

    Examples:
      slotway manager --listen 127.0.0.1:7200 --etcd 127.0.0.1:2379
      slotway manager --id m2 --listen 10.0.0.5:7200 --insecure --config slotway.toml
    """
    from slotway import log
    from slotway.cli.settings import load
    from slotway.config import ManagerConfig

    flags = {
        "cluster": cluster,
        "etcd": _given(endpoints=etcd),
        "log": _given(level=log_level, format=log_format),
        "manager": _given(
            id=id_,
            listen=listen,
            advertise=advertise,
            insecure=insecure,
            data_dir=data_dir,
            driver=driver,
            docker_subnet=docker_subnet,
            api_host=api_host,
            code_store=code_store,
            containers_max=containers_max,
            memory_max_mib=memory_max_mib,
            keep_warm=keep_warm,
            prewarm=prewarm,
        ),
    }
    with reporting():
        settings = load(ManagerConfig, _given(**flags), config)
        log.configure(settings.log, manager=settings.id)
        _run(settings)


def _run(settings: ManagerConfig) -> None:
    import asyncio

    from slotway.descriptors import raise_limit
    from slotway.manager.server import serve
    from slotway.rundir import make_folder
    from slotway.signals import until_signalled

    make_folder(settings.data_dir, "data_dir")
    wanted = DESCRIPTORS_OWN + DESCRIPTORS_PER_CONTAINER * settings.containers_max
    raise_limit(wanted, f"{DESCRIPTORS_PER_CONTAINER} for each of {settings.containers_max}")
    asyncio.run(until_signalled(serve(settings)))


def _given(**flags: Any) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value not in (None, {})}
