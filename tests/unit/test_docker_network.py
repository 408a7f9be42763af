"""The Docker network is made once, however many containers are the first to need it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from slotway.drivers.docker.engine import Engine, EngineError
from slotway.drivers.docker.network import Network, Subnet


class SlowEngine:
    """Makes networks slowly: another one of the same subnet is refused before the first is seen."""

    def __init__(self) -> None:
        self.networks: dict[str, dict[str, Any]] = {}
        self.making = 0

    async def call(self, method: str, path: str, body: Any = None, **_: object) -> dict[str, Any]:
        await asyncio.sleep(0)
        if method == "GET":
            if (found := self.networks.get(path.rpartition("/")[2])) is None:
                raise EngineError(404, "no such network")
            return found
        if self.making:
            raise EngineError(403, "Pool overlaps with other one on this address space")
        self.making += 1
        for _turn in range(5):
            await asyncio.sleep(0)
        self.making -= 1
        self.networks[body["Name"]] = {**body, "Id": "n1"}
        return {"Id": "n1"}


async def test_the_first_containers_make_one_network() -> None:
    network = Network(cast(Engine, SlowEngine()), "c", Subnet("100.96.0.0/16"))
    made = await asyncio.gather(*(network.ensure("ledger") for _ in range(4)))
    assert made == ["n1"] * 4
