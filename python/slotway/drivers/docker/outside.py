"""The second network, of containers whose action may reach other hosts: a way out, and none to one
another. Routers do not use its addresses, so the engine allots them, and uses them again."""

from __future__ import annotations

import hashlib
from typing import Any

from slotway.drivers.base import DriverError
from slotway.drivers.docker.engine import Engine, EngineError
from slotway.drivers.docker.network import CLUSTER


class Outside:
    """One cluster's network to the outside, made when it is first needed."""

    def __init__(self, engine: Engine, cluster: str, subnet: str) -> None:
        """`subnet`: where its addresses come from; empty: the engine finds a free one."""
        self.name = f"slotway.{cluster}.out"
        self._engine, self._cluster, self._subnet = engine, cluster, subnet
        self._id = ""
        """The engine's, when it was looked at last."""

    async def attach(self, engine_id: str) -> None:
        """Connects a container that is to be started, unless it is connected; DriverError."""
        network = await self._ensure()
        try:
            await self._engine.call(
                "POST", f"/networks/{network}/connect", {"Container": engine_id}
            )
        except EngineError as error:
            self.doubt()
            if "already exists in network" not in str(error):
                raise

    async def _ensure(self) -> str:
        if self._id:
            return self._id
        found = await self._find()
        if found is None:
            try:
                await self._engine.call("POST", "/networks/create", self._config())
            except EngineError as error:
                # Another driver of this cluster may have been quicker.
                if await self._find() is None:
                    raise DriverError(
                        f"the network to the outside, {self._subnet or 'any free one'}, cannot be"
                        f" made: {error}; another subnet is set with `docker_out_subnet`"
                    ) from error
            found = await self._find()
        if found is None or not self._is_as_configured(found):
            raise DriverError(
                f"the Docker network {self.name} is not as configured: stop the cluster, and"
                f" `docker network rm {self.name}`"
            )
        self._id = str(found["Id"])
        return self._id

    def _is_as_configured(self, found: dict[str, Any]) -> bool:
        wanted = self._config()
        subnets = [one["Subnet"] for one in found["IPAM"]["Config"]]
        return (
            all(found[key] == wanted[key] for key in ("Internal", "Options", "Labels"))
            and len(subnets) == 1
            and self._subnet in ("", subnets[0])
        )

    async def _find(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._engine.call("GET", f"/networks/{self.name}")
        except EngineError as error:
            if error.status != 404:
                raise
            return None
        return found

    def doubt(self) -> None:
        """It is looked at again before it is used."""
        self._id = ""

    async def remove(self) -> None:
        """Removes the network, if it is there; DriverError while a container is in it."""
        self.doubt()
        try:
            await self._engine.call("DELETE", f"/networks/{self.name}")
        except EngineError as error:
            if error.status != 404:
                raise

    @property
    def bridge(self) -> str:
        """Its interface on this machine; a name has at most 15 bytes."""
        return "so-" + hashlib.sha256(self._cluster.encode()).hexdigest()[:12]

    def _config(self) -> dict[str, Any]:
        return {
            "Name": self.name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Internal": False,
            "EnableIPv6": False,
            "IPAM": {
                "Driver": "default",
                "Config": [{"Subnet": self._subnet}] if self._subnet else [],
            },
            "Options": {
                "com.docker.network.bridge.name": self.bridge,
                "com.docker.network.bridge.enable_icc": "false",
            },
            "Labels": {CLUSTER: self._cluster},
        }
