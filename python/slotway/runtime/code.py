"""The action's code: from the value of `/init` to a function that can be called.

The code becomes a module named `main__`, as in OpenWhisk's runtimes, so that a `if __name__ ==
"__main__":` block of a script does not run.
"""

from __future__ import annotations

import ast
import base64
import binascii
import io
import linecache
import os
import sys
import tempfile
import traceback
import types
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

UNPACKED_BYTES_MAX = 256 * 1024 * 1024
MODULE = "main__"
HERE = str(Path(__file__).parent)

Function = Callable[[dict[str, object]], object]


class CodeError(Exception):
    """The code cannot be used; the message is for its author."""


@dataclass(frozen=True, slots=True)
class Code:
    """The code as it came, checked but not yet run."""

    main: str
    path: str
    """Where the source is, or as which file tracebacks name it."""
    tree: ast.Module

    def is_async(self) -> bool:
        """Whether main is plainly an `async def`: such code is loaded on the loop's thread, where
        it will run, and other code on a worker's, so that what it opens while it is loaded belongs
        to the thread that will use it."""
        return any(
            isinstance(node, ast.AsyncFunctionDef) and node.name == self.main
            for node in self.tree.body
        )

    def load(self) -> Function:
        """Runs the module and finds its function. CodeError with the traceback of what went
        wrong."""
        module = types.ModuleType(MODULE)
        module.__file__ = self.path
        sys.modules[MODULE] = module
        try:
            exec(compile(self.tree, self.path, "exec"), module.__dict__)
        except BaseException as error:
            raise CodeError(describe(error)) from None
        function = getattr(module, self.main, None)
        if not callable(function):
            raise CodeError(f"the code has no function named {self.main!r}")
        return function  # type: ignore[no-any-return]


def read(value: dict[str, object]) -> Code:
    """The code of an `/init` value: one source file, or a base64 zip archive with a `__main__.py`
    if `binary`."""
    code, main = value.get("code"), value.get("main") or "main"
    if not isinstance(code, str) or not code:
        raise CodeError("there is no code")
    if not isinstance(main, str):
        raise CodeError("main must be the name of a function")
    if value.get("binary"):
        path = str(_unpack(code) / "__main__.py")
        source = Path(path).read_bytes()
    else:
        name = str(value.get("name") or "action").rpartition("/")[2]
        path, source = f"{name}.py", code.encode("utf-8", "surrogatepass")
        linecache.cache[path] = len(code), None, code.splitlines(keepends=True), path
    try:
        tree = compile(source, path, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CodeError(describe(error)) from None
    assert isinstance(tree, ast.Module)
    return Code(main, path, tree)


def _unpack(code: str) -> Path:
    """Unpacks an archive beside the action and puts it, and its virtual environment, on the
    path."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(code, validate=True)))
        if sum(entry.file_size for entry in archive.infolist()) > UNPACKED_BYTES_MAX:
            raise CodeError(f"unpacked, the archive has more than {UNPACKED_BYTES_MAX} bytes")
        if "__main__.py" not in archive.namelist():
            raise CodeError("the archive has no __main__.py")
        root = Path(tempfile.mkdtemp(prefix="action-"))
        archive.extractall(root)
    except (binascii.Error, zipfile.BadZipFile, ValueError) as error:
        raise CodeError(f"the code is not a zip archive in base64: {error}") from None
    except (OSError, RuntimeError, NotImplementedError) as error:
        raise CodeError(f"the archive cannot be unpacked: {error}") from None
    packages = root.glob("virtualenv/lib/python3*/site-packages")
    sys.path[:0] = [str(root), *map(str, packages)]
    os.chdir(root)
    return root


def describe(error: BaseException) -> str:
    """The traceback of an error in the action, without the runtime's own frames."""
    try:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename.startswith(HERE):
            frames = frames.tb_next
        return "".join(traceback.format_exception(type(error), error, frames)).rstrip()
    except Exception:
        # The error's own __str__ fails, or memory is short.
        return type(error).__name__
