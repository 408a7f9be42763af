"""Traffic that moves between Routers takes its slots along, and makes no container.

The bounds here are for a busy machine; the figures themselves are `bench/rebalancing.py`'s.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.moving import Traffic, go_round
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
