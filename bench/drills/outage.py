"""etcd's own outage, by a raw writer beside everything: no retries, no fail-over, no Slotway."""

import asyncio
import contextlib
import json
import time
import urllib.request
from collections.abc import Sequence

from slotway.etcd import Access, Client, EtcdError, Put
from slotway.etcd.server import EtcdServer

KEY = "/slotway-bench/put"
EVERY_S = 0.01
ANSWER_S = 2.0
PUTS_MAX = 500
"""Under way at once."""


async def first_put(endpoints: Sequence[str]) -> int:
    """Puts a key at every endpoint each 10 ms, without waiting for answers; when the first one was
    answered."""
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    clients = [Client(Access((endpoint,))) for endpoint in endpoints]
    puts: set[asyncio.Task[None]] = set()

    async def put(client: Client) -> None:
        with contextlib.suppress(EtcdError):
            await client.txn((), [Put(KEY, b"")], timeout_s=ANSWER_S)
            if not answered.done():
                answered.set_result(time.monotonic_ns())

    try:
        while not answered.done():
            for client in clients:
                if len(puts) < PUTS_MAX:
                    task = asyncio.create_task(put(client))
                    puts.add(task)
                    task.add_done_callback(puts.discard)
            await asyncio.wait([answered], timeout=EVERY_S)
        return answered.result()
    finally:
        for task in puts:
            task.cancel()
        await asyncio.gather(*puts, return_exceptions=True)
        for client in clients:
            await client.__aexit__(None, None, None)


async def leading_member(members: Sequence[EtcdServer]) -> EtcdServer:
    """etcd's leader, as its members say themselves."""
    while True:
        for member in members:
            with contextlib.suppress(OSError, KeyError):
                status = await asyncio.to_thread(_status, member.endpoint)
                if status["leader"] == status["header"]["member_id"]:
                    return member
        await asyncio.sleep(EVERY_S)


def _status(endpoint: str) -> dict[str, object]:
    request = urllib.request.Request(f"{endpoint}/v3/maintenance/status", b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=2) as answer:
        return json.loads(answer.read())
