"""`slotway dev`: a whole cluster on this machine, in the foreground."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from slotway.cli.report import reporting, say

_UNSET: dict[str, Any] = {"show_default": False}


def dev(
    routers: Annotated[int, typer.Option(min=1, max=64, help="How many Routers.")] = 3,
    managers: Annotated[int, typer.Option(min=1, max=8, help="How many Managers.")] = 2,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where all state lives; ~/.local/state/slotway/dev if not given.", **_UNSET
        ),
    ] = None,
    etcd: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,…", help="Use this etcd; otherwise one is started.", **_UNSET
        ),
    ] = None,
    etcd_members: Annotated[
        int, typer.Option(min=1, max=5, help="How many members an etcd of its own has.")
    ] = 1,
    cluster: Annotated[
        str | None, typer.Option(help="The cluster's name; dev if not given.", **_UNSET)
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="The first Router's port, the others' follow; 0: any free ones."
        ),
    ] = 0,
    driver: Annotated[
        str, typer.Option(help="process, docker, or fake (runs no code).")
    ] = "process",
    containers_max: Annotated[
        int | None, typer.Option(help="Containers at most.", **_UNSET)
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
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the containers running at the end.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", envvar="SLOTWAY_CONFIG", help="A TOML file.", **_UNSET),
    ] = None,
) -> None:
    """Runs a whole cluster on this machine: etcd, Managers and Routers, in the foreground.

    These are the very commands `slotway manager` and `slotway router`, as children of this one. The
    other commands find the Routers by themselves. Ctrl-C stops everything, and leaves no process.
    State stays in the data folder, for the next time.

    Examples:
      slotway dev
      slotway dev --routers 1 --port 7100 --data-dir ./state
      slotway dev --driver docker
      slotway dev --etcd-members 3 --managers 3
    """
    import asyncio

    from slotway.cli.devcluster import DevCluster, DevOptions
    from slotway.cli.settings import read
    from slotway.config import LogConfig, state_dir
    from slotway.descriptors import raise_limit
    from slotway.log import configure
    from slotway.rundir import make_folder

    with reporting():
        configure(LogConfig(level="warning"))
        folder = make_folder((data_dir or state_dir() / "dev").absolute(), "data_dir")
        raise_limit(4096, "for requests, slots and containers")
        limits: dict[str, Any] = {
            "containers_max": containers_max,
            "keep_warm": keep_warm,
            "prewarm": prewarm,
        }
        given = {name: value for name, value in limits.items() if value is not None}
        if driver == "docker":
            # An engine tells its clusters apart by their names and subnets alone.
            cluster = cluster or f"dev-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"
        cluster = cluster or "dev"
        flags: dict[str, Any] = {"cluster": cluster, "manager": {"driver": driver, **given}}
        if etcd is not None:
            flags["etcd"] = {"endpoints": etcd}
        settings = read(flags, config)
        access = settings.etcd.access()
        docker = settings.manager.docker_options()
        if driver == "docker" and "subnet" not in docker:
            from slotway.drivers.docker.options import dev_subnet

            docker["subnet"] = limits["docker_subnet"] = dev_subnet(cluster)
        actions_host = ""
        if driver == "docker":
            from slotway.drivers.docker.network import Subnet

            actions_host = str(Subnet(docker["subnet"]).bridge)
        elif driver == "process":
            actions_host = "127.0.0.1"
        if settings.manager.api_host or settings.router.actions_listen:
            actions_host = ""
        options = DevOptions(
            data_dir=folder,
            cluster=cluster,
            access=access if etcd is not None else _own(access),
            etcd_members=etcd_members,
            routers=routers,
            managers=managers,
            port=port,
            driver=driver,
            docker=docker,
            manager_flags=_flags(**limits),
            flags=_flags(config=config, log_format="console"),
            keep=keep,
            actions_host=actions_host,
        )

        async def run() -> bool:
            dev_cluster = DevCluster(options, lambda text: print(text, flush=True))
            _on_signals(dev_cluster)
            return await dev_cluster.run()

        whole = asyncio.run(run())
    if not whole:
        say("error: part of the cluster died, see above")
        raise typer.Exit(1)


def _own(access: Any) -> Any:
    from slotway.etcd import Access

    return Access(endpoints=(), timeout_s=access.timeout_s)


def _flags(**values: object) -> list[str]:
    return [
        part
        for name, value in values.items()
        if value is not None
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]


def _on_signals(cluster: Any) -> None:
    """The first signal stops the cluster in order, a second one at once."""
    import asyncio
    import signal

    def signalled() -> None:
        if cluster.stop.is_set():
            cluster.hurry.set()
        cluster.stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signalled)
