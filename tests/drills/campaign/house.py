"""A house of the campaign's own: namespaces for processes, mounts and the network.

All that runs or is mounted in it ends with its first process, however that ends; so nothing is left
behind. Run as a program this is that first process: it reaps what nobody waits for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from slotway.tether import tethered

VARIABLE = "SLOTWAY_DRILLS_HOUSE"
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
PACKAGES = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
}


def inside() -> bool:
    """Whether this process lives in a house."""
    return VARIABLE in os.environ


def missing() -> str:
    """Why no house can be built here, and what would help; empty if one can."""
    if lacking := {package for tool, package in PACKAGES.items() if shutil.which(tool) is None}:
        return f"apt-get install {' '.join(sorted(lacking))}"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"run it as root, with rights to make namespaces ({tried.stderr.strip()})"
    return ""


def run(arguments: Sequence[str]) -> int:
    """Runs the campaign in a new house; its exit status. An interrupt is for the campaign, and is
    waited for."""
    command = [*UNSHARE, sys.executable, "-m", "tests.drills.campaign.house", *arguments]
    process = subprocess.Popen(tethered(command), env={**os.environ, VARIABLE: "1"})

    def ignore(number: int, frame: FrameType | None) -> None:  # an ignored signal is inherited
        """The first process has got it, or gets it here."""
        if number == signal.SIGTERM:
            for child in _children(process.pid):
                os.kill(child, signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ignore)
    return process.wait()


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]
    return []


def main() -> int:
    """The first process: passes an interrupt on, reaps, and gives the campaign's status back."""
    campaign = subprocess.Popen(
        [sys.executable, "-m", "tests.drills.campaign", *sys.argv[1:]], start_new_session=True
    )

    def interrupt(number: int, frame: FrameType | None) -> None:
        campaign.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    while True:
        pid, status = os.wait()
        if pid == campaign.pid:
            campaign.returncode = os.waitstatus_to_exitcode(status)
            return 128 - campaign.returncode if campaign.returncode < 0 else campaign.returncode


if __name__ == "__main__":
    sys.exit(main())
