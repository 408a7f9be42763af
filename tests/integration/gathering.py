"""A barrier outside of Slotway: actions connect to it, and each is answered when enough have come.

Containers of Docker reach nothing of this machine but what listens on their bridge's address, so it
listens there, before the bridge exists.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from types import TracebackType
from typing import Self

from slotway.drivers.docker.options import dev_subnet

IP_FREEBIND = 15
CODE = b"""
import asyncio
async def main(args):
    if args.get("gather"):
        host, _, port = args["gather"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await reader.read()
        writer.close()
    return {}
"""


def listen(driver: str, cluster: str, host: str = "127.0.0.1") -> socket.socket:
    """A listener on any port of the one address of this machine that containers can reach: `host`,
    unless they are Docker's."""
    listener = socket.socket()
    if driver == "docker":
        host = str(ipaddress.IPv4Network(dev_subnet(cluster))[1])
        listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    listener.bind((host, 0))
    listener.listen(4096)
    return listener


class Gathering:
    """Lets nobody go before `count` have come."""

    def __init__(self, listener: socket.socket, count: int) -> None:
        self._listener, self.count = listener, count
        self.arrived = 0
        self.full = asyncio.Event()
        host, port = listener.getsockname()
        self.address = f"{host}:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, sock=self._listener)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()

    async def _serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrived += 1
        if self.arrived >= self.count:
            self.full.set()
        await self.full.wait()
        writer.close()
