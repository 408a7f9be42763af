"""The drills on a live cluster: by the command, and by the lines of docs/drills.md."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slotway.client import Client
from slotway.drills.drill import DRILLS
from slotway.drills.run import CODE
from slotway.etcd.server import find
from slotway.load import Arrivals, Generator, summary
from slotway.status import CallError

pytestmark = pytest.mark.drill

READY_S = 60.0
DRILL_S = 90.0
DOCUMENT = Path(__file__).parents[2] / "docs" / "drills.md"
AWAY_S = 3
"""Instead of the document's minute."""


class Dev:
    """`slotway dev` with three members of etcd, and Managers to spare."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{key: value for key, value in os.environ.items() if "SLOTWAY" not in key},
            "XDG_STATE_HOME": str(folder / "xdg"),
            "PATH": f"{Path(find('etcdctl')).parent}:{os.environ['PATH']}",
            "ETCDCTL_API": "3",
        }
        command = ["dev", "--etcd-members", "3", "--managers", "5", "--data-dir", str(folder)]
        self.log = (folder / "dev.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "slotway.cli", *command],
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
        )
        self.etcd, self.routers = "", [""]

    def __enter__(self) -> Dev:
        self._until(lambda: (self.folder / "endpoint").exists())
        written = json.loads((self.folder / "xdg" / "slotway" / "dev.json").read_text())
        self.etcd, self.routers = written["etcd"], written["routers"]
        self.environment["ETCDCTL_ENDPOINTS"] = self.etcd
        return self

    def _until(self, condition: Any) -> None:
        deadline = time.monotonic() + READY_S
        while not condition():
            assert self.process.poll() is None, (self.folder / "dev.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "dev.log").read_text()
            time.sleep(0.05)

    def __exit__(self, *problem: object) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()

    def term(self) -> str:
        """The leader's, as soon as there is one."""
        with Client(self.routers[0]) as client:
            deadline = time.monotonic() + READY_S
            while True:
                try:
                    term = client.cluster().term
                    return f"{term.epoch}.{term.revision}"
                except CallError as error:
                    if error.reason != "NO_LEADER" or time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    dev = Dev(tmp_path_factory.mktemp("dev"))
    with contextlib.ExitStack() as stack:
        stack.push(dev)  # also if it does not come to be ready
        yield dev.__enter__()


def test_a_drill_measures_a_failover(dev: Dev) -> None:
    shown = drill(dev, "stop-leader")
    assert shown["faults"] == []
    times = [shown[key] for key in ("key_owned_s", "told_s", "share_s", "cold_s")]
    assert all(0 < at < 10 for at in times), times
    for action in shown["load"]["actions"]:
        assert action["ok"] == action["arrived"] > 500
        assert 1 <= action["seen_max"] <= {"drill/warm": 10, "drill/single": 1}[action["action"]]


def test_a_drill_that_lasts_is_ended(dev: Dev) -> None:
    shown = drill(dev, "full", "--seconds", "1")
    assert shown["faults"] == []
    assert shown["cold_s"] > shown["ended_s"] > 1.0


def drill(dev: Dev, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "slotway.cli", "drill", *arguments, "-o", "json"],
        env=dev.environment,
        capture_output=True,
        text=True,
        timeout=DRILL_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def blocks() -> dict[str, str]:
    """The document's lines, by the drill that their first line names."""
    found = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    named = {block.partition("\n")[0].removeprefix("# "): block for block in found}
    return {name if " " not in name else "read": block for name, block in named.items()}


def test_the_document_has_every_drill() -> None:
    written = set(blocks()) - {"kill-etcd-member"}
    assert written == set(DRILLS) - {"kill-etcd-leader"}


# The last one takes a member of etcd for good.
@pytest.mark.parametrize("name", blocks())
def test_the_documents_own_lines_cost_no_warm_request(dev: Dev, name: str) -> None:
    lines = blocks()[name].replace("sleep 60", f"sleep {AWAY_S}")
    before = dev.term()
    with Client(dev.routers[0]) as client:
        client.put_action("drill/by-hand", CODE, concurrency=10)
        client.put_action("drill/cold", CODE)
        client.invoke("drill/by-hand", {}, timeout=30)
        generator = Generator(dev.routers, [("drill/by-hand", b"{}", 1.0)], Arrivals(100, 120))
        generator.start()
        try:
            assert not generator.wait(2.2)  # a key that is younger than 2 s is left alone
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", lines],
                env={**dev.environment, "CLUSTER": "dev", "STATE": str(dev.folder)},
                capture_output=True,
                text=True,
                timeout=DRILL_S,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            client.invoke("drill/cold", {}, timeout=30)  # waits for a leader that can write
        finally:
            generator.stop()
            (shown,) = summary(generator.join())["actions"]
    assert shown["failed"] == {}, shown
    assert shown["seen_max"] <= 10
    if name in DRILLS and DRILLS[name].new_leader:
        assert dev.term() != before
    with Client(dev.routers[0]) as client:
        client.delete_action("drill/cold")
