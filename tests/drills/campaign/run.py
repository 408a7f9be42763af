"""One run of the campaign: load, a fault, quiet, and what must hold; again and again."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from slotway.errors import SlotwayError
from tests.drills.campaign.clocks import Clocks, library
from tests.drills.campaign.ground import Fault, Ground, NoEffect
from tests.drills.campaign.ledger import LedgerWitness
from tests.drills.campaign.network import Network
from tests.drills.campaign.schedule import rounds
from tests.drills.campaign.stores import no_disk, small_disk
from tests.drills.campaign.terms import TermWitness
from tests.drills.mixture.load import STEADY, Load
from tests.drills.mixture.settling import all_back
from tests.drills.mixture.witness import Witness
from tests.integration.gathering import listen
from tests.integration.parts import Parts, Places

LEAD_S, TAIL_S = 1.0, 1.0
"""Of load, before a fault and after it."""
QUIET_S = 2.0
FAULT_S = 150.0
"""For one fault and all parts to be back."""
END_S = 60.0
"""For the requests that are under way."""
MANAGERS, ROUTERS, ETCDS = 3, 3, 3
MANAGER = ("--keep-warm", "1h")
VARIABLES = {"SLOTWAY_MANAGER_OVERRUN_GRACE": "1s", "SLOTWAY_MANAGER_SILENCE_GRACE": "5s"}
ROUTER = ("--give-back", "1s", "--max-wait", "20s")
CONTAINERS_MAX = "32"
MOODS = {"": 0.985, "raise": 0.01, "hang up": 0.005}
NAMES = [kind.name for kind in STEADY]


class Run:
    """One cluster, and what was done to it."""

    def __init__(self, seed: int, seconds: float, faults: Mapping[str, Fault]) -> None:
        self.seed, self.seconds, self.faults = seed, seconds, faults
        self.injected: Counter[str] = Counter()
        self.effective: Counter[str] = Counter()
        self.seen: dict[str, str] = {}
        """By fault: what was seen the last time."""
        self.broken: list[str] = []
        self.houses = 0
        self.summary = ""
        self._began = time.monotonic()

    async def run(self, folder: Path, network: Network | None) -> None:
        """All of it; what is broken is in `broken`."""
        cluster = f"drills-{os.getpid()}"
        os.environ |= VARIABLES
        flags = (*MANAGER, "--containers-max", CONTAINERS_MAX)
        places: Places = network or Places()
        clocks = None
        if library():
            places = clocks = Clocks(places, folder / "clocks")
        parts = Parts(
            folder / "parts",
            cluster,
            managers=MANAGERS,
            routers=ROUTERS,
            manager_flags=flags,
            router_flags=ROUTER,
            etcd_members=ETCDS,
            places=places,
        )
        if network:
            small_disk(parts.etcds[-1].data_dir)
        try:
            await self._live(parts, network, clocks)
        finally:
            no_disk(parts.etcds[-1].data_dir)

    async def _live(self, parts: Parts, network: Network | None, clocks: Clocks | None) -> None:
        witness = Witness(listen("process", parts.cluster, parts.places.here))
        await witness.start()
        async with (
            parts,
            LedgerWitness(parts.endpoints, parts.cluster) as ledger,
            TermWitness(parts) as terms,
        ):
            load = Load(parts.clients, witness.address, MOODS)
            self._ground = Ground(parts, load, witness, network, clocks)
            self._ledger, self._terms = ledger, terms
            for name in NAMES:
                await load.put(name, parts.clients[0])
            await self._ground.until_whole()
            await self._storm()
        self.broken += list(witness.verdict(load.answered))
        witness.stop()
        if not self.broken:
            self._judge()

    async def _storm(self) -> None:
        for number in range(10**9):
            for name in rounds(self.seed + number, list(self.faults)):
                if number and time.monotonic() - self._began > self.seconds:
                    return
                await self._cycle(name, random.Random(f"{self.seed} {number} {name}"))
                if self.broken:
                    return

    async def _cycle(self, name: str, rng: random.Random) -> None:
        """One fault under load, and what must hold after it."""
        ground, load = self._ground, self._ground.load
        load.stopping.clear()
        work = [load.work(kind, rng) for kind in STEADY for _ in range(kind.workers)]
        work.append(load.come_and_go(rng))
        workers = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.sleep(LEAD_S)
            await self._inject(name, rng)
            await asyncio.sleep(TAIL_S)
            load.stopping.set()
            async with asyncio.timeout(END_S):
                await asyncio.gather(*workers)
        except TimeoutError:
            self.broken.append("I5: requests do not end")
        finally:
            load.stopping.set()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if not self.broken:
            await asyncio.sleep(QUIET_S)
            self._take("I4", await all_back(ground.parts, load, NAMES))
            self.houses += 1
        self._look()
        self._say(name)

    async def _inject(self, name: str, rng: random.Random) -> None:
        self.injected[name] += 1
        try:
            async with asyncio.timeout(FAULT_S):
                self.seen[name] = await self.faults[name](self._ground, rng)
            self.effective[name] += 1
        except NoEffect as error:
            self.seen[name] = f"NO EFFECT: {error}"
        except (SlotwayError, OSError, AssertionError, TimeoutError) as error:
            self.seen[name] = f"{error!r}"
            self.broken.append(f"after {name!r} the cluster is not whole: {error!r}")

    def _look(self) -> None:
        """What the witnesses have seen."""
        load, witness = self._ground.load, self._ground.witness
        self._take("I1", witness.faults)
        self._take("", self._terms.faults)
        self._take("", self._ledger.faults)
        if not (self._terms.alive() and self._ledger.alive()):
            self.broken.append("a witness has ended")
        if load.sent != load.outcomes.total():
            self.broken.append(f"I5: {load.sent} requests, {load.outcomes.total()} answers")
        self._take("I5", load.odd)
        self.summary = (
            f"{load.sent} requests, {load.outcomes['ok']} ok, others:"
            f" { {k: v for k, v in load.outcomes.most_common() if k != 'ok'} };"
            f" {len(witness.ran_in)} runs in {len(witness.containers)} containers, most at once by"
            f" C: {witness.highest()}; {self._ledger.revisions} revisions of the ledger,"
            f" {self._ledger.leaders} terms, {self._ledger.gaps} gaps;"
            f" {self._terms.answers.total()} looks at Routers' terms;"
            f" {self.houses} times all slots used at once"
        )

    def _take(self, invariant: str, faults: list[str]) -> None:
        self.broken += [f"{invariant}: {fault}" if invariant else fault for fault in faults[:5]]

    def _say(self, name: str) -> None:
        load, witness = self._ground.load, self._ground.witness
        print(
            f"{time.monotonic() - self._began:5.0f} s  {name}: {self.seen[name]}; {load.sent}"
            f" requests, {load.outcomes['ok']} ok; most at once by C: {witness.highest()}",
            flush=True,
        )

    def _judge(self) -> None:
        """Over the whole run."""
        highest = self._ground.witness.highest()
        for capacity in {kind.concurrency for kind in STEADY}:
            if highest.get(capacity) != capacity:
                self.broken.append(f"I1: C={capacity} was not reached: {highest}")
        for name, times in self.injected.items():
            if self.effective[name] < times:
                self.broken.append(f"{name}: {self.effective[name]} of {times} took effect")
