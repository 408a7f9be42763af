"""What runs an action, as `slotway action create` and `update` are told: a kind of ours or an
image, and what its containers may do."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from slotway.errors import SlotwayError

Docker = Annotated[
    str | None,
    typer.Option(
        "--docker",
        metavar="IMAGE",
        help="Run this image, which speaks OpenWhisk's action interface on port 8080; code may be"
        " left out then.",
        show_default=False,
    ),
]
Concurrent = Annotated[
    bool | None,
    typer.Option(
        "--concurrent/--no-concurrent",
        help="Insist on --concurrency above 1 for a runtime that does not declare that it takes"
        " requests side by side.",
        show_default=False,
    ),
]
Network = Annotated[
    bool | None,
    typer.Option(
        "--network/--no-network",
        help="Let it open connections to other hosts; it cannot if not given (with the Docker"
        " driver: processes always can).",
        show_default=False,
    ),
]


def is_text(code: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        code.decode()
    except UnicodeDecodeError:
        return False
    return True


def choose(
    action: Any,
    kind: str | None,
    docker: str | None,
    concurrent: bool | None,
    network: bool | None,
) -> None:
    """Says in `action` what runs it."""
    if kind is not None and docker is not None:
        raise SlotwayError("give either --kind or --docker", reason="INVALID_FIELD")
    if docker is not None:
        action.exec.kind, action.exec.image = "blackbox", docker
    elif kind is not None:
        action.exec.image = ""
    if concurrent is not None:
        action.exec.concurrent = concurrent
    if network is not None:
        action.network = network
