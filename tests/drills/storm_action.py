"""The action of the storm. It counts its requests before it does anything else, and adds each
new maximum to a file at once, so that the count outlives a `kill -9`."""

import asyncio
import os
import uuid
from pathlib import Path
from typing import Any

CONTAINER = f"{os.getpid()}-{uuid.uuid4().hex}"
running = 0
highest = 0


def arrive(directory: str) -> None:
    """Counts one more request in this container."""
    global running, highest
    running += 1
    if running > highest:
        highest = running
        with Path(directory, CONTAINER).open("ab", buffering=0) as seen:
            seen.write(b"%d\n" % highest)


async def main(args: dict[str, Any]) -> dict[str, Any]:
    """Misbehaves as it is told."""
    global running
    arrive(args["witness_dir"])
    try:
        match args.get("mood"):
            case "raise":
                raise ValueError("as told")
            case "exit":
                os._exit(3)
            case "overrun":
                await asyncio.sleep(args["overrun_s"])
            case "barrier":
                await barrier(Path(args["barrier"]), args["count"])
            case _:
                await asyncio.sleep(args.get("sleep_s", 0))
        return {"container": CONTAINER}
    finally:
        running -= 1


async def barrier(path: Path, count: int) -> None:
    """Waits until `count` requests have arrived, in whatever container."""
    with path.open("ab", buffering=0) as arrivals:
        arrivals.write(b".")
    while path.stat().st_size < count:
        await asyncio.sleep(0.05)
