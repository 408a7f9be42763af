"""An engine of fake containers in a process of its own: they outlive the Managers, as real ones do.

`python -m drills.engine SOCKET`. A container is a listener that answers `/run` after as many
milliseconds as its argument `hold_ms` says, with how many requests ran in it when this one began:
the witness. Managers ask for containers over the Unix socket, a line of JSON for a line of JSON.
"""

import asyncio
import json
import sys
from pathlib import Path

from slotway.descriptors import raise_limit
from slotway.runtime.server import Connection
from slotway.signals import until_signalled

LINE_BYTES_MAX = 64 * 1024 * 1024
DESCRIPTORS = 16_000


class Container:
    """One listener; it is also what answers (`runtime.server.Handler`)."""

    def __init__(self, label: dict[str, object], path: Path) -> None:
        self.label, self.path = label, path
        self.running = 0
        self.server: asyncio.Server | None = None
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def init(self, body: bytes) -> tuple[int, bytes]:
        """Answers `/init`."""
        return 200, b'{"ok":true}'

    async def run(self, body: bytes) -> tuple[int, bytes]:
        """Answers `/run`."""
        self.running += 1
        seen = self.running
        try:
            if hold_ms := json.loads(body)["value"].get("hold_ms"):
                await asyncio.sleep(hold_ms / 1000)
        finally:
            self.running -= 1
        return 200, b'{"seen":%d}' % seen

    async def listen(self) -> None:
        """Begins to accept."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(
            lambda: Connection(self, self.connections, self.tasks), self.path, backlog=1024
        )

    def close(self) -> None:
        """Ends it, with what runs in it."""
        if self.server is not None:
            self.server.close()
        for task in list(self.tasks):
            task.cancel()
        for connection in list(self.connections):
            connection.abort()
        self.path.unlink(missing_ok=True)


class Engine:
    """All containers, and the ids that were ever used."""

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {}
        self.used: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One Manager's connection."""
        try:
            while line := await reader.readline():
                answer = await self.answer(json.loads(line))
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def answer(self, asked: dict[str, object]) -> object:
        """What a driver asks: create, destroy, ended, list."""
        name = str(asked.get("id", ""))
        match asked["do"]:
            case "create":
                if name in self.containers:
                    return "there"
                if name in self.used:
                    return "ended"
                self.used.add(name)
                container = Container(dict(asked["label"]), Path(str(asked["path"])))
                self.containers[name] = container
                await container.listen()
                return "there"
            case "destroy":
                self.used.add(name)
                if (found := self.containers.pop(name, None)) is not None:
                    found.close()
                return None
            case "ended":
                if name not in self.containers:
                    self.used.add(name)
                return name not in self.containers
            case _:
                return [[one.label, str(one.path)] for one in self.containers.values()]


async def main(socket: str) -> None:
    """Serves until a signal."""
    raise_limit(DESCRIPTORS, "one for each container")
    server = await asyncio.start_unix_server(Engine().serve, socket, limit=LINE_BYTES_MAX)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(until_signalled(main(sys.argv[1])))
