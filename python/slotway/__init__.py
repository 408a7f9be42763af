"""Slotway: exact concurrency limits for functions in containers, across many routers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slotway.aio import Activation, ApplicationError
    from slotway.client import Client
    from slotway.errors import SlotwayError
    from slotway.status import CallError

__all__ = ["Activation", "ApplicationError", "CallError", "Client", "SlotwayError"]


def __getattr__(name: str) -> object:
    """Loads the client when it is asked for: a runtime in a container imports this package too."""
    if name == "Client":
        from slotway.client import Client

        return Client
    if name == "SlotwayError":
        from slotway.errors import SlotwayError

        return SlotwayError
    if name in __all__:
        from slotway import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
