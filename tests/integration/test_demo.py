"""The demo keeps its word: it turns red if a Router sends a container one request more than C."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"


@pytest.mark.slow
async def test_a_router_that_sends_one_too_many_turns_the_demo_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLOTWAY_ROUTER_PLANTED_BUG", "one_too_many")
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, str(DEMO), "--requests", "400", "--concurrency", "10"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        output, _ = await demo.communicate()
    assert demo.returncode == 1, output.decode()
    assert re.search(r"a container ran 1[1-3] requests at once", output.decode())
