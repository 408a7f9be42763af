"""Where actions' code is kept: by its sha256, in any store that fsspec knows, `file://` by default.

Code is written before the ledger names it, never changed, and checked whenever it is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Any

import fsspec
import structlog

from slotway.errors import SlotwayError

log = structlog.get_logger(__name__)

CODE_BYTES_MAX = 16 * 1024 * 1024
CALL_S = 30.0
"""How long one call may take; a store that hangs must not hold up more than its own action."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class CodeStoreError(SlotwayError):
    """The store failed, or what it holds is damaged; the message says which code and where."""


class CodeTooLargeError(SlotwayError):
    """The code is over the limit."""

    reason = "REQUEST_TOO_LARGE"


class CodeStore:
    """Content-addressed bytes below one URL; what blocks does so in threads."""

    def __init__(self, url: str):
        """`url` is a path or any fsspec URL. Raises CodeStoreError if its kind is not known."""
        self.url = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as exc:
            raise CodeStoreError(f"code store {url}: {exc}") from exc
        self._local = "file" in _protocols(self._fs)

    async def put(self, code: bytes) -> str:
        """Keeps the code and returns its sha256; what is there already and whole is left alone."""
        if len(code) > CODE_BYTES_MAX:
            raise CodeTooLargeError(
                f"the code has {len(code)} bytes, the limit is {CODE_BYTES_MAX}",
                metadata={"limit_bytes": str(CODE_BYTES_MAX)},
            )
        sha256 = hashlib.sha256(code).hexdigest()
        await self._call(self._put, sha256, code)
        return sha256

    async def get(self, sha256: str) -> bytes:
        """The code; CodeStoreError if it is not there, or is not what it was."""
        if _SHA256.fullmatch(sha256) is None:
            raise CodeStoreError(f"{sha256!r} is no sha256")
        code: bytes = await self._call(self._get, sha256)
        return code

    async def _call(self, function: Any, sha256: str, *arguments: object) -> Any:
        try:
            async with asyncio.timeout(CALL_S):
                return await asyncio.to_thread(function, sha256, *arguments)
        except TimeoutError as exc:
            raise CodeStoreError(
                f"code store {self.url}: no answer in {CALL_S:.0f} s for code {sha256}"
            ) from exc
        except FileNotFoundError as exc:
            raise CodeStoreError(f"code store {self.url}: there is no code {sha256}") from exc
        except CodeStoreError:
            raise
        except Exception as exc:  # each kind of store has errors of its own
            raise CodeStoreError(f"code store {self.url}: code {sha256}: {exc}") from exc

    def _path(self, sha256: str) -> str:
        return f"{self._root.rstrip('/')}/{sha256[:2]}/{sha256}"

    def _put(self, sha256: str, code: bytes) -> None:
        path = self._path(sha256)
        try:
            if self._fs.cat_file(path) == code:
                return
            log.warning("damaged code is replaced", store=self.url, sha256=sha256)
        except FileNotFoundError:
            pass
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if self._local:
            _write(Path(path), code)
        else:
            self._fs.pipe_file(path, code)  # object stores show an object whole or not at all

    def _get(self, sha256: str) -> bytes:
        code = bytes(self._fs.cat_file(self._path(sha256), end=CODE_BYTES_MAX + 1))
        found = hashlib.sha256(code).hexdigest()
        if found != sha256:
            raise CodeStoreError(
                f"code store {self.url}: code {sha256} is damaged: it has sha256 {found}"
            )
        return code


def _write(path: Path, code: bytes) -> None:
    """Writes the file so that after a crash it is whole or absent."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with new.open("xb") as file:
            file.write(code)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
