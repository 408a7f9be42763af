"""The CLI's way to a Router."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc

from slotway.cli.report import reporting
from slotway.client import Client
from slotway.errors import SlotwayError
from slotway.status import CallError


@contextlib.contextmanager
def connected(endpoint: str | None) -> Iterator[Client]:
    """A client of the endpoint that was given, or of the Router that `slotway dev` wrote down.

    What fails inside ends the command with a message and an exit code.
    """
    with reporting():
        address = endpoint or dev_endpoint()
        with Client(address) as client:
            try:
                yield client
            except CallError as error:
                if error.reason or error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise
                raise SlotwayError(
                    f"nobody answers at {address}: is `slotway dev` or a Router running there? "
                    "Name another with --endpoint or SLOTWAY_ENDPOINT",
                    reason="NO_ROUTER",
                ) from error


def dev_endpoint() -> str:
    """The first Router of the newest `slotway dev`."""
    from slotway.cli import devfile  # it imports the whole configuration

    written = devfile.read()
    if written is None:
        raise SlotwayError(
            "no Router is named, and no `slotway dev` was started here: start it, or give "
            "--endpoint or SLOTWAY_ENDPOINT",
            reason="NO_ROUTER",
        )
    return written.routers[0]
