"""The guard: who holds it alone knows that no creation, decided long ago, can still be on its way.

A Manager that was paused may wake up and have a container created whose end was proved and told
meanwhile. The container's tombstone refuses it, so tombstones may only go when nobody can be in
that position. Every driver therefore holds the guard, shared, for as long as it may be asked to
create, and its zygote with it. These are locks of the open file (`F_OFD_SETLK`): to ask for the
exclusive one and fail leaves the shared one as it is, which `flock` does not promise.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path


class Guard:
    """An open guard file."""

    def __init__(self, path: Path) -> None:
        """Opens the file; OSError."""
        self.fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    async def hold(self) -> None:
        """Takes the guard, shared. Others may have it alone for a moment."""
        while not self._set(fcntl.F_RDLCK):  # noqa: ASYNC110 - no event crosses processes
            await asyncio.sleep(0.01)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else holds it, which stays so within the block. Holds it shared
        afterwards, as before."""
        if not self._set(fcntl.F_WRLCK):
            yield False
            return
        try:
            yield True
        finally:
            self._set(fcntl.F_RDLCK)

    def _set(self, kind: int) -> bool:
        # struct flock: type, whence, start, length (0: all), process; padded to the alignment of a
        # long.
        request = struct.pack("hhqqi0q", kind, os.SEEK_SET, 0, 0, 0)
        try:
            fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, request)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Lets go; a zygote that still lives goes on holding it."""
        os.close(self.fd)
