"""A folder for Unix sockets: their paths hold 108 bytes, and a data folder's path may be longer."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from slotway.errors import SlotwayError

PATH_BYTES_MAX = 60
"""Leaves room for a container's id of 40 bytes and ".sock"."""


def make_folder(path: Path, what: str) -> Path:
    """Makes the folder, private unless it is there; SlotwayError, naming `what`, if it cannot."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it cannot be written")
    except OSError as exc:
        why = "it is not a folder" if isinstance(exc, FileExistsError) else exc.strerror
        raise SlotwayError(f"{what} {path}: {why}", reason="INVALID_FIELD") from exc
    return path


def run_dir(data_dir: Path) -> Path:
    """`data_dir`/run if that is short enough, else a private folder of this user's.

    The same for the same `data_dir`, so that containers are found again. SlotwayError if another
    user owns it.
    """
    near = data_dir.absolute() / "run"
    if len(os.fsencode(near)) <= PATH_BYTES_MAX:
        return make_folder(near, "run_dir")
    name = hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:16]
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if base and os.access(base, os.W_OK):
            far = Path(base) / f"slotway-{os.getuid()}-{name}"
            if len(os.fsencode(far)) <= PATH_BYTES_MAX:
                return _private(far)
    raise SlotwayError(
        f"no folder for Unix sockets has a path of at most {PATH_BYTES_MAX} bytes: "
        "set `run_dir`, or XDG_RUNTIME_DIR"
    )


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SlotwayError(f"{folder} is not a private folder of this user: remove it")
    return folder
