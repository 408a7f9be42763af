"""A command of ours as a child process, with its output in a log file."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slotway.tether import tethered

TAIL_BYTES = 4_000
TAIL_LINES = 20


class Child:
    """`slotway ARGUMENTS…`, tied to this process: it is killed if this process ends first."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, place: Sequence[str] = ()):
        """`place` is a command that becomes the one after it, say, in a network namespace."""
        self.name = name
        self.log = log
        self._place = tuple(place)
        self._arguments = tuple(arguments)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it; the log of the run before is kept as `….1`."""
        if self.log.exists():
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tethered([*self._place, sys.executable, "-m", "slotway.cli", *self._arguments]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the parent, which stops all in order
            )

    @property
    def pid(self) -> int:
        """Its process id; 0 if it was not started."""
        return self._process.pid if self._process is not None else 0

    @property
    def ended(self) -> bool:
        """Whether it was started and has ended."""
        return self._process is not None and self._process.returncode is not None

    async def wait(self) -> int:
        """Waits for its end; returns its exit code, negative for a signal."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self, hurry: asyncio.Event, seconds: float) -> None:
        """Asks it to stop; kills it after so long, or as soon as `hurry` is set."""
        if self._process is None or self.ended:
            return
        self._process.send_signal(signal.SIGTERM)
        waiting: set[asyncio.Task[Any]] = {
            asyncio.create_task(self.wait()),
            asyncio.create_task(hurry.wait()),
        }
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        if not self.ended:
            self._process.kill()
            await self.wait()

    def obituary(self) -> str:
        """How it ended, and the end of its log."""
        code = self._process.returncode if self._process is not None else None
        if code is None:
            how = "still runs"
        elif code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        return f"{self.name} (process {self.pid}) {how}; the end of {self.log}:\n{self.tail()}"

    def tail(self) -> str:
        """The last lines of its log, indented."""
        with self.log.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (empty)"
