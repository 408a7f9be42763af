"""The fake driver, for containers that live in an engine's process of their own (`engine`)."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

from drills.engine import LINE_BYTES_MAX
from slotway.drivers.base import ContainerFound, ContainerId, ContainerSpec, DriverError, Label
from slotway.drivers.fake import FakeDriver
from slotway.drivers.init import post_init


class LastingDriver(FakeDriver):
    """See `drivers.base.Driver`. A Manager's end is no end of its containers."""

    def __init__(self, cluster: str, sockets: Path, engine: Path) -> None:
        super().__init__(cluster, sockets)
        self._engine = engine
        self._lock = asyncio.Lock()
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def _ask(self, do: str, container: str = "", **more: object) -> object:
        async with self._lock:
            try:
                self._stream = self._stream or await asyncio.open_unix_connection(
                    self._engine, limit=LINE_BYTES_MAX
                )
                reader, writer = self._stream
                writer.write(json.dumps({"do": do, "id": container, **more}).encode() + b"\n")
                return json.loads(await reader.readline())
            except (OSError, ValueError) as exc:
                self._stream = None
                raise DriverError(f"the bench's engine does not answer: {exc}") from exc
            except asyncio.CancelledError:
                self._stream = None  # its answer may be on the way
                raise

    def engine(self) -> str:
        """The same for all Managers."""
        return f"fake/{self._engine}"

    async def create(self, spec: ContainerSpec) -> None:
        """Listens."""
        label = spec.label
        carried = {
            "cluster": label.cluster,
            "epoch": label.epoch,
            "id": label.id,
            "term": label.term,
        }
        path = (spec.address or self.address(label.id)).removeprefix("unix:")
        if await self._ask("create", label.id, path=path, label=carried) != "there":
            raise DriverError(f"container {label.id} has ended")

    async def init(
        self,
        container: ContainerId,
        value: dict[str, object],
        timeout: timedelta,  # noqa: ASYNC109
    ) -> None:
        """`POST /init`."""
        await post_init(self.address(container), value, timeout)

    async def destroy(self, container: ContainerId) -> None:
        """Ends it."""
        await self._ask("destroy", container)
        self.tell(container, "")

    async def has_ended(self, container: ContainerId) -> bool:
        """Whether it is not there; it will not be again."""
        return bool(await self._ask("ended", container))

    async def list(self) -> list[ContainerFound]:
        """What listens."""
        found = await self._ask("list")
        assert isinstance(found, list)
        return [
            ContainerFound(Label(**label), True, f"unix:{path}")
            for label, path in found
            if label["cluster"] == self._cluster
        ]
