"""What `slotway dev` leaves for other commands to find it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slotway.cli import devfile


def test_who_sees_the_endpoint_finds_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    written: list[Path] = []
    replace = devfile._replace

    def noted(path: Path, text: str) -> None:
        written.append(path)
        replace(path, text)

    monkeypatch.setattr(devfile, "_replace", noted)
    file = devfile.DevFile(
        pid=6,
        data_dir=str(tmp_path),
        etcd="127.0.0.1:2379",
        routers=("127.0.0.1:7000",),
        cluster="dev",
        pids={"router-1": 7},
    )
    file.write()
    assert written[-1] == tmp_path / "endpoint"
    assert {path.name for path in written} == {"dev.json", "router-1", "endpoint"}
    assert json.loads((tmp_path / "xdg" / "slotway" / "dev.json").read_text())["pids"]
    assert devfile.read() == file
