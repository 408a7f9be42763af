"""Drivers: how containers are created, found again and ended. `base` is the interface,
`open_driver` the way in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slotway.drivers.base import Driver

NAMES = ("process", "docker", "fake")


def open_driver(
    name: str,
    cluster: str,
    data_dir: Path,
    socket_dir: Path,
    docker: Mapping[str, Any] = MappingProxyType({}),
) -> Driver:
    """The driver of this name for the containers of one cluster, not yet started. ValueError for
    another name.

    `data_dir` is the driver's own; the path of `socket_dir` must be short
    (`process.ProcessDriver`). `docker` is for that driver: fields of its
    `DockerOptions`.
    """
    # Imported when asked for: a container's process imports this package too, and stays small.
    if name == "process":
        from slotway.drivers.process import ProcessDriver

        return ProcessDriver(cluster, data_dir, socket_dir)
    if name == "docker":
        from slotway.drivers.docker import DockerDriver, DockerOptions

        return DockerDriver(cluster, DockerOptions(**docker))
    if name == "fake":
        from slotway.drivers.fake import FakeDriver

        return FakeDriver(cluster, socket_dir)
    raise ValueError(f"no driver {name!r}; there are: {', '.join(NAMES)}")
