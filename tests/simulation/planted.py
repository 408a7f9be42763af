"""Bugs that are made on purpose: the simulation has to find each of them.

Those of the accounting are `slotcore/accounting/src/planted.rs`, in an extension that was built
with them (`make planted`); the others are made here, by replacing one method of the product.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

EXTENSION = Path(__file__).parents[2] / "target/proof/lib_slotcore.so"


def use_planted_extension() -> None:
    """Has the accounting's mistakes to choose from; before anything imports it."""
    name = "slotway._slotcore"
    assert name not in sys.modules, "too late"
    if not EXTENSION.exists():
        raise SystemExit("the extension with planted bugs is not there: run `make planted`")
    loader = importlib.machinery.ExtensionFileLoader(name, str(EXTENSION))
    spec = importlib.util.spec_from_file_location(name, EXTENSION, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[name] = module


def _chain_without_guard(stack: ExitStack) -> None:
    """a chain that compares neither the leader key nor the turn before it"""
    stack.enter_context(mock.patch("slotway.manager.chain.Chain._guards", return_value=[]))


def _chain_without_turn(stack: ExitStack) -> None:
    """a chain that compares the leader key, and not the turn before it"""
    from slotway.manager.chain import Chain

    real = Chain._guards
    stack.enter_context(
        mock.patch("slotway.manager.chain.Chain._guards", lambda self, turn: real(self, turn)[:1])
    )


def _settled_by_reading(stack: ExitStack) -> None:
    """a write without an answer is settled by reading, not by a fence"""
    import asyncio

    from slotway.etcd import EtcdUnavailable, Get
    from slotway.manager.chain import Chain, Records

    async def fence(self: Any) -> Records:
        keys = self._keys
        reads = [Get(keys.turn), Get(keys.containers, True), Get(keys.actions, True)]
        while True:
            try:
                turn, containers, actions = (await self._client.txn([], reads)).found
            except EtcdUnavailable:
                await asyncio.sleep(0.2)
            else:
                return Records(turn[0].mod_revision, containers, actions)

    stack.enter_context(mock.patch.object(Chain, "fence", fence))


def _free_on_hangup(stack: ExitStack) -> None:
    """a slot is free when its client has left, although its code runs"""
    import asyncio

    from tests.simulation.plane import SimulatedPlane

    real = SimulatedPlane._run

    async def run(self: Any, request: Any, slot: Any, spec: Any) -> Any:
        running = asyncio.ensure_future(real(self, request, slot, spec))
        await asyncio.wait({running, request.left}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        self._deliver_one(self.table.release(slot))
        self._signal()
        running.add_done_callback(lambda done: done.exception())  # it cannot give it back again
        return "left"

    stack.enter_context(mock.patch.object(SimulatedPlane, "_run", run))


def _run_again(stack: ExitStack) -> None:
    """a request whose container broke is sent again"""
    from tests.simulation.plane import SimulatedPlane

    real = SimulatedPlane._run

    async def run(self: Any, request: Any, slot: Any, spec: Any) -> Any:
        outcome = await real(self, request, slot, spec)
        return None if outcome == "CONTAINER_LOST" else outcome

    stack.enter_context(mock.patch.object(SimulatedPlane, "_run", run))


def _same_incarnation(stack: ExitStack) -> None:
    """a restarted router is taken for its former self"""
    stack.enter_context(
        mock.patch("tests.simulation.processes.incarnation_of", lambda name: f"always-{name}")
    )


def _address_reused(stack: ExitStack) -> None:
    """the count of addresses is not written with the containers that use them"""
    stack.enter_context(
        mock.patch("slotway.manager.addresses.AddressCount.unwritten", return_value=None)
    )


def _end_without_proof(stack: ExitStack) -> None:
    """a container that was told to end is taken for ended"""
    from tests.simulation.engine import SimulatedDriver

    async def ended(self: Any, container: str) -> bool:
        return True

    stack.enter_context(mock.patch.object(SimulatedDriver, "has_ended", ended))


def _demand_told_once(stack: ExitStack) -> None:
    """demand is reported when it rises, and not again while it lasts"""
    from slotway.router.session import Session

    real = Session._report

    def report(self: Any) -> None:
        if self._plane.table.demand_rose:
            real(self)

    stack.enter_context(mock.patch.object(Session, "_report", report))


def _ends_untold(stack: ExitStack) -> None:
    """routers are not told of the ends of containers"""
    stack.enter_context(mock.patch("slotway.manager.messages.Messages.ended", autospec=True))


def _never_rebalanced(stack: ExitStack) -> None:
    """idle slots are not moved to where requests wait"""
    from slotway.manager.books import Books

    real = Books._stage

    def stage(self: Any, name: str, decisions: Any) -> None:
        decisions.recalls.clear()
        real(self, name, decisions)

    stack.enter_context(mock.patch.object(Books, "_stage", stage))


PLANTED: dict[str, Callable[[ExitStack], None]] = {
    "ChainWithoutGuard": _chain_without_guard,
    "ChainWithoutTurn": _chain_without_turn,
    "SettledByReading": _settled_by_reading,
    "FreeOnHangup": _free_on_hangup,
    "RunAgain": _run_again,
    "SameIncarnation": _same_incarnation,
    "AddressReused": _address_reused,
    "EndWithoutProof": _end_without_proof,
    "DemandToldOnce": _demand_told_once,
    "EndsUntold": _ends_untold,
    "NeverRebalanced": _never_rebalanced,
}


def _session_without_terms(stack: ExitStack) -> None:
    """the session passes on what older terms say; by itself harmless, as the table looks too"""
    from slotway.router import wire
    from slotway.router.session import Session

    real = Session.heard

    def heard(self: Any, attachment: Any, message: Any) -> None:
        before = attachment.term, self.term
        if not message.HasField("welcome") and message.term.revision:
            attachment.term = self.term = wire.term(message.term)
        real(self, attachment, message)
        if not message.HasField("welcome"):
            attachment.term, self.term = before

    stack.enter_context(mock.patch.object(Session, "heard", heard))


def plant(name: str, stack: ExitStack) -> None:
    """Makes the bug for as long as the stack is open."""
    if name in PLANTED:
        PLANTED[name](stack)
    elif name:
        if name == "NoTerm":
            _session_without_terms(stack)
        from slotway._slotcore import Ledger

        ledger = functools.partial(Ledger, planted=name)
        stack.enter_context(mock.patch("slotway.manager.server.Ledger", ledger))
