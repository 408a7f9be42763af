"""Traffic that moves between Routers takes its slots along, and makes no container.

The bounds here are for a busy machine; the figures themselves are `bench/rebalancing.py`'s.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from slotway.manager.plan import Tempo
from tests.integration.moving import CODE, STAY_S, Traffic, go_round
from tests.integration.parts import Parts

pytestmark = pytest.mark.slow
SETTLED_S = 0.5
MOVES = 6


@pytest.mark.parametrize(("concurrency", "sleep_s"), [(10, 0.05), (200, 0.25)])
async def test_slots_follow_the_traffic(
    concurrency: int, sleep_s: float, cluster: str, tmp_path: Path
) -> None:
    async with Parts(tmp_path / "parts", cluster) as parts:
        traffic = Traffic(parts, concurrency, sleep_s)
        await traffic.prepare()
        moves = [await traffic.at(router) for router in (2, 0) * (MOVES // 2)]
        print([f"{move.settled_s * 1000:.0f} ms" for move in moves])
        # What the Routers forward does not wait with them: here everything runs where it comes to.
        assert all(move.requests >= concurrency - 2 for move in moves)
        assert max(move.settled_s for move in moves) < SETTLED_S
        (only,) = traffic.containers
        assert [one.record.id for one in (await parts.show()).containers] == [only]


async def test_going_round_costs_few_writes(cluster: str, tmp_path: Path) -> None:
    async with Parts(tmp_path / "parts", cluster) as parts:
        for containers in (1, 3):
            requests, writes = await go_round(parts, containers)
            print(f"{containers} at once: {requests} requests, {writes} writes")
            assert requests > 100
            assert 10 * writes < requests


async def test_busy_slots_do_not_hold_up_a_container(cluster: str, tmp_path: Path) -> None:
    """Routers that answer that all is busy tell nothing new, and still are what is waited for."""
    waited_s = []
    async with Parts(tmp_path / "parts", cluster) as parts:
        for number in range(4):
            name = f"moving/busy-{number}"
            await parts.clients[0].put_action(name, CODE, concurrency=3)
            await parts.clients[0].invoke(name, {"sleep_s": 0}, timeout=30)
            await asyncio.sleep(STAY_S)
            async with asyncio.TaskGroup() as group:
                for client in parts.clients:  # one slot each
                    group.create_task(client.invoke(name, {"sleep_s": 1.5}, timeout=30))
                await asyncio.sleep(STAY_S)
                answer = await parts.clients[2].invoke(name, {"sleep_s": 0}, timeout=30)
                waited_s.append(answer.wait.total_seconds())
    print([f"{one * 1000:.0f} ms" for one in waited_s])
    assert min(waited_s) < Tempo().ask_s, "it was created when the time was up"
