"""`slotway load`: open-loop load on actions, and what became of it."""

from __future__ import annotations

import socket
import sys
from typing import Annotated, Any

import typer

from slotway.cli.options import Endpoints, Format, Output, full_name
from slotway.cli.parameters import ParameterFile, Parameters, read
from slotway.cli.report import as_json, print_json, print_table, reporting, say
from slotway.errors import SlotwayError
from slotway.load import Arrivals, Generator, Shape, summary, zipf

SAY_S = 1.0
_FACTORS = {Shape.BURSTY: 10.0, Shape.WAVE: 0.5}
_COLUMNS = ("action", "arrived", "ok", "failed", "p50", "p90", "p99", "p99.9", "max", "seen")
Actions = Annotated[
    list[str],
    typer.Argument(metavar="ACTION…", help="One action or more.", show_default=False),
]


def load(
    actions: Actions,
    rate: Annotated[float, typer.Option(help="Requests per second, of all actions together.")] = (
        100.0
    ),
    duration: Annotated[str, typer.Option(help='How long requests arrive, "10s".')] = "10s",
    arrivals: Annotated[Shape, typer.Option(help="The shape of the arrivals.")] = Shape.POISSON,
    factor: Annotated[
        float | None,
        typer.Option(
            help="bursty: times the rate in a burst, 10 if not given; wave: the part by which it "
            "swings, 0.5 if not given.",
            show_default=False,
        ),
    ] = None,
    period: Annotated[str, typer.Option(help="From one burst or wave to the next.")] = "1s",
    skew: Annotated[
        float, typer.Option(help="The n-th action is chosen in proportion to 1 / n^SKEW.", min=0)
    ] = 0.0,
    deadline: Annotated[str, typer.Option(help="Of each request.")] = "60s",
    late: Annotated[str, typer.Option(help="Answers after this are counted as late.")] = "1s",
    connections: Annotated[int, typer.Option(help="To each Router.", min=1, max=1000)] = 1,
    seed: Annotated[int, typer.Option(help="The same seed, the same arrivals.", min=0)] = 0,
    param: Parameters = None,
    param_file: ParameterFile = None,
    output: Output = Format.TABLE,
    endpoint: Endpoints = None,
) -> None:
    """Sends requests at a fixed rate, whether or not they are answered, and measures the answers.

    A latency (in milliseconds) is counted from the moment when the request was due, so that a stall
    is not hidden by the requests that were not sent during it. `seen` is the greatest number "seen"
    in a result: what a witness in the action's own code tells. Ctrl-C ends it early, with a report.

    Examples:
      slotway load hello --rate 500 --duration 30s
      slotway load hot warm cold --skew 1.2 --arrivals bursty --factor 10
      slotway load hello -p name Ada -o json
    """
    with reporting():
        names = [full_name(action) for action in actions]
        payload = as_json(read(param, param_file) or {}, indent=None).encode()
        weights = zipf(len(names), skew)
        try:
            generator = Generator(
                [resolved(each) for each in endpoint or _dev_routers()],
                [(name, payload, weight) for name, weight in zip(names, weights, strict=True)],
                Arrivals(
                    rate,
                    _seconds(duration, "--duration"),
                    arrivals,
                    _FACTORS.get(arrivals, 1.0) if factor is None else factor,
                    _seconds(period, "--period"),
                    seed,
                ),
                connections=connections,
                deadline_s=_seconds(deadline, "--deadline"),
                late_s=_seconds(late, "--late"),
            )
        except ValueError as error:
            raise SlotwayError(str(error), reason="INVALID_FIELD") from error
        generator.start()
        shown = summary(_follow(generator))
    if output is Format.JSON:
        print_json(shown)
        return
    print_table(_COLUMNS, [_row(action) for action in shown["actions"]])
    lag = shown["generator_lag_ms"]
    say(f"{shown['seconds']:g} s; the generator itself was late by {lag['p99']:g} ms at p99")


def _follow(generator: Any) -> Any:
    """Waits for the end, and says how far it is; Ctrl-C once stops the arrivals."""
    try:
        while not generator.wait(SAY_S):
            if sys.stderr.isatty():
                arrived, succeeded, failed = generator.progress()
                say(f"{arrived} arrived, {succeeded} succeeded, {failed} failed")
    except KeyboardInterrupt:
        say("stopping: requests under way are waited for")
        generator.stop()
    try:
        return generator.join()
    except ConnectionError as error:
        raise SlotwayError(f"{error}: is the Router running?", reason="NO_ROUTER") from error


def _row(action: dict[str, Any]) -> list[Any]:
    failed = " ".join(f"{name}:{count}" for name, count in action["failed"].items()) or "-"
    latencies = [f"{value:.3g}" for value in action["latency_ms"].values()]
    name, arrived, ok = action["action"], action["arrived"], action["ok"]
    return [name, arrived, ok, failed, *latencies, action["seen_max"] or "-"]


def _seconds(text: str, option: str) -> float:
    from slotway.config import duration as parsed

    try:
        return parsed(text).total_seconds()
    except ValueError as error:
        raise SlotwayError(f"{option}: {error}", reason="INVALID_FIELD") from error


def _dev_routers() -> list[str]:
    from slotway.cli import devfile

    written = devfile.read()
    if written is None:
        raise SlotwayError(
            "no Router is named, and no `slotway dev` was started here: start it, or give "
            "--endpoint",
            reason="NO_ROUTER",
        )
    return list(written.routers)


def resolved(endpoint: str) -> str:
    """The endpoint with its host's address; INVALID_FIELD if it is none."""
    from slotway.config import split_address

    try:
        host, port = split_address(endpoint)
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, ValueError) as error:
        raise SlotwayError(f"--endpoint {endpoint}: {error}", reason="INVALID_FIELD") from error
    return f"[{found[0]}]:{port}" if family is socket.AF_INET6 else f"{found[0]}:{port}"
