"""`slotway drill`: tries a fault on a live cluster under load, and tells what it cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from slotway.cli.options import Endpoints, Format, Output
from slotway.cli.report import print_json, print_table, reporting, say
from slotway.errors import SlotwayError

_TIMES = {
    "ended_s": "the fault was ended",
    "key_owned_s": "the leader key is owned",
    "told_s": "Routers are told",
    "share_s": "first new share received",
    "cold_s": "first cold request answered",
}


def drill(
    name: Annotated[
        str | None,
        typer.Argument(metavar="DRILL", help="Without it, all are listed.", show_default=False),
    ] = None,
    rate: Annotated[
        float, typer.Option(help="Warm requests per second, of each of two actions.", min=1)
    ] = 200.0,
    seconds: Annotated[
        float, typer.Option(help="How long what is stopped stays so.", min=0, max=600)
    ] = 10.0,
    etcd: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,…",
            help="etcd's endpoints; otherwise those of `slotway dev`.",
            show_default=False,
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="The cluster's name; otherwise that of `slotway dev`."),
    ] = None,
    router: Endpoints = None,
    pid: Annotated[
        list[str] | None,
        typer.Option(
            "--pid",
            metavar="NAME=PID",
            help="The process of a Manager or of an etcd member (etcd-1, …) on this machine; may "
            "be given several times. Otherwise those of `slotway dev`.",
            show_default=False,
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Tries a fault on a live cluster under load, and tells what it cost.

    On a cluster that people use it is a fault like any other.

    It puts four actions in the namespace drill, sends steady load to two of them, does what the
    drill says, shows each command as it could be typed, and measures: when the leader key was owned
    anew, when Routers were told, when one got its first new share, and when a cold request was
    answered; which warm requests failed or were late, and the longest time without a warm answer.
    The exit code is 4 if a warm request failed, or the action saw more than C at once.

    Examples:
      slotway drill
      slotway drill kill-leader
      slotway drill stop-etcd --seconds 60
      slotway drill delete-key --etcd 10.0.0.5:2379 --cluster prod --endpoint 10.0.0.5:7100
    """
    import asyncio

    from slotway.drills.drill import DRILLS
    from slotway.drills.run import run

    if name is None:
        _list(output)
        return
    with reporting():
        if name not in DRILLS:
            raise SlotwayError(
                f"no drill is named {name!r}; there are {', '.join(DRILLS)}", reason="INVALID_FIELD"
            )
        target = _target(etcd, cluster, router, pid)
        chosen = DRILLS[name]
        say(f"{chosen.name}: {chosen.summary}. Expected: {chosen.expect}")
        result = asyncio.run(run(chosen, target, rate=rate, seconds=seconds, say=say))
        faults = result.faults()
    if output is Format.JSON:
        print_json({"drill": name, **asdict(result), "faults": faults})
    else:
        _print(asdict(result))
    for fault in faults:
        say(f"error: {fault}")
    if faults:
        raise typer.Exit(4)


def _list(output: Format) -> None:
    from slotway.drills.drill import DRILLS

    rows = [
        {"drill": drill.name, "what": drill.summary, "expect": drill.expect}
        for drill in DRILLS.values()
    ]
    if output is Format.JSON:
        print_json(rows)
        return
    print_table(("drill", "what it does", "what to expect"), [list(row.values()) for row in rows])


def _print(result: dict[str, Any]) -> None:
    rows = [
        (what, f"{result[key] * 1e3:.0f} ms after the fault")
        for key, what in _TIMES.items()
        if result[key] is not None
    ]
    for action in result["load"]["actions"]:
        failed = sum(action["failed"].values())
        rows += [
            (f"{action['action']}: requests", f"{action['arrived']}"),
            ("  failed, late (1 s)", f"{failed}, {action['late']}"),
            ("  latency p50, p99, max", _latencies(action["latency_ms"])),
            ("  longest time without an answer", f"{action['longest_gap_ms']:.0f} ms"),
            ("  most at once, seen by the action", f"{action['seen_max']}"),
        ]
    print_table(("measured", "value"), rows)


def _latencies(of: dict[str, float]) -> str:
    return f"{of['p50']:.1f}, {of['p99']:.1f}, {of['max']:.1f} ms"


def _target(
    etcd: str | None, cluster: str | None, routers: list[str] | None, pids: list[str] | None
) -> Any:
    from slotway.cli import devfile
    from slotway.cli.load import resolved
    from slotway.drills.steps import Target

    written = devfile.read()
    if written is None and not (etcd and cluster and routers):
        raise SlotwayError(
            "no `slotway dev` was started here: start it, or give --etcd, --cluster and --endpoint",
            reason="NO_ROUTER",
        )
    given = dict(_pid(text) for text in pids or ())
    return Target(
        cluster=cluster or (written.cluster if written else ""),
        etcd=tuple((etcd or (written.etcd if written else "")).split(",")),
        routers=tuple(resolved(each) for each in routers or (written.routers if written else ())),
        pids={**(written.pids if written and not etcd else {}), **given},
    )


def _pid(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isdigit():
        raise SlotwayError(f"--pid {text}: write NAME=PID", reason="INVALID_FIELD")
    return name, int(number)
