"""`make drills` itself: its order replays, its witnesses see what is wrong, it leaves nothing
behind, and a planted bug is found."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from slotway.etcd.model import Event, KeyValue
from slotway.records import Keys
from tests.drills.campaign import house
from tests.drills.campaign.ledger import LedgerWitness
from tests.drills.campaign.schedule import rounds
from tests.drills.campaign.terms import TermWitness
from tests.integration.parts import Parts

ROOT = Path(__file__).resolve().parents[2]
SHORT_S = 200.0
KEYS = Keys("test")


def test_the_order_is_a_function_of_the_seed() -> None:
    names = ["nothing", "one", "two", "three", "four", "five"]
    assert rounds(7, names) == rounds(7, names)
    assert len({tuple(rounds(seed, names)) for seed in range(10)}) > 1
    assert sorted(rounds(7, names)) == sorted(names)
    assert rounds(7, names)[0] == "nothing"


def put(key: str, value: bytes, revision: int) -> Event:
    return Event(KeyValue(key, value, revision), False)


def container(revision: int, term: str, **shares: int) -> Event:
    record = {"capacity": 2, "term": term, "shares": shares}
    return put(KEYS.container("c"), json.dumps(record).encode(), revision)


def witness() -> LedgerWitness:
    """It has seen a leader, in revision 3, take two turns."""
    seen = LedgerWitness(("127.0.0.1:1",), "test")
    seen.take(3, [put(KEYS.leader, b"{}", 3)])
    seen.take(4, [put(KEYS.turn, b"0", 4)])
    seen.take(5, [put(KEYS.turn, b"4", 5), container(5, "1.3", r=2)])
    assert seen.faults == []
    return seen


def test_the_ledgers_witness_sees_too_much_granted() -> None:
    seen = witness()
    seen.take(6, [put(KEYS.turn, b"5", 6), container(6, "1.3", r=2, s=1)])
    assert [fault[:2] for fault in seen.faults] == ["I1"]


def test_the_ledgers_witness_sees_what_a_deposed_leader_writes() -> None:
    seen = witness()
    seen.take(6, [put(KEYS.leader, b"{}", 6)])
    seen.take(7, [put(KEYS.turn, b"0", 7)])
    seen.take(8, [put(KEYS.turn, b"5", 8), container(8, "1.3")])
    assert seen.faults == ["I3: the turn of revision 8 follows 5, and not 7"]
    other = KEYS.container("d")
    seen.take(9, [put(KEYS.turn, b"8", 9), put(other, b'{"term": "1.3"}', 9)])
    assert "was recorded in revision 9 by 1.3; 1.6 led" in seen.faults[1]
    seen.take(10, [put(other, b'{"term": "1.3"}', 10)])
    assert "outside of the chain" in seen.faults[2]


def test_the_terms_witness_sees_a_term_go_back(tmp_path: Path) -> None:
    seen = TermWitness(Parts(tmp_path, "test"))
    for pid, term in ((1, (1, 5)), (1, (1, 9)), (2, (1, 5)), (1, (1, 9))):
        seen.take("router-1", pid, term)
    assert seen.faults == [], "another process may have met the old leader first"
    seen.take("router-1", 1, (1, 5))
    assert seen.faults == ["I2: router-1 went back from the term (1, 9) to (1, 5)"]


async def drills(*arguments: str, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.drills.campaign", "--seconds", "1", *arguments),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
    )


async def output(process: asyncio.subprocess.Process) -> str:
    try:
        async with asyncio.timeout(SHORT_S):
            return (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.slow
async def test_a_planted_bug_is_found(tmp_path: Path) -> None:
    """C off by one at the Routers."""
    arguments = ("--only", "kill leader", "--seed", "7", "--planted-bug", "one_too_many")
    process = await drills(*arguments, folder=tmp_path)
    said = await output(process)
    assert process.returncode == 1, said
    assert re.search(r"I1: \w+ runs 2, and has C=1", said.replace("\n", " ")), said


@pytest.mark.slow
@pytest.mark.skipif(bool(house.missing()), reason=f"no namespaces: {house.missing()}")
async def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    process = await drills("--only", "kill leader", "--seed", "7", folder=tmp_path)
    assert process.stdout is not None
    async with asyncio.timeout(SHORT_S):
        while b" s  nothing" not in await process.stdout.readline():
            assert process.returncode is None
    process.send_signal(signal.SIGTERM)
    said = await output(process)
    assert process.returncode == 130, said
    assert not list(tmp_path.glob("slotway-drills-*"))
    ours = [path for path in Path("/proc").glob("[0-9]*/environ") if _names(path, tmp_path)]
    assert ours == []


def _names(environ: Path, folder: Path) -> bool:
    try:
        return f"TMPDIR={folder}".encode() in environ.read_bytes().split(b"\0")
    except OSError:
        return False
