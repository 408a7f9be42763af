"""The network of ours: addresses that the ledger counts through, no way out, and none to other
containers."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from typing import Any

from slotway.drivers.base import Addresses, DriverError
from slotway.drivers.docker.engine import Engine, EngineError

PORT = 8080
PREFIX_MAX = 24
LEDGER = "slotway.ledger"
CLUSTER = "slotway.cluster"


class Subnet:
    """The first address is the bridge's. The second is nobody's, and is the gateway that containers
    are told of: so the bridge's own is the only one of this machine that they can reach. The last
    1/256 is left to the engine's own allotment, for what others may attach. The rest is ours."""

    def __init__(self, text: str) -> None:
        """ValueError if it is no subnet for this."""
        self.network = ipaddress.IPv4Network(text)
        if self.network.prefixlen > PREFIX_MAX:
            raise ValueError(f"the subnet {text} is too small: it needs a prefix of at most /24")
        self.bridge, self.nobody = self.network[1], self.network[2]
        self.allotted = ipaddress.IPv4Network(
            (self.network[-(self.network.num_addresses >> 8)], self.network.prefixlen + 8)
        )
        count = int(self.allotted.network_address) - int(self.network.network_address) - 3
        self.addresses = Addresses(str(self.network), count)

    def address(self, number: int) -> str:
        """The address with this number, from 1 on, and the port."""
        assert 1 <= number <= self.addresses.count, number
        return f"{self.network[number + 2]}:{PORT}"


class Network:
    """One cluster's network. It carries the id of the ledger that counts its addresses."""

    def __init__(self, engine: Engine, cluster: str, subnet: Subnet) -> None:
        self.name = f"slotway.{cluster}"
        self._engine, self._cluster, self._subnet = engine, cluster, subnet
        self._sure: tuple[str, str] | None = None
        """The ledger whose network it was, when it was looked at last, and the engine's id of
        it."""
        self._looking = asyncio.Lock()
        """An engine that makes a network refuses another one like it before it shows the first."""

    async def ensure(self, ledger: str) -> str:
        """Makes the network if it is not there; DriverError if it is not for this ledger. Returns
        the engine's id of it. It is looked at once, unless there is reason for doubt: an engine
        refuses to start what is for a network that is gone."""
        async with self._looking:
            if self._sure is None or self._sure[0] != ledger:
                self._sure = (ledger, await self._look(ledger))
            return self._sure[1]

    async def _look(self, ledger: str) -> str:
        try:
            found = await self._engine.call("GET", f"/networks/{self.name}")
        except EngineError as error:
            if error.status != 404:
                raise
            found = await self._make(ledger)
        if found["Labels"].get(LEDGER) != ledger:
            raise DriverError(
                f"the Docker network {self.name} belongs to another ledger: another cluster of the"
                " same name uses this engine, or etcd was wiped. Choose another cluster name; or,"
                f" when no Router of the other one runs, `docker network rm {self.name}`"
            )
        wanted = self._config(ledger)
        ours = {key: found[key] for key in ("Internal", "Options")}
        ours["IPAM"] = [{key: one[key] for key in ("Subnet",)} for one in found["IPAM"]["Config"]]
        if ours != {
            "Internal": True,
            "Options": wanted["Options"],
            "IPAM": [{"Subnet": self._subnet.addresses.subnet}],
        }:
            raise DriverError(
                f"the Docker network {self.name} is not as configured (subnet"
                f" {self._subnet.addresses.subnet}): stop the cluster, and `docker network rm"
                f" {self.name}`"
            )
        return str(found["Id"])

    def doubt(self) -> None:
        """The next `ensure` looks again."""
        self._sure = None

    async def _make(self, ledger: str) -> dict[str, Any]:
        try:
            await self._engine.call("POST", "/networks/create", self._config(ledger))
        except EngineError as error:
            try:
                # Another driver of this cluster may have been quicker.
                found: dict[str, Any] = await self._engine.call("GET", f"/networks/{self.name}")
            except EngineError:
                raise DriverError(
                    f"the network for containers, {self._subnet.addresses.subnet}, cannot be made:"
                    f" {error}; another subnet is set with `docker_subnet`"
                ) from error
            return found
        made: dict[str, Any] = await self._engine.call("GET", f"/networks/{self.name}")
        return made

    async def remove(self) -> None:
        """Removes the network; DriverError while a container is in it."""
        self.doubt()
        try:
            await self._engine.call("DELETE", f"/networks/{self.name}")
        except EngineError as error:
            if error.status != 404:
                raise

    @property
    def bridge(self) -> str:
        """Its interface on this machine; a name has at most 15 bytes."""
        return "sw-" + hashlib.sha256(self._cluster.encode()).hexdigest()[:12]

    def _config(self, ledger: str) -> dict[str, object]:
        return {
            "Name": self.name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Internal": True,
            "EnableIPv6": False,
            "IPAM": {
                "Driver": "default",
                "Config": [
                    {
                        "Subnet": self._subnet.addresses.subnet,
                        "Gateway": str(self._subnet.bridge),
                        "AuxiliaryAddresses": {"DefaultGatewayIPv4": str(self._subnet.nobody)},
                        "IPRange": str(self._subnet.allotted),
                    }
                ],
            },
            "Options": {
                "com.docker.network.bridge.name": self.bridge,
                "com.docker.network.bridge.enable_icc": "false",
            },
            "Labels": {CLUSTER: self._cluster, LEDGER: ledger},
        }
