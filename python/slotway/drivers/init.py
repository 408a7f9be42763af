"""`POST /init`: the one request that a Manager sends to a container."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import aiohttp

from slotway.drivers.base import DriverError, EndedLoadingError, InitError

ANSWER_BYTES_MAX = 1024 * 1024
HEADERS = {"content-type": "application/json"}


async def post_init(address: str, value: dict[str, object], timeout: timedelta) -> None:
    """Initialises the container at the address, "unix:/path" or "host:port".

    InitError with the action's own error, also when it takes longer than `timeout` or ends its
    process; DriverError if the container cannot be reached.
    """
    path = address.removeprefix("unix:")
    connector: aiohttp.BaseConnector
    if path != address:
        connector, url = aiohttp.UnixConnector(path), "http://container/init"
    else:
        connector, url = aiohttp.TCPConnector(force_close=True), f"http://{address}/init"
    seconds = timeout.total_seconds()
    try:
        async with (
            asyncio.timeout(seconds),
            aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=None)
            ) as session,
            session.post(url, data=json.dumps({"value": value}), headers=HEADERS) as response,
        ):
            status = response.status
            answer = b""
            async for piece in response.content.iter_any():
                answer = (answer + piece)[:ANSWER_BYTES_MAX]
    except TimeoutError as error:
        raise InitError(f"the action did not initialise within {seconds:g} s") from error
    except aiohttp.ClientConnectorError as error:
        raise DriverError(f"the container cannot be reached: {error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise EndedLoadingError from error
    if status != 200:
        raise InitError(_message(status, answer))


def _message(status: int, answer: bytes) -> str:
    """The action's error, out of `{"error": …}`."""
    try:
        error = json.loads(answer)["error"]
    except (ValueError, KeyError, TypeError):
        error = answer.decode("utf-8", "replace") or f"/init answered with status {status}"
    return error if isinstance(error, str) else json.dumps(error)
