"""`images/base.sh` finds a mirror by itself, and says what to do when there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "images" / "base.sh"
DEBIAN = "http://deb.debian.org/debian"


class Machine:
    """Where the script runs: its tools only write down what they are asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.calls = folder / "calls"
        (folder / "images").mkdir()
        (folder / "tools").mkdir()
        shutil.copy(SCRIPT, folder / "images")
        self.tool("id", "echo 0")
        self.tool("docker", '[ "$1" = import ] && cat >/dev/null')
        self.tool(
            "debootstrap", f'for last; do :; done; echo "$last" >>{self.calls}; mkdir -p "$5"'
        )

    def tool(self, name: str, script: str) -> None:
        path = self._folder / "tools" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def reach(self, *mirrors: str) -> None:
        """These alone answer."""
        asked = " | ".join(f"{one}/dists/bookworm/InRelease" for one in mirrors) or "''"
        self.tool("wget", f'for last; do :; done; case "$last" in {asked}) exit 0;; esac; exit 4')

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self._folder / 'tools'}:{os.environ['PATH']}"
        return subprocess.run(
            [self._folder / "images" / "base.sh"],
            env={"PATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def mirrors(self) -> list[str]:
        """What debootstrap was given."""
        return self.calls.read_text().split() if self.calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_it_falls_back_to_debian(machine: Machine) -> None:
    machine.reach(DEBIAN)
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert machine.mirrors() == [DEBIAN]
    assert f"debootstrap from {DEBIAN}" in done.stdout


def test_the_given_mirror_is_the_only_one(machine: Machine) -> None:
    machine.reach(DEBIAN, "http://mirror.example/debian")
    assert machine.run(DEBIAN_MIRROR="http://mirror.example/debian").returncode == 0
    assert machine.mirrors() == ["http://mirror.example/debian"]
    done = machine.run(DEBIAN_MIRROR="http://gone.example/debian")
    assert done.returncode == 1
    assert "no bookworm at http://gone.example/debian" in done.stderr
    assert len(machine.mirrors()) == 1


def test_without_any_it_says_what_to_do(machine: Machine) -> None:
    machine.reach()
    done = machine.run()
    assert done.returncode == 1
    assert "DEBIAN_MIRROR=http://mirror/debian make image" in done.stderr
    assert machine.mirrors() == []
