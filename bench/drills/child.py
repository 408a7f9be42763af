"""A process of the bench, tied to it: it prints JSON, a line at a time, and logs to a file."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slotway.tether import tethered

LINE_BYTES_MAX = 1024 * 1024
STOP_S = 10.0


class Child:
    """`python -m MODULE ARGUMENTS…`; `hear` gets every line that it prints."""

    def __init__(
        self,
        log: Path,
        module: str,
        arguments: Sequence[str],
        hear: Callable[[dict[str, Any]], None] = lambda said: None,
    ) -> None:
        self._log, self._hear = log, hear
        self._command = tethered([sys.executable, "-m", module, *arguments])
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts it; its log goes on."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_BYTES_MAX,
                start_new_session=True,
            )
        self._reading = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self._hear(json.loads(line))

    @property
    def runs(self) -> bool:
        """Whether it was started, and has not ended."""
        return self._process is not None and self._process.returncode is None

    def send(self, number: signal.Signals) -> int:
        """Sends a signal; returns the moment just before, of `time.monotonic_ns`."""
        assert self._process is not None
        at = time.monotonic_ns()
        self._process.send_signal(number)
        return at

    async def wait(self) -> None:
        """Waits for its end."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it, with SIGKILL if it does not in time."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.send(number)
        try:
            async with asyncio.timeout(STOP_S):
                await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.wait()
        assert self._reading is not None
        await self._reading

    def tail(self) -> str:
        """The end of its log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-20:])
