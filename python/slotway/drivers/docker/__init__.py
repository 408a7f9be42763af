"""The Docker driver: containers of the engine on this machine, hardened, in a network of ours."""

from __future__ import annotations

from slotway.drivers.docker.driver import DockerDriver
from slotway.drivers.docker.options import DockerOptions

__all__ = ["DockerDriver", "DockerOptions"]
