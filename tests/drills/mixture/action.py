"""The action of the mixture. Before and after anything else it tells the witness, over a connection
of its own; what it cannot tell makes its run fail.

`WITNESS`, `CAPACITY` and `VERSION` are replaced by their values before it is put.
"""

import asyncio
import os
import socket
import time
from typing import Any

from slotway.runtime.activation import activation

CONTAINER = os.environ["SLOTWAY_CONTAINER"]
running = 0
link: socket.socket | None = None


def tell(what: str, run: str) -> None:
    """Blocks until the kernel has it. A clock that the whole machine shares tells when it was."""
    global link
    if link is None:
        link = socket.create_connection(("WITNESS", 0), timeout=10)
        link.sendall(f"container {CONTAINER} CAPACITY VERSION\n".encode())
    link.sendall(f"{what} {run} {time.monotonic_ns()} {running}\n".encode())


async def main(args: dict[str, Any]) -> dict[str, Any]:
    """Misbehaves as it is told."""
    global running
    run = activation().id
    running += 1
    tell("begin", run)
    try:
        match args.get("mood"):
            case "raise":
                raise ValueError("as told")
            case "crash":
                await asyncio.sleep(0.02)
                os._exit(3)
            case "memory":
                hoard = []
                while True:  # every page is written to
                    hoard.append(b"x" * (8 << 20))
            case "clock":
                return {"now_s": time.time(), "deadline_s": activation().deadline_ms / 1000}
            case "gather":
                host, _, port = args["gather"].rpartition(":")
                reader, writer = await asyncio.open_connection(host, int(port))
                await reader.read()
                writer.close()
            case _:
                await asyncio.sleep(args.get("sleep_s", 0))
        return {}
    finally:
        tell("end", run)
        running -= 1
