"""The Engine API over the engine's Unix socket: requests with deadlines, and the stream of events.

Nothing is repeated here, and nothing is kept: each request has a connection of its own, so that an
engine that was restarted is just one that answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from slotway.drivers.base import DriverError

API_MIN, API_MAX = (1, 41), (1, 51)
"""The first has all that is used here (engine 20.10); past the second nothing was tried."""
ANSWER_S = 10.0
EVENT_BYTES_MAX = 1024 * 1024
LOG_BYTES_MAX = 16 * 1024
FULL = "no space left on device"


class EngineError(DriverError):
    """The engine answered that it will not, or cannot."""

    def __init__(self, status: int, message: str) -> None:
        if FULL in message:
            message += (
                "; the disk of the engine is full: make room (`docker system df` tells where)"
            )
        super().__init__(f"Docker: {message}")
        self.status = status


class Engine:
    """One engine."""

    def __init__(self, socket: str, answer_s: float = ANSWER_S) -> None:
        """Opens nothing yet. `answer_s` is for requests that do not take time."""
        self._socket, self._answer_s = socket, answer_s
        self._session: aiohttp.ClientSession | None = None
        self._prefix = ""

    async def open(self) -> None:
        """Finds out which API is spoken. DriverError if there is no engine that can be used."""
        self._session = aiohttp.ClientSession(
            "http://docker",
            connector=aiohttp.UnixConnector(self._socket, force_close=True, limit=64),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        version = await self.call("GET", "/version")
        spoken = tuple(int(part) for part in version["ApiVersion"].split("."))
        if spoken < API_MIN:
            raise DriverError(
                f"the Docker engine at {self._socket} speaks API {version['ApiVersion']}, and"
                f" {API_MIN[0]}.{API_MIN[1]} is needed: upgrade it to 20.10 or newer"
            )
        major, minor = min(spoken, API_MAX)
        self._prefix = f"/v{major}.{minor}"

    async def close(self) -> None:
        """Lets go of the engine."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout_s: float = 0.0,
        **query: str,
    ) -> Any:
        """One request; the answer's JSON, or None. EngineError, or DriverError without an
        answer."""
        data = json.dumps(body).encode() if body is not None else None
        within_s = timeout_s or self._answer_s
        return await self.send(method, path, data, "application/json", within_s, query)

    async def send(
        self,
        method: str,
        path: str,
        data: bytes | None,
        content_type: str,
        timeout_s: float,
        query: Mapping[str, str],
    ) -> Any:
        """The same with any body."""
        async with (
            self._asking(method, path, data, content_type, timeout_s, query) as response,
            self._translating(timeout_s),
        ):
            text = await response.text("utf-8", "replace")
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text

    async def log(self, engine_id: str, tail: str = "all", bytes_max: int = LOG_BYTES_MAX) -> bytes:
        """The last lines that a container printed, on both streams, at most so many bytes."""
        query = {"stdout": "true", "stderr": "true", "tail": tail}
        path = f"/containers/{engine_id}/logs"
        async with (
            self._asking("GET", path, None, "", self._answer_s, query) as response,
            self._translating(self._answer_s),
        ):
            framed = b""
            while piece := await response.content.read(bytes_max - len(framed)):
                framed += piece
        # Each piece has a head of 8 bytes: the stream, three zeros, the length.
        pieces = []
        while len(framed) > 8:
            end = 8 + int.from_bytes(framed[4:8], "big")
            pieces.append(framed[8:end])
            framed = framed[end:]
        return b"".join(pieces)

    @contextlib.asynccontextmanager
    async def events(self, **query: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Events from now on: within the block, none is missed until the iterator raises
        DriverError."""
        async with self._asking("GET", "/events", None, "", self._answer_s, query) as response:
            yield self._lines(response)

    async def _lines(self, response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
        buffered = b""
        try:
            async for piece in response.content.iter_any():
                *lines, buffered = (buffered + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)
                if len(buffered) > EVENT_BYTES_MAX:
                    raise DriverError("Docker's events make no sense")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DriverError(f"Docker's events broke off: {error}") from error
        raise DriverError("Docker's events ended")

    @contextlib.asynccontextmanager
    async def _asking(
        self,
        method: str,
        path: str,
        data: bytes | None,
        content_type: str,
        timeout_s: float,
        query: Mapping[str, str],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None, "open() comes first"
        headers = {"content-type": content_type} if data is not None else {}
        async with self._translating(timeout_s):
            response = await self._session.request(
                method, self._prefix + path, data=data, params=query, headers=headers
            )
        try:
            if response.status >= 400:
                async with self._translating(timeout_s):
                    text = await response.text("utf-8", "replace")
                raise EngineError(response.status, _message(text, response.status))
            yield response
        finally:
            response.close()

    @contextlib.asynccontextmanager
    async def _translating(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            raise DriverError(f"Docker did not answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise DriverError(
                f"the Docker engine at {self._socket} cannot be used: {error}. Is it installed and"
                " running, and may this user open its socket (group `docker`)? `docker info` tells;"
                " another socket is set with `docker_socket`"
            ) from error


def _message(text: str, status: int) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:1000] or f"status {status}"
