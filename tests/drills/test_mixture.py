"""`make mixture` itself: its schedule replays, its witness hears, and a planted bug is found."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.drills.mixture.schedule import Kind, schedule
from tests.drills.mixture.witness import Witness
from tests.integration.gathering import listen

ROOT = Path(__file__).resolve().parents[2]
SHORT_S = 150.0


def test_the_schedule_is_a_function_of_the_seed() -> None:
    events = schedule(7, 600, 24)
    assert events == schedule(7, 600, 24)
    assert events != schedule(8, 600, 24)
    assert Counter(event.kind for event in events) == dict.fromkeys(Kind, 24)
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)
    assert events[0].at_s > 0
    assert events[-1].at_s < 600


async def say(witness: Witness, *lines: str, cut: str = "") -> None:
    """One container's connection, from its beginning to its end."""
    _, writer = await asyncio.open_connection(*witness.address)
    writer.write("".join(f"{line}\n" for line in lines).encode() + cut.encode())
    writer.close()
    await writer.wait_closed()


async def heard(*containers: tuple[str, ...], cut: str = "") -> Witness:
    """A witness that has heard all of this."""
    witness = Witness(listen("process", ""))
    await witness.start()
    try:
        for number, lines in enumerate(containers, 1):
            await say(witness, *lines, cut=cut)
            async with asyncio.timeout(10), witness.changed:
                while witness.closed < number:
                    await witness.changed.wait()
    finally:
        witness.stop()
    return witness


async def test_the_witness_counts_per_container() -> None:
    one = ("container a 2 1", "begin r1 5 1", "begin r2 6 2", "end r1 7 2", "begin r3 8 2")
    witness = await heard(one, ("container b 1 1", "begin r4 9 1", "end r4 9 1"), cut="end r2")
    assert (witness.highest(), witness.cut, witness.faults) == ({1: 1, 2: 2}, 2, [])
    assert list(witness.verdict({"r1", "r4"})) == []
    (unseen,) = witness.verdict({"r1", "r3"})
    assert "r3" in unseen, "it was answered, and is not known to have ended"


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (("container a 1 1", "begin r1 5 1", "begin r2 6 2"), "a runs 2, and has C=1"),
        (("container a 2 1", "begin r1 5 1", "end r1 5 1", "begin r1 6 1"), "run r1 began in a"),
        (("container a 2 1", "begin r1 5 2"), "a says 2 run, heard of 1"),
        (("container a 2 1", "container a 2 1"), "container a came twice"),
        (("container a 2 1", "begin r1 5"), "what container a said was lost"),
    ],
)
async def test_the_witness_sees_what_is_wrong(lines: tuple[str, ...], fault: str) -> None:
    (said,) = (await heard(lines)).faults
    assert fault in said


@pytest.mark.drill
@pytest.mark.parametrize(("bug", "status"), [("", 0), ("one_too_many", 1)])
async def test_a_planted_bug_is_found(bug: str, status: int, tmp_path: Path) -> None:
    command = ["--seconds", "20", "--each", "1", "--seed", "7", "--planted-bug", bug]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.drills.mixture", *command),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SHORT_S):
            output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == status, output
    assert ("runs 2, and has C=1" in output) == bool(bug)
