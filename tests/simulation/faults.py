"""What goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.world import World


class Faults:
    """See the module."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin_one(self) -> None:
        """A random fault."""

    async def end(self) -> None:
        """All is well again."""
