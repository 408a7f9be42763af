"""What an operator may choose about the Docker driver."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

SOCKET = "/var/run/docker.sock"
SUBNET = "100.64.0.0/11"
CPUS = 1.0
IMAGES: Mapping[str, str] = MappingProxyType(
    {"python:3": "slotway/python:3", "python:default": "slotway/python:3"}
)


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """Where the engine is, and what its containers get."""

    socket: str = SOCKET
    """The engine's Unix socket: containers are reached over its bridge, so it is on this
    machine."""
    subnet: str = SUBNET
    """Where containers' addresses come from. None of them is used twice, so it is large."""
    out_subnet: str = ""
    """For the network of containers that may reach other hosts; empty: the engine finds a free
    one."""
    cpus: float = CPUS
    """Of one container; 0: no limit."""
    images: Mapping[str, str] = field(default_factory=lambda: IMAGES)
    """The image of each kind of runtime."""


def dev_subnet(cluster: str) -> str:
    """One of 32 subnets, apart from the default one, for clusters that come and go."""
    return f"100.{96 + hashlib.sha256(cluster.encode()).digest()[0] % 32}.0.0/16"
