"""The runtime's HTTP server: one `asyncio.Protocol` per connection, one request of it at a time.

A client that hangs up ends nothing: the action runs on, and its answer is dropped.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import socket
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Protocol

from .action import Action, Answer
from .http import BadRequestError, Request, RequestParser
from .output import capture

READ_AHEAD_BYTES = 64 * 1024
"""What a connection may send while its request before runs."""
REASONS = {200: b"OK", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found"}
NOT_FOUND: Answer = 404, b'{"error":"POST /init or POST /run"}'


class Handler(Protocol):
    """What answers requests: the action, or something that stands in for it."""

    async def init(self, body: bytes) -> Answer:
        """Answers `/init`."""

    async def run(self, body: bytes) -> Answer:
        """Answers `/run`."""


class Connection(asyncio.Protocol):
    """One connection; `connections` holds it while it is open, `tasks` what it runs until that has
    ended."""

    def __init__(
        self,
        handler: Handler,
        connections: set[Connection],
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._routes = {b"/run": handler.run, b"/init": handler.init}
        self._connections = connections
        self._tasks = tasks
        self._parser = RequestParser()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._busy = False
        self._reading = True
        self._writable = True
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Ends; what runs is left to run."""
        self._transport = None
        self._connections.discard(self)

    def abandon(self) -> None:
        """Closes the descriptor in a forked child, which leaves the parent's connection as it
        is."""
        if self._transport is not None:
            os.close(self._transport.get_extra_info("socket").fileno())

    def abort(self) -> None:
        """Cuts the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Takes bytes; begins the next request unless one runs."""
        self._parser.feed(data)
        if not self._busy:
            self._advance()
        elif self._parser.buffered > READ_AHEAD_BYTES and self._reading and self._transport:
            self._reading = False
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Answers what was asked before the client's side closed."""
        self._closing = True
        return self._busy

    def pause_writing(self) -> None:
        """The client does not read its answers: no more of them for now."""
        self._writable = False

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable = True
        if not self._busy:
            self._advance()

    def _advance(self) -> None:
        """Begins requests until one is running, or no whole one is there."""
        while not self._busy and self._writable and self._transport and not self._closing:
            try:
                request = self._parser.next()
            except BadRequestError as error:
                body = json.dumps({"error": str(error)}).encode()
                self._closing = True
                self._write((error.status, body))
                return
            if request is None:
                if self._parser.expects_continue:
                    self._parser.expects_continue = False
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                elif not self._reading:
                    self._reading = True
                    self._transport.resume_reading()
                return
            route = self._routes.get(request.target) if request.method == b"POST" else None
            if route is None:
                self._closing = not request.keep_alive
                self._write(NOT_FOUND)
                continue
            self._busy = True
            task = self._loop.create_task(self._answer(route, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, route: Callable[[bytes], Coroutine[object, object, Answer]], request: Request
    ) -> None:
        try:
            result = await route(request.body)
        except BaseException as error:
            # The handler answers errors itself; this one was thrown into it from outside.
            result = 502, json.dumps({"error": type(error).__name__}).encode()
        self._busy = False
        self._closing |= not request.keep_alive
        self._write(result)
        self._advance()

    def _write(self, answer: Answer) -> None:
        if self._transport is None:
            return
        status, body = answer
        self._transport.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
            % (
                status,
                REASONS.get(status, b"Error"),
                len(body),
                b"Connection: close\r\n" if self._closing else b"",
                body,
            )
        )
        if self._closing:
            self._transport.close()


def serve(
    listener: socket.socket,
    capacity: int,
    *,
    limit: int = 0,
    ready: Callable[[], object] | None = None,
) -> None:
    """Serves one action on the listening socket until the process ends; `ready` is called when it
    accepts."""
    selector = selectors.DefaultSelector()
    loop = asyncio.SelectorEventLoop(selector)
    asyncio.set_event_loop(loop)
    action = Action(capacity, limit, capture())
    loop.set_default_executor(action.pool)
    connections: set[Connection] = set()
    tasks: set[asyncio.Task[None]] = set()

    def abandon() -> None:
        # A child of a fork must not keep the router's connections open, nor take events from this
        # loop.
        selector.close()
        listener.close()
        for connection in list(connections):
            connection.abandon()

    async def listen() -> None:
        def connect() -> Connection:
            return Connection(action, connections, tasks)

        if listener.family == socket.AF_UNIX:
            await loop.create_unix_server(connect, sock=listener, backlog=1024)
        else:
            await loop.create_server(connect, sock=listener, backlog=1024)
        if ready is not None:
            ready()

    os.register_at_fork(after_in_child=abandon)
    loop.run_until_complete(listen())
    _run(loop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Keeps the loop running, though the action may stop it."""
    pid = os.getpid()
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            # From a callback of the action.
            traceback.print_exc(file=sys.stderr)
        except BaseException:
            # The action broke the loop itself, for instance by closing every descriptor.
            traceback.print_exc(file=sys.stderr)
            os._exit(70)
        if os.getpid() != pid:
            os._exit(0)
