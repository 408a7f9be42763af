"""What a broken engine says becomes a reason that a person can act upon. The engine is a script, so
no Docker is needed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from slotway.drivers.base import DriverError
from slotway.drivers.docker import DockerDriver, DockerOptions

from .containers import CLUSTER, spec

FULL = "mkdir /var/lib/docker/overlay2/1: no space left on device"


class ScriptedEngine:
    """Answers as an engine does that has nothing, and fails at `failing` (method and path)."""

    def __init__(self) -> None:
        self.failing = ""
        self.made: dict[str, object] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/v1.41")
        if f"{request.method} {path}" == self.failing:
            return web.json_response({"message": FULL}, status=500)
        match request.method, path:
            case "GET", "/version":
                return web.json_response({"ApiVersion": "1.41"})
            case "GET", "/info":
                return web.json_response({"ID": "scripted"})
            case "GET", "/events":
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write_eof()
                return response
            case "GET", "/containers/json":
                return web.json_response([])
            case "GET", "/images/slotway/tomb:1/json":
                return web.json_response({})
            case "POST", "/networks/create":
                self.made = json.loads(await request.text())
                return web.json_response({"Id": "n"}, status=201)
            case "GET", "/networks/slotway.test" if self.made:
                return web.json_response({**self.made, "Id": "n"})
            case "POST", "/containers/create":
                return web.json_response({"Id": "c"}, status=201)
        return web.json_response({"message": "no such thing"}, status=404)


@pytest.fixture
async def scripted(short_path: Path) -> AsyncIterator[tuple[ScriptedEngine, DockerDriver]]:
    engine = ScriptedEngine()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    socket = str(short_path / "engine.sock")
    await web.UnixSite(runner, socket).start()
    options = DockerOptions(socket=socket, subnet="198.18.0.0/20")
    async with DockerDriver(CLUSTER, options) as driver:
        yield engine, driver
    await runner.cleanup()


@pytest.mark.parametrize(
    "failing", ["POST /containers/create", "POST /containers/c/start", "POST /networks/create"]
)
async def test_a_full_disk_is_told(
    scripted: tuple[ScriptedEngine, DockerDriver], failing: str
) -> None:
    engine, driver = scripted
    engine.failing = failing
    with pytest.raises(
        DriverError, match="no space left on device; the disk of the engine is full"
    ):
        await driver.create(spec("one", address=driver.address(spec("one").label.id, 1)))


async def test_without_a_fault_the_script_goes_further(
    scripted: tuple[ScriptedEngine, DockerDriver],
) -> None:
    _, driver = scripted
    with pytest.raises(DriverError, match="no such thing"):
        await driver.create(spec("one", address=driver.address(spec("one").label.id, 1)))
