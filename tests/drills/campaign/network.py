"""A network of the campaign's own: each part has a host, that is, a network namespace with one
address, and all hosts are on one bridge. The campaign itself is at the bridge.

A cut is a rule of the host that does not want to hear. Its counter tells how many packets it met,
and the hosts' kernels tell how many connections were reset: so it is seen that a fault took effect.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from slotway.tether import tethered
from tests.integration.parts import Places

NET = "10.77.0"
HUB = f"{NET}.1"
OPEN_S = 10.0
COMMAND_S = 10.0
DROP, RESET = "drop", "reject with tcp reset"
SLOW = "rate 256kbit burst 1600 latency 400ms"
"""For what a host sends; `tc netem` is not in every kernel."""


class Network(Places):
    """To be opened inside of a house: it is gone when that is."""

    here = HUB

    def __init__(self, names: Sequence[str]) -> None:
        self._addresses = {name: f"{NET}.{number}" for number, name in enumerate(names, 10)}
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._tables = itertools.count(1)

    def host(self, name: str) -> str:
        """See `Places`."""
        return self._addresses[name]

    def command(self, name: str) -> list[str]:
        """See `Places`."""
        return ["nsenter", f"--net=/proc/{self._holders[name].pid}/ns/net", "--"]

    def open(self) -> None:
        """Makes the bridge, and the hosts."""
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "hub", "type", "bridge")
        _run("ip", "addr", "add", f"{HUB}/24", "dev", "hub")
        _run("ip", "link", "set", "hub", "up")
        for name, address in self._addresses.items():
            holder = subprocess.Popen(
                tethered(["unshare", "--net", "--", "sleep", "infinity"]),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._holders[name] = holder
            _until_apart(holder.pid)
            link = f"to-{name}"
            _run(
                "ip", "link", "add", link, "type", "veth", "peer", "eth0", "netns", str(holder.pid)
            )
            _run("ip", "link", "set", link, "master", "hub", "up")
            for command in (
                "ip link set lo up",
                f"ip addr add {address}/24 dev eth0",
                "ip link set eth0 up",
            ):
                self._at(name, *command.split())

    def _at(self, name: str, *command: str, text: str = "") -> str:
        return _run(*self.command(name), *command, text=text)

    @contextlib.asynccontextmanager
    async def deaf(self, name: str, to: Iterable[str], how: str = DROP) -> AsyncIterator[Rule]:
        """The host does not hear those others for as long as this lasts."""
        table = f"cut{next(self._tables)}"
        sources = ", ".join(self.host(other) for other in to)
        # A reset is not for the other end's rule.
        which = "tcp flags & rst == 0" if how == RESET else "meta l4proto tcp"
        rule = f"ip saddr {{ {sources} }} {which} counter {how}"
        chain = f"chain in {{ type filter hook input priority 0; {rule}; }}"
        self._at(name, "nft", "-f", "-", text=f"table ip {table} {{\n{chain}\n}}\n")
        try:
            yield Rule(self, name, table)
        finally:
            self._at(name, "nft", "delete", "table", "ip", table)

    @contextlib.asynccontextmanager
    async def slow(self, name: str) -> AsyncIterator[None]:
        """What the host sends goes slowly for as long as this lasts."""
        self._at(name, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *SLOW.split())
        try:
            yield
        finally:
            self._at(name, "tc", "qdisc", "del", "dev", "eth0", "root")

    def held_back(self, name: str) -> int:
        """How often a packet of the host had to wait since it is slow."""
        shown = self._at(name, "tc", "-s", "qdisc", "show", "dev", "eth0", "root")
        return int(re.findall(r"overlimits (\d+)", shown)[0])

    def resets(self, name: str) -> int:
        """How many established connections of the host were reset so far."""
        lines = Path(f"/proc/{self._holders[name].pid}/net/snmp").read_text().splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Tcp:"))
        return int(dict(zip(names, values, strict=True))["EstabResets"])

    def count(self, name: str, table: str) -> int:
        """Packets that a rule has met."""
        shown = self._at(name, "nft", "list", "table", "ip", table)
        return int(re.findall(r"counter packets (\d+)", shown)[0])


class Rule:
    """One that is in force."""

    def __init__(self, network: Network, name: str, table: str) -> None:
        self._network, self._name, self._table = network, name, table

    def packets(self) -> int:
        """How many it has met."""
        return self._network.count(self._name, self._table)


def _until_apart(pid: int) -> None:
    deadline = time.monotonic() + OPEN_S
    ours = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{pid}/ns/net") == ours:
        assert time.monotonic() < deadline, "no network namespace was made"
        time.sleep(0.005)


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()} {text}")
    return done.stdout
