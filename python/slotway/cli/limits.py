"""The limits of an action, as `slotway action create` and `update` are told."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from slotway.errors import SlotwayError

Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        "-c",
        help="Requests that one container takes at once, 1 to 1000; 1 if not given.",
        show_default=False,
    ),
]
Timeout = Annotated[
    int | None,
    typer.Option(
        "--timeout",
        "-t",
        metavar="MS",
        help="How long one run may take, in milliseconds, 100 to 600000; 60000 if not given.",
        show_default=False,
    ),
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        "-m",
        metavar="MIB",
        help="Memory of one container in MiB, 64 to 4096; 256 if not given.",
        show_default=False,
    ),
]
ContainersMin = Annotated[
    int | None,
    typer.Option(
        "--containers-min",
        metavar="N",
        help="Containers that are kept ready even without requests, 0 to 1000; 0 if not given.",
        show_default=False,
    ),
]
ContainersMax = Annotated[
    int | None,
    typer.Option(
        "--containers-max",
        metavar="N",
        help="Containers that there may be of it at most, 1 to 100000; 0, or not given: as many as "
        "the cluster holds.",
        show_default=False,
    ),
]
KeepWarm = Annotated[
    str | None,
    typer.Option(
        "--keep-warm",
        metavar="DURATION",
        help="How long a container that no Router holds a slot of is kept, as in 500ms, 30s, 5m or "
        "1h, at most 168h; default, or not given: as the Manager is configured.",
        show_default=False,
    ),
]


def limit(limits: Any, concurrency: int | None, timeout: int | None, memory: int | None) -> None:
    """Sets what was given; what is out of range is for the server to say, which knows it."""
    for option, value, put in (
        ("--concurrency", concurrency, partial(setattr, limits, "concurrency")),
        ("--memory", memory, partial(setattr, limits, "memory_mib")),
        ("--timeout", timeout, limits.timeout.FromMilliseconds),
    ):
        _put(option, value, put)


def _put(option: str, value: int | None, put: Any) -> None:
    if value is None:
        return
    try:
        put(value)
    except ValueError as error:  # not even a message can hold it
        raise SlotwayError(
            f"{option}: {value} is out of range, see --help", reason="INVALID_FIELD"
        ) from error


def limit_containers(
    limits: Any, containers_min: int | None, containers_max: int | None, keep_warm: str | None
) -> None:
    """Sets what was given, or takes it back to the default; the server checks the ranges."""
    from slotway.config import duration

    _put("--containers-min", containers_min, partial(setattr, limits, "containers_min"))
    if containers_max == 0:
        limits.ClearField("containers_max")
    else:
        _put("--containers-max", containers_max, partial(setattr, limits, "containers_max"))
    if keep_warm == "default":
        limits.ClearField("keep_warm")
    elif keep_warm is not None:
        try:
            limits.keep_warm.FromTimedelta(duration(keep_warm))
        except (ValueError, OverflowError) as error:
            raise SlotwayError(f"--keep-warm: {error}", reason="INVALID_FIELD") from error
