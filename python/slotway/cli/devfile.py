"""What `slotway dev` writes down, so that the other commands find its Routers.

`<data-dir>/endpoint` holds the first Router's address, `<data-dir>/pids/NAME` each process's id;
`$XDG_STATE_HOME/slotway/dev.json` points to the newest `dev` of this user.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from slotway.config import state_dir


@dataclass(frozen=True, slots=True)
class DevFile:
    """A `slotway dev` that is ready."""

    pid: int
    data_dir: str
    etcd: str
    routers: tuple[str, ...]
    """Their addresses, host:port."""
    cluster: str
    pids: Mapping[str, int]
    """Of etcd's members ("etcd-1", or "slotway" if it is alone), Managers and Routers, by name."""

    @property
    def _pids(self) -> Path:
        return Path(self.data_dir) / "pids"

    def write(self) -> None:
        """Writes the files; whoever reads one sees all or nothing, and `endpoint` is the last."""
        for name, pid in self.pids.items():
            _replace(self._pids / name, f"{pid}\n")
        _pointer().parent.mkdir(parents=True, exist_ok=True)
        _replace(_pointer(), json.dumps(asdict(self), indent=1) + "\n")
        _replace(Path(self.data_dir) / "endpoint", f"{self.routers[0]}\n")

    def remove(self) -> None:
        """Removes what this `dev` wrote, unless another one wrote since."""
        (Path(self.data_dir) / "endpoint").unlink(missing_ok=True)
        for name in self.pids:
            (self._pids / name).unlink(missing_ok=True)
        if read() == self:
            _pointer().unlink(missing_ok=True)


def read() -> DevFile | None:
    """The newest `slotway dev` of this user; None if none is written down."""
    try:
        fields = json.loads(_pointer().read_text())
        return DevFile(**{**fields, "routers": tuple(fields["routers"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _pointer() -> Path:
    return state_dir() / "dev.json"


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)
